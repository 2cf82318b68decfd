"""What the server says of itself: one line an event on stderr, for people or for programs."""
