"""The keys as the server looks them up: in memory, as new as about a second ago."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from corral.errors import CorralError, KeyRefused, StorageError
from corral.server.caller import Caller, caller_of_digest, digest_of

if TYPE_CHECKING:
    from corral.server.keys.key import StoredKey
    from corral.server.keys.store import KeyStore

logger = logging.getLogger("corral.server")

POLL_S = 1.0  # how long a key that was revoked elsewhere still works
TOUCH_S = 60.0  # between notes of when keys were used last
_HEAD = 8  # bytes of a digest by which keys are found; they tell nothing about the secret


class KeyRing:
    """Lives on the server's event loop.

    Args:
        static: keys that the server was started with: admins without quotas.
        store: further keys; None looks at the static ones alone.
    """

    def __init__(self, static: Iterable[str] = (), store: KeyStore | None = None) -> None:
        self.set_static(static)
        self._store = store
        self._stored: dict[bytes, list[tuple[bytes, StoredKey]]] = {}
        self._by_id: dict[str, StoredKey] = {}
        self._version: int | None = None
        self._is_known = store is None
        self._fault = StorageError("the API keys have not been read yet", "busy")
        self._used: dict[str, float] = {}
        self._task: asyncio.Task[None] | None = None
        self._reading = asyncio.Lock()

    @property
    def is_open(self) -> bool:
        """No key exists, not even a revoked one: everybody may come.

        A server whose last key was revoked must not open to all by that.
        """
        return self._is_known and not self._static and not self._by_id

    def check_known(self) -> None:
        """Raises StorageError: the stored keys have never been read, so nobody knows whether there are any."""
        if not self._is_known:
            raise self._fault

    def set_static(self, keys: Iterable[str]) -> None:
        """Puts these keys in the place of those that the server was started with."""
        self._static = [digest_of(key.encode()) for key in keys]

    def find(self, secret: bytes) -> Caller:
        """Whose secret it is.

        Raises:
            KeyRefused: nobody's, or its key is expired or revoked, which only who holds the secret is told.
            StorageError: the keys could not be read yet.
        """
        given = digest_of(secret)
        # Every static key is compared, in constant time: the time taken tells nothing about which one is near.
        matches = [hmac.compare_digest(given, digest) for digest in self._static]
        if any(matches):
            return caller_of_digest(given)
        self.check_known()
        now = time.time()
        for digest, key in self._stored.get(given[:_HEAD], ()):
            if not hmac.compare_digest(given, digest):
                continue
            refusal = key.refusal(now)
            if not refusal and digest != key.digest and (key.former_until or 0.0) <= now:
                refusal = "the API key has been rotated; use the new one"
            if refusal:
                raise KeyRefused(refusal)
            self._used[key.id] = now
            return key.caller()
        raise KeyRefused("the API key is not valid")

    def caller_of_owner(self, owner: str) -> Caller:
        """In whose name work goes on that a caller has left here: a batch.

        Raises:
            KeyRefused: its key does not work any more.
            StorageError: the keys could not be read yet.
        """
        if not owner:
            return Caller()
        if owner in {digest.hex() for digest in self._static}:
            return caller_of_digest(bytes.fromhex(owner))
        self.check_known()
        key = self._by_id.get(owner)
        if key is not None:
            if refusal := key.refusal(time.time()):
                raise KeyRefused(refusal)
            return key.caller()
        if self.is_open or self._store is None:
            return Caller(owner=owner)
        raise KeyRefused("the API key is not among the server's any more")

    async def reload(self) -> None:
        """Reads the stored keys anew, whatever their version says. Raises StorageError."""
        self._version = None
        await self._refresh()

    async def start(self) -> None:
        """Reads the keys, and goes on doing so; until it has succeeded nobody but static keys gets in."""
        if self._store is None:
            return
        await self.refresh()
        self._task = asyncio.ensure_future(self._poll())

    async def close(self) -> None:
        """Idempotent."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
            self._task = None
            await self._touch()

    async def _poll(self) -> None:
        touched = time.monotonic()
        while True:
            await asyncio.sleep(POLL_S)
            await self.refresh()
            if time.monotonic() - touched >= TOUCH_S:
                touched = time.monotonic()
                await self._touch()

    async def refresh(self) -> None:
        """Reads the stored keys if they have changed; where they cannot be read, what is known stays."""
        try:
            await self._refresh()
        except StorageError as error:  # it is logged; what is known stays valid, and expires by itself
            self._fault = error
        except Exception:
            logger.exception("the API keys could not be read")

    async def _refresh(self) -> None:
        store = self._store
        if store is None:
            return
        async with self._reading:
            if not store.database.is_there:  # nobody has made a key; the file is not made for a look
                self._is_known = True
                return
            if self._version is not None and await asyncio.to_thread(store.version) == self._version:
                return
            version, keys = await asyncio.to_thread(store.snapshot)
            stored: dict[bytes, list[tuple[bytes, StoredKey]]] = {}
            for key in keys:
                for digest in (key.digest, key.former_digest):
                    if digest is not None:
                        stored.setdefault(digest[:_HEAD], []).append((digest, key))
            self._stored, self._by_id = stored, {key.id: key for key in keys}
            self._version, self._is_known = version, True

    async def _touch(self) -> None:
        used, self._used = self._used, {}
        if used and self._store is not None:
            with contextlib.suppress(CorralError):  # a coarse note, and the database has logged what ails it
                await asyncio.to_thread(self._store.touch, used)
