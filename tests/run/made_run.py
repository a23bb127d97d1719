"""A finished run without training: a tiny base, data files, a recipe, and a random adapter."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch
import yaml

from qtune import methods, models, recipe
from tests.tiny import save_tiny, tiny_llama

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import LlamaForCausalLM

WORDS = ["red", "blue", "green", "seven", "eight", "nine", "cat", "dog", "fish", "over", "under"]
LORA = {"name": "lora", "rank": 4, "alpha": 8.0, "dropout": 0.0}


def write_rows(path: Path, count: int, *, first: int = 0) -> Path:
    """Prompt-completion rows of uneven lengths."""
    lines = []
    for number in range(first, first + count):
        words = [WORDS[(number * 7 + step) % len(WORDS)] for step in range(1 + number % 5)]
        row = {"prompt": f"{number}: {' '.join(words)} ->", "completion": f" {words[0]}"}
        lines.append(json.dumps(row))
    path.write_text("\n".join(lines) + "\n")
    return path


def make_run(
    folder: Path,
    *,
    model: LlamaForCausalLM | None = None,
    max_shard_size: str = "5GB",
    size: float = 0.05,
    **sections: Any,
) -> Path:
    """`folder`/base, train.jsonl, test.jsonl and the run folder, which is returned."""
    folder.mkdir(parents=True, exist_ok=True)
    save_tiny(folder / "base", model or tiny_llama(), max_shard_size=max_shard_size)
    write_rows(folder / "train.jsonl", 12)
    write_rows(folder / "test.jsonl", 9, first=100)
    settings: dict[str, Any] = {
        "model": {"name_or_path": "../base"},
        "quantization": {"compute_dtype": "float32"},
        "method": LORA,
        "data": {"train": [{"path": "../train.jsonl"}], "eval": [{"path": "../test.jsonl"}]},
        "train": {"max_steps": 1},
    }
    settings |= sections
    run = folder / "run"
    run.mkdir()
    (run / "recipe.yaml").write_text(yaml.safe_dump(settings))
    asked = recipe.load(run / "recipe.yaml").recipe
    base = models.load(
        asked.model,
        asked.quantization,
        device=torch.device("cpu"),
        activations="none",
    )
    method = methods.create(asked.method, seed=1)
    method.attach(base.model)
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in method.parameters().values():
            parameter.add_(size * torch.randn_like(parameter))
    methods.save(run / "adapter", method, base_model="base", base_fingerprint=base.fingerprint)
    return run
