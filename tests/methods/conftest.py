"""One tiny checkpoint for the whole folder of tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.tiny import save_tiny, tiny_llama

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"), tiny_llama())
