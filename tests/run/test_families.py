"""The whole road over every family that the plan knows, against plain transformers.

Rows are longer than the sliding windows, biases and norms are not at their starting values, and
the head is tied where the family ties it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
import yaml
from torch.nn import functional
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from qtune.plan.families import BUILDERS
from qtune.run.display import Quiet
from qtune.run.merge import merge
from qtune.run.subject import load, resolve
from qtune.run.train import train
from tests.run.made_run import write_rows
from tests.tiny import tiny_tokenizer

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

DECODER = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
WINDOW = {"head_dim": 16, "sliding_window": 8}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": DECODER,
    "mistral": DECODER | WINDOW,
    "qwen2": DECODER,
    "qwen3": DECODER | {"head_dim": 32},
    "gemma": DECODER | {"head_dim": 16},
    "gemma2": DECODER | WINDOW,
    "gemma3_text": DECODER | WINDOW,
    "phi3": DECODER,
    "gpt2": {"n_embd": 64, "n_layer": 2, "n_head": 4},
    "gpt_neox": DECODER,
}
TOKENS = {"vocab_size": 320, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
SETTINGS = {
    "model": {"name_or_path": "base", "attn_implementation": "eager"},
    "quantization": {"compute_dtype": "float32"},
    "method": {"name": "lora", "rank": 4, "alpha": 8, "dropout": 0.1},
    "data": {"train": [{"path": "train.jsonl"}], "eval": [{"path": "test.jsonl"}]},
    "optim": {"name": "adamw", "learning_rate": 1e-2, "max_grad_norm": 1.0},
    "train": {"batch_size": 8, "max_steps": 3},
    "memory": {"micro_batch_size": 3, "activations": "layer"},
}


def write_base(folder: Path, family: str) -> None:
    torch.manual_seed(0)
    config = CONFIG_MAPPING[family](**FAMILIES[family], **TOKENS)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder, max_shard_size="100KB")
    tiny_tokenizer().save_pretrained(folder)


def held_out(path: Path) -> list[tuple[list[int], list[int]]]:
    """(prompt, answer with its end) of each row, as token ids."""
    encode = tiny_tokenizer().encode
    rows = map(json.loads, path.read_text().splitlines())
    return [(encode(row["prompt"]), [*encode(row["completion"]), 1]) for row in rows]


@torch.no_grad()
def logits_and_loss(
    model: Any, rows: list[tuple[list[int], list[int]]]
) -> tuple[list[Tensor], float]:
    """Each row alone, unpadded, through the model's own forward."""
    logits, total = [], 0.0
    for prompt, answer in rows:
        logits.append(model.eval()(input_ids=torch.tensor([prompt + answer])).logits[0])
        said = logits[-1][len(prompt) - 1 : -1]
        total += float(functional.cross_entropy(said, torch.tensor(answer), reduction="sum"))
    return logits, total / sum(len(answer) for _, answer in rows)


def test_every_family_is_here() -> None:
    assert FAMILIES.keys() == BUILDERS.keys()


@pytest.mark.parametrize("family", FAMILIES)
def test_trained_evaluated_and_merged(family: str, tmp_path: Path) -> None:
    write_base(tmp_path / "base", family)
    write_rows(tmp_path / "train.jsonl", 24)
    write_rows(tmp_path / "test.jsonl", 5, first=100)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(SETTINGS))
    run = tmp_path / "run"
    overrides = [f"train.output_dir={run}"]
    report, code = train(tmp_path / "recipe.yaml", overrides=overrides, display=Quiet())
    assert code == 0
    merged = merge(str(run), tmp_path / "merged", display=Quiet())

    rows = held_out(tmp_path / "test.jsonl")
    loaded = load(resolve(str(run)), device=torch.device("cpu"))
    attached, loss = logits_and_loss(loaded.base.model, rows)
    plain = AutoModelForCausalLM.from_pretrained(
        tmp_path / "merged", dtype=torch.float32, attn_implementation="eager"
    )
    for ours, theirs in zip(attached, logits_and_loss(plain, rows)[0], strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    losses = {record["step"]: record["loss"] for record in report["evaluations"]}
    assert losses[report["adapter_step"]] == pytest.approx(loss, abs=1e-6)
    assert loss < losses[0] - 0.02
    assert merged["verification"]["kl"] < 1e-10
    decided = json.loads((run / "plan.json").read_text())
    stored = AutoModelForCausalLM.from_pretrained(tmp_path / "base").num_parameters()
    assert decided["total_parameters"] == stored
