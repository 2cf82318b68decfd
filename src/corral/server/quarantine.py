"""Which request ends the workers of a model? Found by letting those that were there go on one at a time. No I/O.

A death says whom it involves: the requests that were being computed or prepared (see worker/death.py). A fault is laid
upon them all; a kill from outside upon nobody, unless the same request sees LIVES of them in a row without a token.

Who is suspected goes on alone among the suspects, when its turn has come: beside requests that are not suspected, but
beside no other that is. A turn is over when the request has gained a token, or has ended; then it is cleared. If the
worker dies in somebody's turn, it was that one: with its second death it is refused, and whoever asks the same again is
refused at once for a while. So of a crowd in which one request is deadly all others go on after two deaths.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from dataclasses import dataclass, replace

import msgspec

from corral.errors import PoisonousRequest
from corral.request import DetokenizeRequest, EmbedRequest, Request
from corral.worker.death import Death, DeathKind

LIVES = 20  # kills from outside in a row that a request may see without a token; after them it is suspected too
MAX_DEATHS = 10  # that a request may be involved in, whoever was to blame
REMEMBERED_S = 3600.0
MAX_REMEMBERED = 1000

Asked = Request | EmbedRequest | DetokenizeRequest


@dataclass(eq=False, slots=True)
class Patient:
    """A request as far as the workers' deaths are concerned.

    Args:
        num_fruitless: deaths since it last gained a token.
        num_deaths: that were laid upon it, alone or with others.
    """

    request: Asked
    num_fruitless: int = 0
    num_deaths: int = 0
    is_suspect: bool = False


class Quarantine:
    """Of one model; lives on the server's event loop."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._in_turn: Patient | None = None
        self._death: Death | None = None  # the last one, and whose turn it was
        self._culprit: Patient | None = None
        self._poisons: OrderedDict[bytes, float] = OrderedDict()  # fingerprint -> until when it is refused

    @property
    def num_refused(self) -> int:
        """Requests that are refused at once now."""
        now = _now()
        return sum(until > now for until in self._poisons.values())

    def check(self, request: Asked) -> None:
        """Raises PoisonousRequest: the same has ended workers a short while ago."""
        if self._poisons and self._poisons.get(_fingerprint(request), 0.0) > _now():
            raise PoisonousRequest(
                "the same request has ended this model's worker twice and is not tried again for an hour; "
                "the server's log says how the worker ended"
            )

    async def enter(self, patient: Patient) -> None:
        """Waits for its turn, if it is suspected."""
        if patient.is_suspect and self._in_turn is not patient:
            await self._turn.acquire()
            self._in_turn = patient

    def leave(self, patient: Patient) -> None:
        """It has gained a token, or has ended. Idempotent."""
        patient.num_fruitless = 0
        patient.is_suspect = False
        if self._in_turn is patient:
            self._in_turn = None
            self._turn.release()

    def died(self, patient: Patient, death: Death) -> None:
        """The worker has died while it had the request.

        Raises:
            PoisonousRequest: it was this request, for the second time.
        """
        if death is not self._death:  # the first of its patients to tell; that one's turn may be over soon
            self._death, self._culprit = death, self._in_turn
        patient.num_fruitless += 1
        is_killed = death.kind is DeathKind.KILLED
        if not death.involves(patient.request.request_id) or (is_killed and patient.num_fruitless < LIVES):
            return
        is_alone = len(death.doing.keys) == 1 or self._culprit is patient
        if self._culprit not in (None, patient) and not is_killed:
            return  # it was the one whose turn it was
        patient.num_deaths += 1
        patient.is_suspect = True
        if (is_alone and patient.num_deaths >= 2) or patient.num_deaths >= MAX_DEATHS:
            self._remember(patient.request)
            self.leave(patient)
            raise PoisonousRequest(
                "this request was given up: the model's worker has died over it twice "
                f"({death.kind.value}); the server's log says how"
            )

    def _remember(self, request: Asked) -> None:
        self._poisons[_fingerprint(request)] = _now() + REMEMBERED_S
        while len(self._poisons) > MAX_REMEMBERED:
            self._poisons.popitem(last=False)


def _fingerprint(request: Asked) -> bytes:
    """The same for requests that ask the same on the same account."""
    plain: Asked = replace(request, request_id="")
    if isinstance(plain, Request):
        plain = replace(plain, sampling=replace(plain.sampling, seed=None), deadline=None, resumed=(), at=None)
    elif isinstance(plain, EmbedRequest):
        plain = replace(plain, deadline=None)
    return hashlib.sha256(msgspec.msgpack.encode(plain)).digest()


def _now() -> float:
    return asyncio.get_running_loop().time()
