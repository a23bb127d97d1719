"""The whole training road against a straight-line loop in transformers, bitsandbytes and PEFT.

The reference shares nothing with qtune but the row order and the adapter it starts from: its own
loading, tokenising, padding, loss, clipping and schedule.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from peft import PeftModel
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from qtune import methods, models, recipe
from qtune.data.order import Order
from qtune.run.display import Quiet
from qtune.run.train import train
from tests.run.made_run import write_rows
from tests.tiny import save_tiny, tiny_llama

# PEFT 0.21 asks for an attribute that transformers 5.23 renamed
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")

STEPS, BATCH, ROWS, SEED = 20, 4, 30, 7
RATE, CLIP, WARMUP = 5e-3, 0.3, 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("peft")
    save_tiny(folder / "base", tiny_llama())
    write_rows(folder / "train.jsonl", ROWS)
    settings = {
        "model": {"name_or_path": "base"},
        "quantization": {"compute_dtype": "float32"},
        "method": {"name": "lora", "rank": 4, "alpha": 8, "dropout": 0},
        "data": {"train": [{"path": "train.jsonl"}]},
        "optim": {"name": "adamw", "learning_rate": RATE, "warmup_steps": WARMUP},
        "train": {"batch_size": BATCH, "max_steps": STEPS, "seed": SEED},
        "memory": {"micro_batch_size": 2, "activations": "layer"},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(settings))
    return folder


def _start(folder: Path) -> Path:
    """The adapter that the run starts from, written down."""
    asked = recipe.load(folder / "recipe.yaml").recipe
    base = models.load(
        asked.model, asked.quantization, device=torch.device("cpu"), activations="none"
    )
    method = methods.create(asked.method, seed=SEED)
    method.attach(base.model)
    methods.save(folder / "start", method, base_model="base", base_fingerprint=base.fingerprint)
    return folder / "start"


def _peft_model(folder: Path, start: Path) -> Any:
    model = AutoModelForCausalLM.from_pretrained(
        folder / "base",
        dtype=torch.float32,
        quantization_config=BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.float32,
        ),
    )
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return PeftModel.from_pretrained(model, start, is_trainable=True).train()


def _rows(folder: Path) -> list[tuple[list[int], list[int]]]:
    tokenizer = AutoTokenizer.from_pretrained(folder / "base")
    rows = []
    for line in (folder / "train.jsonl").read_text().splitlines():
        row = json.loads(line)
        prompt = tokenizer(row["prompt"], add_special_tokens=False).input_ids
        answer = [*tokenizer(row["completion"], add_special_tokens=False).input_ids, 1]
        rows.append(([*prompt, *answer], [-100] * len(prompt) + answer))
    return rows


def _reference_losses(folder: Path, start: Path) -> list[float]:
    model, rows = _peft_model(folder, start), _rows(folder)
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=RATE, weight_decay=0.0)
    losses = []
    steps_per_epoch = -(-ROWS // BATCH)
    for step in range(STEPS):
        epoch, place = divmod(step, steps_per_epoch)
        order = Order(np.ones(ROWS, int), np.zeros(ROWS, np.int32), seed=SEED).of(epoch)
        chosen = [rows[n] for n in order[place * BATCH : (place + 1) * BATCH]]
        width = max(len(ids) for ids, _ in chosen)
        ids = torch.tensor([ids + [2] * (width - len(ids)) for ids, _ in chosen])
        labels = torch.tensor([marks + [-100] * (width - len(marks)) for _, marks in chosen])
        mask = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids, _ in chosen])
        logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1].flatten(0, 1)
        loss = functional.cross_entropy(logits, labels[:, 1:].flatten(), ignore_index=-100)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trainable, CLIP)
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, (step + 1) / (WARMUP + 1))
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    return losses


def test_the_loss_curve_is_that_of_peft(folder: Path) -> None:
    expected = _reference_losses(folder, _start(folder))
    overrides = [f"train.output_dir={folder / 'run'}"]
    report, code = train(folder / "recipe.yaml", overrides=overrides, display=Quiet())
    lines = (folder / "run" / "metrics.jsonl").read_text().splitlines()
    told = map(json.loads, lines)
    losses = [one["loss"] for one in told if one["kind"] == "train"]
    assert code == 0
    assert report["steps"] == STEPS == len(losses)
    assert losses == pytest.approx(expected, abs=1e-4)
    assert expected[-1] < expected[0] - 0.5  # it learns, so the agreement means something


def test_the_adapter_is_that_of_the_last_step_and_loads_in_peft(folder: Path) -> None:
    model = _peft_model(folder, folder / "run" / "adapter").eval()
    start = _peft_model(folder, folder / "start").eval()
    ids = torch.tensor([_rows(folder)[3][0]])
    with torch.no_grad():
        moved = (model(input_ids=ids).logits - start(input_ids=ids).logits).abs().max()
    assert moved > 0.1
