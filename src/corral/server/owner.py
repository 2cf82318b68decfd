"""Whose is what a request leaves behind."""

from __future__ import annotations

import hashlib

from starlette.requests import Request


def owner_of(http: Request, *, has_keys: bool) -> str:
    """A digest of the API key; without keys all that is stored is everybody's, and the answer is "".

    The request has passed KeyAuth, so that its key is one of the server's.
    """
    if not has_keys:
        return ""
    token = http.headers.get("authorization", "").partition(" ")[2].strip() or http.headers.get("x-api-key", "").strip()
    return hashlib.sha256(token.encode("latin-1", "replace")).hexdigest()
