"""Files of model and adapter folders, read with care: they come from anywhere."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from qtune.errors import ModelError

if TYPE_CHECKING:
    from pathlib import Path

LFS_MARK = b"version https://git-lfs"


def refuse_pointer(path: Path) -> None:
    """`ModelError` for a git-lfs pointer, a pipe or a device where the file should be."""
    if path.exists() and not path.is_file():
        raise ModelError("not a plain file", place=str(path))
    with path.open("rb") as file:
        if file.read(len(LFS_MARK)) == LFS_MARK:
            hint = "run git lfs pull in its folder"
            raise ModelError("a git-lfs pointer, not the file itself", place=str(path), hint=hint)


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object; `ModelError` names the file, the line and the fault."""
    try:
        refuse_pointer(path)
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"cannot be read: {error.strerror}", place=str(path)) from error
    except ValueError as error:  # also bytes that are no UTF-8
        line = getattr(error, "lineno", None)
        place = f"{path}:{line}" if line else str(path)
        raise ModelError(f"not valid JSON: {error}", place=place) from error
    except RecursionError as error:
        raise ModelError("not valid JSON: nested too deeply", place=str(path)) from error
    if not isinstance(content, dict):
        raise ModelError("not a JSON object", place=str(path))
    return content
