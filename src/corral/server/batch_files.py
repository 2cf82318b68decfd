"""The folder of a batch that is not finished: its input, and its output as it comes. Everything here blocks."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from corral.limits import MAX_BATCH_LINE_BYTES, MAX_BATCH_LINES
from corral.protocol.openai.batches import MAX_ERRORS, LineError, parse_line

INPUT, OUTPUT, ERRORS = "input.jsonl", "output.jsonl", "error.jsonl"
_EXPIRED = {"code": "batch_expired", "message": "the batch expired before this request was run"}

Line = tuple[str, dict[str, Any]]  # custom_id, body


def link_or_copy(source: Path, target: Path) -> None:
    """`target` has the content of `source`, whatever becomes of that name; one that is there already stays."""
    try:
        os.link(source, target)
    except FileExistsError:
        return
    except OSError:  # a file system without hard links, or another one
        part = target.with_suffix(".part")
        shutil.copyfile(source, part)
        part.replace(target)


def validate(folder: Path, endpoint: str) -> tuple[int, list[dict[str, Any]]]:
    """Number of lines, and what is wrong with some of them."""
    errors: list[dict[str, Any]] = []
    seen: set[str] = set()
    number = 0
    for number, line in enumerate(_lines(folder / INPUT), 1):
        try:
            if number > MAX_BATCH_LINES:
                raise LineError("too_many_tasks", f"the file has more than {MAX_BATCH_LINES} lines")
            custom_id, _ = parse_line(line, endpoint)
            if custom_id in seen:
                raise LineError("duplicate_custom_id", f"custom_id {custom_id[:60]!r} came before", "custom_id")
            seen.add(custom_id)
        except LineError as error:
            errors.append({"code": error.code, "message": error.message, "param": error.param, "line": number})
            if len(errors) == MAX_ERRORS or number > MAX_BATCH_LINES:
                break
    if number == 0:
        errors.append({"code": "empty_file", "message": "the input file is empty", "param": None, "line": None})
    return len(seen), errors


def recover(folder: Path) -> tuple[set[str], dict[str, int]]:
    """The custom_ids that have an answer, and how many went well and did not.

    Cuts off what a crash left half written: an answer counts when its whole line is there.
    """
    done: set[str] = set()
    counts = {"completed": 0, "failed": 0}
    for name, count in ((OUTPUT, "completed"), (ERRORS, "failed")):
        if not (path := folder / name).exists():
            continue
        whole = 0
        with path.open("rb") as file:
            for line in file:
                custom_id = _custom_id(line)
                if custom_id is None:
                    break
                whole += len(line)
                done.add(custom_id)
                counts[count] += 1
        os.truncate(path, whole)
    return done, counts


def _custom_id(line: bytes) -> str | None:
    """Of a whole line of output; None where a crash has torn it."""
    if not line.endswith(b"\n"):
        return None
    try:
        return str(msgspec.json.decode(line)["custom_id"])
    except (ValueError, TypeError, KeyError):
        return None


def remaining(folder: Path, endpoint: str, done: set[str]) -> Iterator[Line]:
    """The lines without an answer."""
    for line in _lines(folder / INPUT):
        custom_id, body = parse_line(line, endpoint)
        if custom_id not in done:
            yield custom_id, body


def append_answer(folder: Path, custom_id: str, status: int, body: Any, request_id: str) -> bool:
    """Adds an answer where it belongs, on the disk when this returns; whether it is a good one."""
    is_good = status < 400
    response = {"status_code": status, "request_id": request_id, "body": body}
    _append(folder / (OUTPUT if is_good else ERRORS), _result(custom_id, response, None))
    return is_good


def expire(folder: Path, endpoint: str) -> int:
    """An error for each line that was not run; how many they were."""
    count = 0
    done, _ = recover(folder)
    for custom_id, _ in remaining(folder, endpoint, done):
        _append(folder / ERRORS, _result(custom_id, None, _EXPIRED))
        count += 1
    return count


def remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def _result(custom_id: str, response: object, error: object) -> bytes:
    fields = {"id": f"batch_req_{secrets.token_hex(12)}", "custom_id": custom_id}
    return msgspec.json.encode({**fields, "response": response, "error": error}) + b"\n"


def _append(path: Path, line: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as file:
        end = file.tell()
        try:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        except OSError:  # a full disk: half a line would spoil the next one
            with contextlib.suppress(OSError):
                os.truncate(path, end)
            raise


def _lines(path: Path) -> Iterator[bytes]:
    """No longer than a line may be and a bit, which tells that it is too long."""
    with path.open("rb") as file:
        while line := file.readline(MAX_BATCH_LINE_BYTES + 2):
            yield line
            while not line.endswith(b"\n") and line:
                line = file.readline(1 << 20)
