"""A run with Triton's kernels learns as one without, and is refused early where there are none."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from qtune.cli.app import run_app
from qtune.ops.element_wise import taking
from tests.ops.triton.places import DEVICE, needs_kernels
from tests.run.made_run import LORA, write_rows
from tests.tiny import save_tiny

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SETTINGS: dict[str, Any] = {
    "model": {"name_or_path": "base"},
    "quantization": {"compute_dtype": "float32"},
    "method": LORA,
    "data": {"train": [{"path": "train.jsonl"}]},
    "optim": {"name": "adamw", "learning_rate": 1e-2},
    "train": {"batch_size": 2, "max_steps": 2},
}


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    with taking(()):
        yield


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    save_tiny(tmp_path / "base")
    write_rows(tmp_path / "train.jsonl", 4)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(SETTINGS))
    return tmp_path / "recipe.yaml"


def words(recipe: Path, kernels: str) -> list[str]:
    folder = recipe.parent / kernels
    return ["train", str(recipe), "-o", str(folder), "--set", f"memory.kernels={kernels}"]


class TestWhereKernelsRun:
    pytestmark = [*needs_kernels, pytest.mark.slow]

    def test_it_learns_the_same(self, recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
        losses = []
        for kernels in ("fused", "triton"):
            assert run_app(words(recipe, kernels)) == 0
            lines = (recipe.parent / kernels / "metrics.jsonl").read_text().splitlines()
            steps = [json.loads(line) for line in lines]
            losses.append([step["loss"] for step in steps if step["kind"] == "train"])
        fused, triton = losses
        assert len(fused) == 2
        assert triton == pytest.approx(fused, rel=1e-5)
        said = capsys.readouterr()
        assert "element by element: torch (memory.kernels is fused)" in said.out + said.err
        assert "element by element: Triton " in said.out + said.err


@pytest.mark.skipif(DEVICE.type != "cpu", reason="on a GPU there may be Triton")
def test_it_is_refused_where_there_is_none(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("qtune.ops.element_wise.find_spec", lambda _: None)
    monkeypatch.setattr("qtune.models.load", lambda *_, **__: pytest.fail("weights were loaded"))
    assert run_app(words(recipe, "triton")) == 2
    said = capsys.readouterr().err
    assert "memory.kernels" in said
    assert "triton is not installed" in said
