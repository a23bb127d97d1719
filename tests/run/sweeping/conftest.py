"""A recipe to sweep on a machine without GPUs, and runs that are made up."""

from __future__ import annotations

from pathlib import Path

import pytest

from qtune.run.sweeping import sweep as sweeping
from tests.run.sweeping.pretending import Pretence
from tests.run.test_comparison import make_recipe


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sweeping, "gpus", list)
    return make_recipe(tmp_path)


@pytest.fixture
def pretence(tmp_path: Path) -> Pretence:
    return Pretence(tmp_path)
