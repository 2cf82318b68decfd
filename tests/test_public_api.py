"""`corral.__all__` is the public API: complete, sorted, importable, documented."""

from __future__ import annotations

import corral


def test_all_is_sorted_and_real() -> None:
    assert corral.__all__ == sorted(corral.__all__)
    for name in corral.__all__:
        assert getattr(corral, name) is not None


def test_every_public_name_is_documented() -> None:
    for name in corral.__all__:
        if name != "__version__":
            assert getattr(corral, name).__doc__, name


def test_nothing_else_leaks_out() -> None:
    public = {name for name in vars(corral) if not name.startswith("_")}
    modules = {name for name in public if type(getattr(corral, name)).__name__ == "module"}
    assert public - modules <= set(corral.__all__) | {"annotations", "Any", "TYPE_CHECKING"}
