"""The `gguf` package, an extra of qtune."""

from __future__ import annotations

from typing import Any

from qtune.errors import UsageError


def library() -> Any:
    """The module `gguf`; `UsageError` with what to install where it is missing."""
    try:
        import gguf
    except ImportError as error:
        raise UsageError(
            "GGUF files need the package gguf", place="--to", hint="pip install 'qtune[gguf]'"
        ) from error
    return gguf
