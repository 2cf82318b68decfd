"""How bytes come over HTTP, whatever the source: the client, what it may trust, downloads in ranges."""
