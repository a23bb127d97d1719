"""A tiny Llama folder for every test that breaks one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.tiny import save_tiny

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A whole tiny Llama in one weight file, to be broken."""
    return save_tiny(tmp_path / "model")


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """A whole tiny Llama in several weight files, to be broken."""
    return save_tiny(tmp_path / "sharded", max_shard_size="100KB")


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole tiny Llama in several weight files, to be read only."""
    return save_tiny(tmp_path_factory.mktemp("whole"), max_shard_size="100KB")
