"""A few values in a JSON file of somebody else: set, and put back as they were.

What was changed is noted in a record of ours, so that later edits of the user stay when our values leave.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from corral.errors import CorralError

Keys = tuple[str, ...]
BACKUP_SUFFIX = ".before-corral"


def set_values(path: Path, values: Mapping[Keys, Any], record: Path) -> bool:
    """Sets the values at these paths of keys; False if they were there already. The first edit leaves a backup.

    Raises:
        CorralError: the file is no plain JSON object (comments, for instance), or cannot be written; it is untouched.
    """
    text = _text(path)
    document = _parsed(path, text)
    noted: dict[str, Any] = _read_record(record) or {"path": str(path), "existed": text is not None, "changes": []}
    before = {tuple(change["keys"]): change for change in noted["changes"]}
    is_changed = False
    for keys, value in values.items():
        holder = _holder(path, document, keys)
        had, old = keys[-1] in holder, holder.get(keys[-1])
        if had and old == value:
            continue
        first = before.get(keys)
        is_ours = first is not None and had and old == first["after"]
        before[keys] = {
            "keys": list(keys),
            "had": first["had"] if first is not None and is_ours else had,
            "before": first["before"] if first is not None and is_ours else old,
            "after": value,
        }
        holder[keys[-1]] = value
        is_changed = True
    if is_changed:
        noted["changes"] = list(before.values())
        _write(record, json.dumps(noted, indent=2, ensure_ascii=False) + "\n")
        backup = path.with_name(path.name + BACKUP_SUFFIX)
        if text is not None and not backup.exists():
            shutil.copy2(path, backup)
        _write(path, _formatted(document, text))
    return is_changed


def put_back(record: Path) -> Path | None:
    """Takes our values out of the file again, unless they have been changed since; the file, or None: nothing to do.

    Raises:
        CorralError: as set_values.
    """
    noted = _read_record(record)
    if noted is None:
        return None
    path = Path(noted["path"])
    text = _text(path)
    if text is not None:
        document = _parsed(path, text)
        for change in reversed(noted["changes"]):
            _undo(path, document, change)
        if not document and not noted["existed"]:
            path.unlink()
        else:
            _write(path, _formatted(document, text))
    record.unlink()
    return path


def _undo(path: Path, document: dict[str, Any], change: dict[str, Any]) -> None:
    keys = tuple(change["keys"])
    holder = _holder(path, document, keys)
    if holder.get(keys[-1]) == change["after"]:
        if change["had"]:
            holder[keys[-1]] = change["before"]
        else:
            holder.pop(keys[-1], None)
    for depth in range(len(keys) - 1, 0, -1):  # objects that only our values were in
        parent = _holder(path, document, keys[:depth])
        if parent.get(keys[depth - 1]) == {} and not change["had"]:
            del parent[keys[depth - 1]]


def _holder(path: Path, document: dict[str, Any], keys: Keys) -> dict[str, Any]:
    """The object that the last key is in; made if it is not there."""
    for key in keys[:-1]:
        inner = document.setdefault(key, {})
        if not isinstance(inner, dict):
            raise CorralError(f"{path}: {key!r} is no object; it is left as it is")
        document = inner
    return document


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise CorralError(f"cannot read {path}: {error}") from error


def _parsed(path: Path, text: str | None) -> dict[str, Any]:
    if text is None or not text.strip():
        return {}
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CorralError(f"{path} is no plain JSON ({error}); it is left as it is") from error
    if not isinstance(document, dict):
        raise CorralError(f"{path} holds no JSON object; it is left as it is")
    return document


def _formatted(document: dict[str, Any], text: str | None) -> str:
    """In the file's own indentation, with its own end."""
    found = re.search(r"^([ \t]+)\S", text or "", re.MULTILINE)
    indent = found[1] if found else "  "
    return json.dumps(document, indent=indent, ensure_ascii=False) + ("\n" if not text or text.endswith("\n") else "")


def _read_record(record: Path) -> dict[str, Any] | None:
    text = _text(record)
    return None if text is None else _parsed(record, text)


def _write(path: Path, text: str) -> None:
    """Whole or not at all, through links, with the mode that the file had."""
    target = path.resolve()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, scratch = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
            if target.exists():
                shutil.copymode(target, scratch)
            Path(scratch).replace(target)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                Path(scratch).unlink()
            raise
    except OSError as error:
        raise CorralError(f"cannot write {path}: {error.strerror or error}") from error
