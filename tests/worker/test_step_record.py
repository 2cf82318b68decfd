"""What a worker was doing, read by another process after its death."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from corral.worker.step_record import MAX_REQUESTS, NUM_BYTES, PLACES, StepRecord, key_of, make_memory, read_record

WRITER = """
import os, sys
from corral.worker.step_record import StepRecord
record = StepRecord(int(sys.argv[1]))
record.begin(["before"])
record.end()
record.begin(["a", "b"])
with record.preparing("done"):
    pass
with record.preparing("c"):
    os.abort()
"""


@pytest.fixture
def fd() -> Iterator[int]:
    made = make_memory()
    yield made
    os.close(made)


def read(fd: int) -> mmap.mmap:
    return mmap.mmap(fd, NUM_BYTES, prot=mmap.PROT_READ)


def keys(*names: str) -> frozenset[int]:
    return frozenset(map(key_of, names))


def test_it_outlives_the_process(fd: int) -> None:
    ended = subprocess.run([sys.executable, "-c", WRITER, str(fd)], pass_fds=(fd,), check=False)
    assert ended.returncode < 0
    doing = read_record(read(fd))
    assert doing.keys == keys("a", "b", "c")
    assert doing.busy_s > 0


def test_nothing_is_under_way(fd: int) -> None:
    record, memory = StepRecord(fd), read(fd)
    assert read_record(memory).busy_s == 0.0
    record.begin(["a"])
    record.end()
    with record.preparing("b"):
        assert read_record(memory).keys == keys("b")
    doing = read_record(memory)
    assert (doing.keys, doing.busy_s) == (frozenset(), 0.0)


def test_the_oldest_counts(fd: int) -> None:
    record, memory = StepRecord(fd), read(fd)
    with record.preparing("slow"):
        before = read_record(memory).busy_s
        record.begin(["quick"])
        assert read_record(memory).busy_s >= before


def test_more_than_there_is_room_for(fd: int) -> None:
    record, memory = StepRecord(fd), read(fd)
    names = [str(number) for number in range(MAX_REQUESTS + 10)]
    record.begin(names)
    assert read_record(memory).keys == keys(*names[:MAX_REQUESTS])
    record.end()
    contexts = [record.preparing(name) for name in names[: PLACES + 3]]
    for context in contexts:
        context.__enter__()
    assert len(read_record(memory).keys) == PLACES
    for context in contexts:
        context.__exit__(None, None, None)
    assert read_record(memory).keys == frozenset()
