"""What each path does: one file a protocol or subject. Here wire formats and workers meet."""
