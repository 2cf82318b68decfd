from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from corral.errors import InvalidManifest
from corral.store.manifest import CONFIG, MODEL, Layer, Manifest, encode_manifest, parse_manifest, read_manifest

DIGEST = "sha256:" + "0a" * 32


def manifest(**changes: Any) -> bytes:
    layer = {"mediaType": MODEL, "digest": DIGEST, "size": 4}
    value = {"schemaVersion": 2, "config": layer | {"mediaType": CONFIG}, "layers": [layer]}
    return json.dumps(value | changes).encode()


def layer(**changes: Any) -> bytes:
    return manifest(layers=[{"mediaType": MODEL, "digest": DIGEST, "size": 4} | changes])


def test_a_manifest_goes_there_and_back() -> None:
    made = Manifest(
        Layer(CONFIG, DIGEST, 2),
        (Layer(MODEL, DIGEST, 3, "a/b&<c>"), Layer("application/vnd.ollama.image.draft", DIGEST, 4)),
    )
    data = encode_manifest(made)
    assert parse_manifest(data) == made
    assert data.startswith(
        b'{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json","config":'
    )
    assert b'"from":"a/b\\u0026\\u003cc\\u003e"' in data, "as Go writes it: equal models have equal digests"
    assert made.size == 9


@pytest.mark.parametrize("config", [None, {"mediaType": "", "digest": "", "size": 0}])
def test_a_manifest_without_config_is_read(config: object) -> None:
    assert len(parse_manifest(manifest(config=config)).all_layers) == 1


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        (b"<html>", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "a list; a manifest is an object"),
        (b'{"schemaVersion":1}', "schemaVersion is 1"),
        (b'{"schemaVersion":true,"layers":[]}', "schemaVersion is True"),
        (manifest(layers=None), "layers is missing"),
        (manifest(layers={}), "layers is an object"),
        (manifest(layers=["x"]), r"layers\[0\] is a string"),
        (manifest(config=3), "config is a number"),
        (layer(digest=None), r"layers\[0\].digest is missing"),
        (layer(digest="sha256:../../etc/passwd"), r"layers\[0\].digest: invalid digest format"),
        (layer(digest="../" + "0" * 64), "invalid digest format"),
        (layer(digest="sha256:" + "0" * 63 + "/"), "invalid digest format"),
        (layer(digest=DIGEST + "\n"), "must be printable"),
        (layer(digest=""), "invalid digest format"),
        (layer(size=-1), "size is -1"),
        (layer(size=1e9), "size is 1000000000.0"),
        (layer(size=True), "size is True"),
        (layer(size=10**30), "size is 1000"),
        (layer(size="4"), "size is '4'"),
        (layer(mediaType=[]), "mediaType is a list"),
        (layer(mediaType="\x1b[31m"), "must be printable"),
        (layer(**{"from": "\ud800"}), "must be printable"),
        (manifest(config={"digest": "x", "size": 1}), "config.digest: invalid digest"),
        (b" " * (5 << 20), "it has 5242880 bytes"),
    ],
)
def test_a_hostile_manifest_is_refused_with_its_fault(data: bytes, fault: str) -> None:
    with pytest.raises(InvalidManifest, match=fault) as caught:
        parse_manifest(data, "/some/where")
    assert str(caught.value).startswith("/some/where: ")
    assert len(str(caught.value)) < 300


def test_a_file_of_any_size_is_not_read_to_its_end(tmp_path: Path) -> None:
    with (tmp_path / "m").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(InvalidManifest, match="a manifest has at most"):
        read_manifest(tmp_path / "m")
