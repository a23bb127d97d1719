"""MANIFEST.json: every file of a checkpoint with its size and sha256, written after all of them."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from qtune import durable
from qtune.errors import ModelError, first_few

if TYPE_CHECKING:
    from pathlib import Path

NAME = "MANIFEST.json"
FORMAT = 2


def write(folder: Path, *, step: int, facts: dict[str, Any]) -> None:
    """Describe the files that lie in a folder; anything but safetensors and JSON is refused."""
    files = {}
    for name in _names(folder):
        path = folder / name
        _require_kind(path)
        files[name] = {"size": path.stat().st_size, "sha256": durable.sha256_of(path)}
    content = {"format": FORMAT, "step": step, "facts": facts, "files": files}
    with durable.new_file(folder / NAME) as write_to:
        write_to(_encoded(content | {"sha256": _digest(content)}))


def verify(folder: Path) -> dict[str, Any]:
    """The manifest of a folder that holds exactly what it says, byte for byte; `ModelError`."""
    try:
        manifest = _read(folder)
        files: dict[str, dict[str, Any]] = manifest["files"]
        _compare_names(folder, files)
        for name, said in files.items():
            size = (folder / name).stat().st_size
            if size != said["size"]:
                raise damaged(folder, f"{name} has {size} bytes where {said['size']} were written")
        for name, said in files.items():
            if durable.sha256_of(folder / name) != said["sha256"]:
                raise damaged(folder, f"{name} is not what was written: its sha256 differs")
    except OSError as error:
        name = str(error.filename or folder).removeprefix(f"{folder}/")
        raise damaged(folder, f"{name} cannot be read: {error.strerror}") from error
    return manifest


def damaged(folder: Path, message: str) -> ModelError:
    """The error that names a checkpoint and what is wrong with it."""
    return ModelError(message, place=str(folder))


def _read(folder: Path) -> dict[str, Any]:
    """The manifest itself, which must be the very bytes that were written."""
    path = folder / NAME
    if not path.is_file() or path.is_symlink():
        raise damaged(folder, f"{NAME} is missing: it was not written to its end")
    content = path.read_bytes()
    try:
        manifest = json.loads(content)
        version = manifest["format"]
        rest = {key: value for key, value in manifest.items() if key != "sha256"}
        sound = _encoded(manifest) == content and manifest["sha256"] == _digest(rest)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise damaged(folder, f"{NAME} is not what was written") from error
    if version != FORMAT:
        raise damaged(folder, f"{NAME} has format {version}, this qtune reads {FORMAT}")
    if not sound:
        raise damaged(folder, f"{NAME} is not what was written: its sha256 differs")
    return dict(manifest)


def _compare_names(folder: Path, files: dict[str, Any]) -> None:
    """Every file of the manifest is there, and nothing else."""
    found = set(_names(folder)) - {NAME}
    if lost := sorted(files.keys() - found):
        raise damaged(folder, f"{first_few(lost)} missing")
    if extra := sorted(found - files.keys()):
        raise damaged(folder, f"{first_few(extra)} was not written by its run")
    expected = {folder / name for name in files}
    parents = {parent for path in expected for parent in path.parents}
    for path in sorted(folder.rglob("*")):
        if path.is_dir() and path not in parents:
            raise damaged(folder, f"{path.relative_to(folder)} was not written by its run")


def _names(folder: Path) -> list[str]:
    """The files below a folder; links, which lead elsewhere, are refused."""
    names = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            raise damaged(folder, f"{name} is a link")
        if not path.is_dir():
            names.append(name)
    return names


def _require_kind(path: Path) -> None:
    """Only safetensors and JSON: data that no reader runs as code."""
    sound = False
    if path.suffix == ".json":
        sound = _is_json(path.read_bytes())
    elif path.suffix == ".safetensors":
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            sound = length < path.stat().st_size and _is_json(stream.read(length))
    if not sound:
        message = f"{path.name} is neither safetensors nor JSON; a checkpoint holds nothing else"
        raise damaged(path.parent, message)


def _is_json(content: bytes) -> bool:
    try:
        json.loads(content)
    except (ValueError, RecursionError):
        return False
    return True


def _encoded(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(_encoded(content)).hexdigest()
