"""A run whose rows share a beginning learns as one whose rows do not, and says what it spared."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from safetensors.torch import load_file

from qtune.cli.app import run_app
from tests.run.made_run import write_rows
from tests.tiny import save_tiny

if TYPE_CHECKING:
    from pathlib import Path

BEGINNING = "Tell the colour. "
SETTINGS: dict[str, Any] = {
    "model": {"name_or_path": "base"},
    "quantization": {"compute_dtype": "float32"},
    "method": {"name": "lora", "rank": 4, "alpha": 8, "dropout": 0.0},
    "data": {"train": [{"path": "train.jsonl"}], "packing": True, "max_length": 128},
    "optim": {"name": "adamw", "learning_rate": 1e-2},
    "train": {"batch_size": 8, "max_steps": 6},
    "memory": {"micro_batch_size": 8},
}


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    save_tiny(tmp_path / "base")
    path = write_rows(tmp_path / "train.jsonl", 20)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows = [{**row, "prompt": BEGINNING + row["prompt"]} for row in rows]
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(SETTINGS))
    return tmp_path / "recipe.yaml"


def _run(recipe: Path, name: str, *settings: str) -> tuple[dict[str, Any], Any]:
    folder = recipe.parent / name
    words = [word for setting in settings for word in ("--set", setting)]
    assert run_app(["train", str(recipe), "-q", "-o", str(folder), *words]) == 0
    tensors = load_file(folder / "adapter" / "adapter_model.safetensors")
    return json.loads((folder / "report.json").read_text()), tensors


@pytest.mark.parametrize("policy", ["none", "layer"])
def test_shared_is_apart(recipe: Path, policy: str) -> None:
    kept = f"memory.activations={policy}"
    apart, wanted = _run(recipe, "apart", kept, "data.share_prefixes=false")
    shared, found = _run(recipe, "shared", kept)
    assert apart["shared_share"] == 0
    # 17 of about 40 bytes a row begin alike, and one row in eight computes them
    assert 0.25 < shared["shared_share"] < 0.45
    assert shared["tokens"] == apart["tokens"]
    assert shared["padding_share"] < 1 / 16, "the grid of lengths alone"
    assert shared["loss_last"] == pytest.approx(apart["loss_last"], rel=1e-4)
    for name, tensor in wanted.items():
        assert (tensor - found[name]).norm() <= 2e-3 * tensor.norm() + 1e-6, name


def test_where_it_cannot_be_it_is_refused(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["train", str(recipe), "-q", "-o", str(recipe.parent / "no")]
    wish = ["--set", "data.share_prefixes=true", "--set", "memory.kernels=plain"]
    assert run_app([*command, *wish]) == 2
    said = capsys.readouterr().err
    assert "first tokens cannot be shared: the attention is not fused" in said
    assert run_app([*command, "--set", "memory.kernels=plain"]) == 0
