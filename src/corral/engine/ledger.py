"""Who has had how much: a virtual token counter for each tenant, by which those who wait take their turns. Pure.

As in "Fairness in Serving Large Language Models" (OSDI 2024): a counter grows by what its tenant is given, divided by
the tenant's weight, and the next turn is that of the least counter. Whoever comes back from a pause starts at the least
counter of those who are there, so that nobody saves up turns.
"""

from __future__ import annotations

from typing import Generic, TypeVar

_MIN_LEFT = 64  # counters of those who have left, below which none is looked through


class Account:
    """A tenant that has open work. `weight` is as its newest work says."""

    __slots__ = ("counter", "name", "num_open", "weight")

    def __init__(self, name: str, counter: float) -> None:
        self.name = name
        self.counter = counter
        self.weight = 1.0
        self.num_open = 0

    def charge(self, cost: float) -> None:
        self.counter += cost / self.weight


A = TypeVar("A", bound=Account)


class Ledger(Generic[A]):
    """All accounts.

    Args:
        make_account: of a name and the counter that it starts at.
    """

    def __init__(self, make_account: type[A]) -> None:
        self.open: dict[str, A] = {}  # in the order in which they came
        self._make_account = make_account
        self._left: dict[str, float] = {}  # counters of those without open work, as far as they are ahead of somebody
        self._look_at = _MIN_LEFT

    def enter(self, name: str, weight: float) -> A:
        """The tenant has one more piece of work open."""
        account = self.open.get(name)
        if account is None:
            account = self._make_account(name, max(self._least(), self._left.pop(name, 0.0)))
            self.open[name] = account
        account.weight = weight
        account.num_open += 1
        return account

    def leave(self, account: A) -> None:
        """A piece of its work has ended."""
        account.num_open -= 1
        if account.num_open:
            return
        del self.open[account.name]
        if not self.open:
            self._left.clear()  # nobody waits: what was given has cost nobody anything
            self._look_at = _MIN_LEFT
            return
        self._left[account.name] = account.counter
        if len(self._left) >= self._look_at:
            least = self._least()  # who is not ahead of it would start there anyway
            self._left = {name: counter for name, counter in self._left.items() if counter > least}
            self._look_at = max(_MIN_LEFT, 2 * len(self._left))

    def _least(self) -> float:
        return min((account.counter for account in self.open.values()), default=0.0)
