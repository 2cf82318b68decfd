"""Mutations of sound files: refused by name, or still sound."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.fuzz_gguf import INTERESTING, WIDTHS, Mutation, Seed, apply, cases, check_file, make_seeds


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> list[Seed]:
    return make_seeds(tmp_path_factory.mktemp("seeds"))


def mutations(seed: Seed) -> st.SearchStrategy[list[Mutation]]:
    values = st.sampled_from(INTERESTING) | st.integers(0, (1 << 64) - 1)
    positions = st.sampled_from(seed.fields) | st.integers(0, len(seed.data) - 1)
    kinds = st.sampled_from(("write", "write", "write", "cut", "drop", "repeat"))
    one = st.builds(Mutation, kinds, positions, values, st.sampled_from(WIDTHS))
    return st.lists(one, min_size=1, max_size=6)


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_mutated_file_is_refused_by_name_or_sound(
    data: st.DataObject, seeds: list[Seed], tmp_path_factory: pytest.TempPathFactory
) -> None:
    seed = data.draw(st.sampled_from(seeds))
    path = tmp_path_factory.getbasetemp() / "case.gguf"
    path.write_bytes(apply(seed.data, data.draw(mutations(seed))))
    assert check_file(path) in {"sound", "invalid", "unsupported"}


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=512), behind_magic=st.booleans())
def test_arbitrary_bytes_are_refused(data: bytes, behind_magic: bool, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "bytes.gguf"
    path.write_bytes(b"GGUF\3\0\0\0" + data if behind_magic else data)
    assert check_file(path) in {"invalid", "unsupported"}


def test_the_fuzzer_reaches_every_outcome(seeds: list[Seed], tmp_path: Path) -> None:
    path = tmp_path / "case.gguf"
    outcomes = set()
    for _, data in zip(range(300), cases(seeds, seed=7), strict=False):
        path.write_bytes(data)
        outcomes.add(check_file(path))
    assert outcomes == {"sound", "invalid", "unsupported"}
