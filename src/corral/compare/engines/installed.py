"""What distributions take on disk, with all that they need: for this interpreter, or as a script for another one.

    python -I installed.py NAME [NAME ...]   # prints JSON; the first that is installed counts

It imports nothing of Corral's, as other environments do not have it.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path


def installed(names: Iterable[str]) -> dict[str, object]:
    """Name, version and bytes of the first of `names` that is there with its dependencies; {} if none is."""
    for name in names:
        found = _find(name)
        if found is not None:
            return {"name": name, "version": found.version, "bytes": disk_bytes(_files(name))}
    return {}


def versions(names: Iterable[str]) -> dict[str, str]:
    """Of those that are there."""
    return {name: found.version for name in names if (found := _find(name)) is not None}


def disk_bytes(paths: Iterable[Path]) -> int:
    """What files take, in whole blocks; a file with two names counts once, a link not at all."""
    seen: set[tuple[int, int]] = set()
    total = 0
    for path in paths:
        try:
            stat = path.lstat()
        except OSError:
            continue
        if path.is_symlink() or (stat.st_dev, stat.st_ino) in seen:
            continue
        seen.add((stat.st_dev, stat.st_ino))
        total += stat.st_blocks * 512  # st_blocks counts in these whatever the file system's own are
    return total


def folder_bytes(folder: Path) -> int:
    return disk_bytes(path for path in folder.rglob("*") if path.is_file())


def _find(name: str) -> metadata.Distribution | None:
    try:
        return metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return None


def _files(root: str) -> set[Path]:
    """Of a distribution and of those that it requires without extras, as far as they are installed."""
    waiting, done, files = [root], set(), set()
    while waiting:
        name = waiting.pop()
        key = re.sub(r"[-_.]+", "-", name).lower()
        if key in done or (found := _find(name)) is None:
            continue
        done.add(key)
        files |= {Path(str(found.locate_file(file))) for file in found.files or ()}
        for requirement in found.requires or ():
            if "extra ==" not in requirement and (match := re.match(r"[A-Za-z0-9._-]+", requirement)):
                waiting.append(match.group())
    return files


if __name__ == "__main__":
    told = installed(sys.argv[1:])
    others = versions(("torch", "transformers", "zentorch"))
    sys.stdout.write(json.dumps({**told, "others": others}))
