"""Several methods at once through the command line: train, resume, merge."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from qtune.cli.app import run_app
from tests.run.made_run import write_rows
from tests.tiny import save_tiny, tiny_llama

LORA = {"name": "lora", "rank": 4, "alpha": 8, "dropout": 0.1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("combined")
    save_tiny(folder / "base", tiny_llama())
    write_rows(folder / "train.jsonl", 24)
    settings = {
        "model": {"name_or_path": "base"},
        "quantization": {"compute_dtype": "float32"},
        "method": [LORA, "bitfit"],
        "data": {"train": [{"path": "train.jsonl"}], "val_size": 0.2},
        "optim": {"name": "adamw", "learning_rate": 1e-2},
        "train": {"batch_size": 4, "max_steps": 4},
        "checkpoint": {"steps": 2},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(settings))
    return folder


def done(*arguments: Any) -> None:
    assert run_app([str(argument) for argument in arguments]) == 0


def tensors(run: Path) -> dict[str, torch.Tensor]:
    return {
        f"{part}/{name}": tensor
        for part in ("part-0", "part-1")
        for name, tensor in load_file(run / "adapter" / part / "adapter_model.safetensors").items()
    }


def test_the_whole_road(folder: Path) -> None:
    recipe, run, again = folder / "recipe.yaml", folder / "run", folder / "again"
    done("train", recipe, "-o", run)
    done("train", recipe, "-o", again, "--set", "train.max_steps=2")
    done("train", recipe, "-o", again, "--resume", "--allow-change", "train.max_steps")
    whole, resumed = tensors(run), tensors(again)
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    done("merge", run, "-o", folder / "merged", "--dtype", "float32")
    config = json.loads((folder / "merged" / "config.json").read_text())
    assert config["attention_bias"]
    assert "method.parts.1.name" in (folder / "merged" / "README.md").read_text()
