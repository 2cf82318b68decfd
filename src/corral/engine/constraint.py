"""What a sequence may say next, in ids: a grammar's face towards the engine."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.uint32]  # [ceil(vocab_size / 32)], bit i of word w allows token 32 w + i


class Constraint(Protocol):
    """The state of one answer. No two threads use it at once, but not always the same one does.

    Whatever a method raises as a CorralError ends the request with that error; it never ends the engine.
    """

    def fill_mask(self, mask: Mask) -> bool:
        """Write which tokens may come next; False: all may, and the mask is left as it is.

        Runs beside the forward pass. Where nothing more may be said, the end-of-text tokens alone are allowed.
        """

    def accept(self, token_id: int) -> None:
        """The token that was drawn; it was allowed. End-of-text tokens are told, too."""

    def copy(self) -> Constraint:
        """Another answer in the same state."""
