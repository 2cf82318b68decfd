"""Which files of a repository on the Hugging Face hub make up the model that was asked for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from corral.errors import DownloadError, ModelNotFound

_SPLIT = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})", re.DOTALL)
_QUANT = re.compile(
    r"(?:^|[-._/ ])(?P<quant>(?:UD-)?(?:I?Q\d(?:_[A-Z0-9]+)*|TQ\d_\d|MXFP4(?:_[A-Z]+)?|BF16|F16|FP16|F32))"
    r"(?=$|[-._/ ])",
    re.IGNORECASE,
)
# The first of these that a repository has: good answers for their size first, then better, then smaller.
_PREFERRED = (
    *("Q4_K_M", "UD-Q4_K_XL", "Q4_K_L", "Q4_K_S", "Q4_0", "Q4_1", "Q5_K_M", "Q5_K_S", "Q5_0", "Q5_1", "Q6_K"),
    *("Q8_0", "Q3_K_L", "Q3_K_M", "Q3_K_S", "Q2_K", "BF16", "F16", "FP16", "F32"),
)


@dataclass(frozen=True, slots=True)
class RepoFile:
    """A file of a repository; `sha256` (hex) and `size_bytes` where the hub tells them."""

    path: str
    size_bytes: int | None = None
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Variant:
    """One model of a repository: a file, or all parts of a split one, in order."""

    stem: str  # path without suffix and part number
    files: tuple[RepoFile, ...]

    @property
    def quant(self) -> str:
        """Q4_K_M, UD-Q4_K_XL, F16, ... as the name says it; "" if it does not."""
        found = [match["quant"] for match in _QUANT.finditer(self.stem)]
        return found[-1].upper() if found else ""


def choose(files: Sequence[RepoFile], tag: str, repo: str) -> Variant:
    """The variant that `tag` means: a quantisation or a file's name, in any case; `latest` is Q4_K_M or the next best.

    Raises:
        ModelNotFound: none, or more than one; lists what is there.
        DownloadError: parts of a split model are missing.
    """
    variants = variants_of(files)
    if not variants:
        raise ModelNotFound(
            f"{repo} has no .gguf file on the hub; look for a repository of the same model whose name ends in -GGUF"
        )
    found = _default(variants) if tag.lower() == "latest" else _matching(variants, tag)
    if len(found) != 1:
        there = ", ".join(sorted({_label(v, variants) for v in variants}))
        what = "no" if not found else f"{len(found)} models of"
        kind = "that it could choose by itself" if tag.lower() == "latest" else repr(tag)
        raise ModelNotFound(f"{repo} has {what} {kind}; name one of these, as hf.co/{repo}:NAME: {there}")
    check_parts(found[0], repo)
    return found[0]


def variants_of(files: Sequence[RepoFile]) -> list[Variant]:
    """Every model among `files`; image encoders and calibration data are none."""
    parts: dict[str, list[RepoFile]] = {}
    for file in sorted(files, key=lambda f: f.path):
        name = file.path.rpartition("/")[2].lower()
        if not name.endswith(".gguf") or "mmproj" in name or "imatrix" in name:
            continue
        stem = file.path[: -len(".gguf")]
        match = _SPLIT.fullmatch(stem)
        parts.setdefault(match["stem"] if match else stem, []).append(file)
    return [Variant(stem, tuple(found)) for stem, found in parts.items()]


def _default(variants: list[Variant]) -> list[Variant]:
    if len(variants) == 1:
        return variants
    for quant in _PREFERRED:
        if found := [v for v in variants if v.quant == quant]:
            return found
    return []


def _matching(variants: list[Variant], tag: str) -> list[Variant]:
    """By quantisation; else by the file's name, with or without .gguf; else by a part of the name between marks."""
    wanted = tag.lower()
    if found := [v for v in variants if v.quant.lower() == wanted]:
        return found
    stem = wanted.removesuffix(".gguf")
    names = {id(v): v.stem.rpartition("/")[2].lower() for v in variants}
    if found := [v for v in variants if names[id(v)] == stem]:
        return found
    inside = re.compile(rf"(?:^|[-._/ ]){re.escape(wanted)}(?=$|[-./ ])")
    return [v for v in variants if inside.search(v.stem.lower())]


def _label(variant: Variant, variants: list[Variant]) -> str:
    same = [v for v in variants if v.quant == variant.quant]
    return variant.quant if variant.quant and len(same) == 1 else variant.stem.rpartition("/")[2]


def check_parts(variant: Variant, repo: str) -> None:
    """All parts of a split model, no more, none twice."""
    matches = [_SPLIT.fullmatch(f.path[: -len(".gguf")]) for f in variant.files]
    if len(matches) == 1 and matches[0] is None:
        return
    numbers = [(int(m["number"]), int(m["count"])) if m else (0, 0) for m in matches]
    count = numbers[0][1]
    if numbers != [(n, count) for n in range(1, count + 1)]:
        raise DownloadError(f"{repo} has {len(numbers)} of the {count} parts of {variant.stem}; all are needed")
