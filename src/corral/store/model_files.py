"""Which files a path in a Modelfile means."""

from __future__ import annotations

from pathlib import Path

from corral.errors import InvalidRequest

# In a folder, the first of these that is there is the model; the others go with safetensors.
_WEIGHTS = ("model*.safetensors", "consolidated*.safetensors", "*.gguf", "*.bin")
_SIDE_FILES = ("*.json", "chat_template.jinja", "tokenizer.model", "merges.txt", "vocab.txt")


def files_of(text: str, folder: Path, *, must_exist: bool) -> dict[str, str]:
    """Name -> absolute path of the files that `text`, a path from `folder` on, stands for; {} if there is none.

    Raises:
        InvalidRequest: there is none and it must exist, or a folder without a model, or one that leads out of itself.
    """
    try:
        path = Path(folder, Path(text).expanduser()).absolute()
        is_there = path.exists()
    except (OSError, ValueError, RuntimeError):  # too long, a NUL in it, or no such user
        is_there = False
    if not is_there:
        if must_exist:
            raise InvalidRequest(f"{text[:200]}: no such file or folder", param="files")
        return {}
    if path.is_dir():
        return _files_in(path)
    if not path.is_file():
        raise InvalidRequest(f"{path} is neither a file nor a folder", param="files")
    return {path.name: str(path)}


def _files_in(folder: Path) -> dict[str, str]:
    found = next((files for pattern in _WEIGHTS if (files := sorted(folder.glob(pattern)))), [])
    if not found:
        raise InvalidRequest(f"{folder}: no Modelfile or safetensors files found, and no GGUF file", param="files")
    if found[0].suffix == ".safetensors":
        found += [path for pattern in _SIDE_FILES for path in sorted(folder.glob(pattern))]
    for path in found:
        if not path.resolve().is_relative_to(folder.resolve()):
            raise InvalidRequest(f"insecure path: {path} leads out of its folder", param="files")
    return {path.name: str(path) for path in found if path.is_file()}
