"""The processor as the native core sees it."""

from __future__ import annotations

from corral import _native
from corral.errors import InvalidConfig


def usable_cpus() -> int:
    """CPUs that this process may use, by affinity mask and cgroup quota."""
    return int(_native.cpu_info()["num_cpus"])


def active_isa() -> str:
    """The instruction set of the kernels."""
    return str(_native.cpu_info()["isa"])


def available_isas() -> list[str]:
    """The instruction sets of this machine that there are kernels for, best last."""
    return [str(isa) for isa in _native.cpu_info()["isas"]]


def select_isa(name: str) -> None:
    """Takes the kernels of one instruction set for all models loaded from now on.

    Raises:
        InvalidConfig: this machine lacks it; lists those it has.
    """
    try:
        _native.select_isa(name)
    except ValueError as error:
        raise InvalidConfig(str(error)) from None
