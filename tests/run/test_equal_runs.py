"""What must not change the weights that a run learns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml

from qtune.run.display import Quiet
from qtune.run.train import train
from tests.run.made_run import write_rows
from tests.tiny import save_tiny

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS: dict[str, Any] = {
    "model": {"name_or_path": "base"},
    "quantization": {"compute_dtype": "float32"},
    "method": {"name": "lora", "rank": 4, "alpha": 8, "dropout": 0.2},
    "data": {"train": [{"path": "train.jsonl"}], "eval": [{"path": "test.jsonl"}]},
    "optim": {"name": "adamw", "learning_rate": 1e-2},
    "train": {"batch_size": 8, "max_steps": 5},
    "memory": {"micro_batch_size": 3},
    "eval": {"at_start": False},
    "checkpoint": {"final": "last"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("equal")
    save_tiny(folder / "base")
    write_rows(folder / "train.jsonl", 20)
    write_rows(folder / "test.jsonl", 4, first=100)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(SETTINGS))
    return folder


def _learnt(folder: Path, name: str, *overrides: str) -> bytes:
    output = f"train.output_dir={folder / name}"
    _, code = train(folder / "recipe.yaml", overrides=[output, *overrides], display=Quiet())
    assert code == 0
    return (folder / name / "adapter" / "adapter_model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def learnt(folder: Path) -> bytes:
    return _learnt(folder, "first")


@pytest.mark.parametrize(
    "overrides",
    [
        ("eval.at_start=true", "eval.steps=1", "eval.generate_rows=2", "eval.max_new_tokens=3"),
        ("data.eval=[]",),
        ("checkpoint.steps=2", "logging.steps=3"),
        ("memory.activations=layer",),
        ("memory.activations=none", "memory.loss_chunk_size=4096"),
    ],
    ids=["evaluated", "not evaluated", "saved", "recomputed", "kept"],
)
def test_the_same_weights_with_dropout(
    folder: Path, learnt: bytes, overrides: tuple[str, ...], request: pytest.FixtureRequest
) -> None:
    assert _learnt(folder, request.node.callspec.id, *overrides) == learnt


def test_another_seed_learns_other_weights(folder: Path, learnt: bytes) -> None:
    assert _learnt(folder, "seed", "train.seed=1") != learnt
