"""What a stored key is, and what may be said of a new one. Pure."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from corral.errors import InvalidRequest
from corral.server.caller import Caller, Quotas, Role, digest_of

PREFIX = "sk-corral-"
_SECRET_BYTES = 32
MAX_NAME = 64
MAX_MODELS = 100
_MAX_MODEL_NAME = 350
_LAST_MOMENT = 253402300799.0  # Unix seconds: the end of the year 9999, beyond which dates cannot be shown
_MAX_QUOTA = 2**62  # what both databases hold
MIN_PRIORITY, MAX_PRIORITY = 0.01, 100.0
QUOTA_NAMES = tuple(quota.name for quota in fields(Quotas))


@dataclass(frozen=True, slots=True)
class NewKey:
    """What the maker of a key says of it; times are Unix seconds.

    Args:
        models: names of those it may use; None is all.
        cache_scope: keys of one scope share cached prefixes.

    Raises:
        InvalidRequest: a field cannot be obeyed; `param` names it.
    """

    name: str
    role: Role = Role.USER
    expires_at: float | None = None
    models: tuple[str, ...] | None = None
    quotas: Quotas = field(default_factory=Quotas)
    priority: float = 1.0
    cache_scope: str | None = None

    def __post_init__(self) -> None:
        _check_text("name", self.name)
        if self.cache_scope is not None:
            _check_text("cache_scope", self.cache_scope)
        if self.expires_at is not None and not time.time() < self.expires_at <= _LAST_MOMENT:
            raise InvalidRequest(
                "expires must be in the future, and before the year 10000", param="expires", code="invalid_value"
            )
        if self.models is not None:
            _check_models(self.models)
        for name in QUOTA_NAMES:
            value = getattr(self.quotas, name)
            if value is not None and not 1 <= value <= _MAX_QUOTA:
                message = f"{name} is {value}; it must be a whole number from 1 to {_MAX_QUOTA}"
                raise InvalidRequest(message, param=name, code="invalid_value")
        if not MIN_PRIORITY <= self.priority <= MAX_PRIORITY:
            message = f"priority is {self.priority:g}; it must be from {MIN_PRIORITY:g} to {MAX_PRIORITY:g}"
            raise InvalidRequest(message, param="priority", code="invalid_value")


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A key as the database has it; its secret is known by its digest alone."""

    id: str
    name: str
    role: Role
    digest: bytes
    created_at: float
    priority: float
    quotas: Quotas
    former_digest: bytes | None = None
    former_until: float | None = None
    expires_at: float | None = None
    last_used_at: float | None = None
    revoked_at: float | None = None
    models: tuple[str, ...] | None = None
    cache_scope: str | None = None

    def refusal(self, now: float) -> str:
        """Why it opens nothing any more; "" if it does."""
        if self.revoked_at is not None:
            return "the API key has been revoked"
        if self.expires_at is not None and self.expires_at <= now:
            return "the API key has expired"
        return ""

    def status(self, now: float) -> str:
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.refusal(now) else "active"

    def caller(self) -> Caller:
        return Caller(
            key_id=self.id,
            name=self.name,
            role=self.role,
            owner=self.id,
            models=None if self.models is None else frozenset(self.models),
            priority=self.priority,
            cache_scope=self.cache_scope,
            quotas=self.quotas,
        )

    def public(self) -> dict[str, Any]:
        """What may be shown of it: all but the digests."""
        return {
            "id": self.id,
            "name": self.name,
            "role": str(self.role),
            "status": self.status(time.time()),
            "created_at": int(self.created_at),
            "expires_at": _whole(self.expires_at),
            "last_used_at": _whole(self.last_used_at),
            "revoked_at": _whole(self.revoked_at),
            "models": None if self.models is None else list(self.models),
            **{name: getattr(self.quotas, name) for name in QUOTA_NAMES},
            "priority": self.priority,
            "cache_scope": self.cache_scope,
        }


def new_secret() -> str:
    """256 random bits, behind a prefix by which scanners of leaked secrets know it."""
    return PREFIX + secrets.token_urlsafe(_SECRET_BYTES)


def new_id() -> str:
    return f"key_{secrets.token_hex(12)}"


def hex_digest(secret: str) -> str:
    return digest_of(secret.encode()).hex()


def _whole(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds)


def _check_text(param: str, text: str) -> None:
    if not 0 < len(text) <= MAX_NAME or not text.isprintable() or text != text.strip():
        message = f"{param} must be 1 to {MAX_NAME} printable characters without spaces at its ends"
        raise InvalidRequest(message, param=param, code="invalid_value")


def _check_models(models: Sequence[str]) -> None:
    if not 0 < len(models) <= MAX_MODELS:
        message = f"models has {len(models)} names; it must have 1 to {MAX_MODELS}"
        raise InvalidRequest(message, param="models", code="invalid_value")
    for name in models:
        if not 0 < len(name) <= _MAX_MODEL_NAME or not name.isprintable():
            message = f"models has a name that is none: {name[:60]!r}"
            raise InvalidRequest(message, param="models", code="invalid_value")
