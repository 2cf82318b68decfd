"""Fail if a matmul tile keeps vectors on the stack: a spill in the innermost loop costs a store slot per use.

    check_spills.py OBJECT... [--objdump PROGRAM]

Reads the disassembly of objects of kernels/matmul_avx512*.cc. A function whose name contains `tile_` may touch the
stack with zmm registers only as often as ALLOWED says. Ends with 1 and the offending functions otherwise.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator

_FUNCTION = re.compile(r"^[0-9a-f]+ <(?P<name>.*)>:$")
_STACK = r"(?:\(%rsp|-0x[0-9a-f]+\(%rbp)"  # rbp is a frame's pointer only below it; elsewhere a register like others
_SPILL = re.compile(f"%zmm.*{_STACK}|{_STACK}.*%zmm")
_TILE = re.compile(r"\btile_\w+<")

# Accesses to the stack that are known and outside of the loop over dot products, by a part of the function's name.
ALLOWED = {"tile_floats<(corral::TensorType)0, 3>": 2}


def spills(lines: Iterable[str]) -> Iterator[tuple[str, int]]:
    """Each tile function of a disassembly (AT&T syntax, demangled) with its number of vector accesses to the stack."""
    name, count = "", 0
    for line in lines:
        function = _FUNCTION.match(line)
        if function:
            if _TILE.search(name):
                yield name, count
            name, count = function["name"], 0
        elif _SPILL.search(line):
            count += 1
    if _TILE.search(name):
        yield name, count


def allowed(name: str) -> int:
    """How often this function may touch the stack."""
    return max((count for part, count in ALLOWED.items() if part in name), default=0)


def main() -> int:
    """0 if no tile spills, 1 if one does, 2 if there is no tile at all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("objects", nargs="+")
    parser.add_argument("--objdump", default="objdump")
    options = parser.parse_args()
    num_tiles, failed = 0, False
    for path in options.objects:
        command = [options.objdump, "--disassemble", "--demangle", "--no-show-raw-insn", path]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        for name, count in spills(done.stdout.splitlines()):
            num_tiles += 1
            if count > allowed(name):
                failed = True
                print(f"{path}: {count} vector accesses to the stack (allowed: {allowed(name)}) in {name}")
    print(f"{num_tiles} tiles checked")
    if num_tiles == 0:
        print("no function with `tile_` in its name: give objects of kernels/matmul_avx512*.cc", file=sys.stderr)
        return 2
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
