"""The spill check sees vectors on the stack, and only in tiles."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "native" / "tests" / "check_spills.py"


@pytest.fixture(scope="module")
def check_spills() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_spills", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def disassembly(name: str, *instructions: str) -> list[str]:
    return [f"0000000000000670 <{name}>:", *(f"     670:\t{line}" for line in instructions), ""]


TILE = "void corral::avx512::(anonymous namespace)::tile_blocks<(corral::TensorType)2, 4>(TileArgs const&)"


@pytest.mark.parametrize(
    ("instruction", "count"),
    [
        ("vmovdqa64 %zmm27,0x48(%rsp)", 1),
        ("vpaddd -0x78(%rsp),%zmm6,%zmm7", 1),
        ("vmovups %zmm1,-0x40(%rbp)", 1),
        ("vmovups 0x40(%rbp),%zmm1", 0),  # rbp as a register like others
        ("vmovups (%r11),%zmm7", 0),
        ("mov %rax,0x8(%rsp)", 0),
    ],
)
def test_counts_vectors_on_the_stack(check_spills: ModuleType, instruction: str, count: int) -> None:
    assert list(check_spills.spills(disassembly(TILE, "ret", instruction))) == [(TILE, count)]


def test_other_functions_do_not_count(check_spills: ModuleType) -> None:
    lines = disassembly("run_matmul(TileKernels)", "vmovups %zmm1,(%rsp)") + disassembly(TILE, "ret")
    assert list(check_spills.spills(lines)) == [(TILE, 0)]


def test_what_is_allowed_belongs_to_one_tile(check_spills: ModuleType) -> None:
    part, count = next(iter(check_spills.ALLOWED.items()))
    assert check_spills.allowed(f"void {part}(TileArgs const&)") == count
    assert check_spills.allowed(TILE) == 0
