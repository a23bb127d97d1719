"""Recipes written for one test, in a working directory of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from qtune.errors import UsageError
from qtune.recipe import Loaded, load

MINIMAL = "model: {name_or_path: org/model}\ndata: {train: [{path: org/rows}]}\n"

Write = Callable[..., Path]
Read = Callable[..., Loaded]
Faults = Callable[..., list[str]]


@pytest.fixture(autouse=True)
def _working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def write() -> Write:
    """Write a file below the working directory; the path is relative, as a person types it."""

    def write(text: str | bytes, name: str = "recipe.yaml") -> Path:
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return write


@pytest.fixture
def read(write: Write) -> Read:
    """Load the smallest recipe followed by `text`."""

    def read(text: str = "", *overrides: str) -> Loaded:
        return load(write(MINIMAL + text), overrides)

    return read


@pytest.fixture
def faults(write: Write) -> Faults:
    """The faults of the smallest recipe followed by `text`; its line 3 is the text's first."""

    def faults(text: str | bytes = "", *overrides: str, whole: bool = False) -> list[str]:
        content = text if whole or isinstance(text, bytes) else MINIMAL + text
        path = write(content)
        with pytest.raises(UsageError) as caught:
            load(path, overrides)
        return [str(fault) for fault in caught.value.faults]

    return faults
