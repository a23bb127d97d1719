"""Reading a recipe's text, with one clear line for everything that is no recipe."""

from __future__ import annotations

from pathlib import Path

from qtune.errors import UsageError
from qtune.recipe import shipped
from qtune.registry import nearest

MOST_BYTES = 1_000_000
MINIMAL = "the smallest recipe: model: {name_or_path: ...} and data: {train: [{path: ...}]}"


def read_text(path: Path, *, name: str) -> str:
    """The text of a file; `UsageError` naming `name` if it is missing, too large or no text."""
    data = _read_bytes(path, name)
    if b"\0" in data:
        raise UsageError("a binary file, not a recipe", place=name)
    if len(data) > MOST_BYTES:
        raise UsageError("larger than 1 MB: this is no recipe", place=name)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UsageError(
            f"byte 0x{data[error.start]:02x} is not UTF-8 text",
            place=f"{name}:{line}",
            hint="save the file as UTF-8",
        ) from None


def exists(path: Path) -> bool:
    """Whether there is such a file or folder; False for what no path can be."""
    try:
        return path.exists()
    except (OSError, ValueError):  # too long, or a character no path can have
        return False


def expand(text: str) -> Path:
    """A path with ~ read; as it stands where there is no such home."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def _read_bytes(path: Path, name: str) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MOST_BYTES + 1)
    except IsADirectoryError:
        inside = sorted(p.name for p in path.iterdir() if _is_yaml(p))[:3]
        hint = f"inside it: {', '.join(inside)}" if inside else ""
        raise UsageError("a folder, not a recipe", place=name, hint=hint) from None
    except FileNotFoundError:
        raise UsageError("no such file", place=name, hint=_nearby(path)) from None
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", place=name) from None


def _nearby(path: Path) -> str:
    """What the missing file may have been meant to be."""
    folder = path.parent
    if not folder.is_dir():
        return f"there is no folder {folder}"
    names = [p.name for p in folder.iterdir() if _is_yaml(p)]
    if path.name == str(path):
        names += shipped.recipes()
    hint = nearest(path.name, names) if names else ""
    return hint if hint.startswith("did you mean") or len(names) <= 5 else ""


def _is_yaml(path: Path) -> bool:
    return path.suffix in (".yaml", ".yml")
