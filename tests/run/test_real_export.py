"""The round trip on a genuinely pretrained model: trained, exported, read by other rules."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM

from qtune.cli.app import run_app
from tests.gguf.straight import Straight

REAL = Path(__file__).parents[3] / "shared" / "real"
IDS = [1, 403, 407, 261, 378, 286, 432, 419, 401, 334, 266, 291, 268, 317, 301]


@pytest.mark.slow
def test_a_trained_model_and_its_lora(tmp_path: Path) -> None:
    if not (REAL / "model").is_dir():
        pytest.skip("no real model here")
    rows = str(REAL / "data" / "rasbt_instruction_1100.json")
    settings = {
        "model": {"name_or_path": str(REAL / "model"), "chat_template": "zephyr"},
        "data": {"train": [{"path": rows, "max_rows": 64}], "val_size": 8, "max_length": 256},
        "method": {"name": "lora", "rank": 8, "target_modules": "all-linear"},
        "quantization": {"compute_dtype": "float32"},
        "optim": {"learning_rate": 2e-3},
        "train": {"max_steps": 6, "batch_size": 4},
    }
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(settings))
    run = str(tmp_path / "run")
    at = {name: tmp_path / name for name in ("m.gguf", "l.gguf", "b.gguf", "merged")}
    for command in (
        ["train", str(tmp_path / "r.yaml"), "-o", run],
        ["merge", run, "-o", str(at["merged"])],
        ["export", run, "-o", str(at["m.gguf"]), "--to", "gguf"],
        ["export", run, "-o", str(at["l.gguf"]), "--to", "gguf-lora"],
        ["export", str(REAL / "model"), "-o", str(at["b.gguf"]), "--to", "gguf"],
    ):
        assert run_app([*command, "--quiet"]) == 0, command
    model = AutoModelForCausalLM.from_pretrained(at["merged"], dtype=torch.float32)
    with torch.no_grad():
        wanted = model(torch.tensor([IDS])).logits[0].double().numpy()
    merged = Straight(at["m.gguf"]).logits(IDS)
    assert np.abs(merged - wanted).max() < 1e-3
    base = Straight(at["b.gguf"]).logits(IDS)
    moved = Straight(at["b.gguf"], at["l.gguf"]).logits(IDS)
    change = np.abs(moved - base).max()
    assert change > 0.1
    # the adapter moves the original base as it moved the quantised one, not to the same place
    assert np.abs(moved - wanted).max() < np.abs(base - wanted).max()
