"""What of our own errors' texts is the operator's and not the client's: where files lie on the server. Pure."""

from __future__ import annotations

import re

# An absolute path of two parts at least, on its own: not the path of a URL, not 1/2 or and/or, no route of ours.
# Linear in time: a part never begins where another could.
_PATH = re.compile(r"(?<![\w/:.~])(?!/(?:api|v1)/)~?(?:/[^/\s'\":,;()]+)+/([^/\s'\":,;()]+)/?")


def without_folders(text: str) -> str:
    """The text with every path of a file cut to the file's own name."""
    return _PATH.sub(r"\1", text)
