"""Who asks: what is known of the key that a request came with."""

from __future__ import annotations

import enum
import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import Scope


class Role(enum.StrEnum):
    """What a key may do; each may do what those below it may."""

    ADMIN = "admin"  # manage models and keys
    USER = "user"  # use models
    VIEWER = "viewer"  # look at lists, health and figures

    def includes(self, needed: Role) -> bool:
        """Whether it may do what `needed` may."""
        return _RANKS.index(self) <= _RANKS.index(needed)


_RANKS = (Role.ADMIN, Role.USER, Role.VIEWER)


@dataclass(frozen=True, slots=True)
class Quotas:
    """How much a key may use; None is without bound. Tokens are of prompts and answers together."""

    requests_per_minute: int | None = None
    requests_per_day: int | None = None
    tokens_per_minute: int | None = None
    tokens_per_day: int | None = None
    max_concurrent: int | None = None  # requests under way, waiting ones too


@dataclass(frozen=True, slots=True)
class Caller:
    """In whose name a request is made; the default is everybody's, where no key is asked for.

    Args:
        key_id: stays when the key is rotated; "" without a key.
        name: that the key's maker gave it.
        owner: whose files, batches and stored answers it sees; "" without a key.
        models: names of the models it may use; None is all.
        priority: its share beside other keys that wait, 2 being twice that of 1; above 0.
        cache_scope: keys with the same one share cached prefixes; None shares with nobody.
    """

    key_id: str = ""
    name: str = ""
    role: Role = Role.ADMIN
    owner: str = ""
    models: frozenset[str] | None = None
    priority: float = 1.0
    cache_scope: str | None = None
    quotas: Quotas = field(default_factory=Quotas)

    @property
    def cache_salt(self) -> str:
        """Cached prefixes are shared among equal ones: how soon an answer begins would tell one key of another's."""
        return self.owner if self.cache_scope is None else f"scope {self.cache_scope}"


EVERYBODY = Caller()


def caller_of_digest(digest: bytes) -> Caller:
    """The caller of a key that the server was started with, which is known by nothing but its SHA-256."""
    owner = digest.hex()
    return Caller(key_id=owner, name=f"key {owner[:8]}", owner=owner)


def digest_of(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def caller_of(scope: Scope) -> Caller:
    """Whose request it is; KeyAuth has put it there."""
    caller: Caller = scope.get("corral.caller", EVERYBODY)
    return caller


def owner_of(scope: Scope) -> str:
    """Whose files, answers and cached prefixes the request may meet; "" without keys."""
    return caller_of(scope).owner
