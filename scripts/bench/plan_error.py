"""Peak resident memory of real runs on a CPU against the plan's figure.

A random Llama (hidden 768, 8 layers, vocabulary 8,192) is written once; each case trains three
steps of rows at their longest in a process of its own and reads plan and peak off its report.

  scripts/bench/plan_error.py --folder /tmp/plan-error --output scripts/bench/plan_error.json
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
TOKENIZER = REPOSITORY / "recipes" / "quickstart" / "model"
LENGTH = 512
CASES: dict[str, list[str]] = {
    "none, fused": ["memory.activations=none"],
    "none, plain": ["memory.activations=none", "memory.kernels=plain"],
    "selective, fused": ["memory.activations=selective"],
    "layer, fused": ["memory.activations=layer"],
    "2 processes, ddp": ["distributed.strategy=ddp", "memory.activations=layer"],
    "2 processes, fsdp": ["distributed.strategy=fsdp", "memory.activations=layer"],
}
RECIPE = f"""\
model: {{name_or_path: ./model}}
data: {{train: [{{path: ./rows.jsonl}}], max_length: {LENGTH}}}
method: {{name: lora, rank: 16, dropout: 0.05}}
optim: {{name: adamw}}
train: {{batch_size: 4, max_steps: 3}}
memory: {{micro_batch_size: 4}}
"""


def prepare(folder: Path) -> None:
    """Model, rows and recipe, unless they are there."""
    if (folder / "recipe.yaml").is_file():
        return
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=768,
        intermediate_size=2048,
        num_hidden_layers=8,
        num_attention_heads=12,
        vocab_size=8192,
        max_position_embeddings=LENGTH,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder / "model")
    for path in TOKENIZER.glob("tokenizer*.json"):
        shutil.copy(path, folder / "model")
    draw = torch.Generator().manual_seed(1)
    with (folder / "rows.jsonl").open("w") as stream:
        for _ in range(16):
            ids = torch.randint(3, 700, (LENGTH,), generator=draw).tolist()
            stream.write(json.dumps({"input_ids": ids, "labels": ids}) + "\n")
    (folder / "recipe.yaml").write_text(RECIPE)


def run(folder: Path, name: str, settings: list[str]) -> dict[str, Any]:
    """Train one case; predicted and measured bytes with their difference."""
    output = folder / "runs" / name.replace(", ", "-").replace(" ", "-")
    shutil.rmtree(output, ignore_errors=True)
    command = [sys.executable, "-m", "qtune", "train", str(folder / "recipe.yaml")]
    if name.startswith("2 processes"):  # as many rows in each as in the one of the other cases
        command += ["--processes", "2", "--set", "train.batch_size=8"]
    command += ["-o", str(output), *(part for each in settings for part in ("--set", each))]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    memory = json.loads((output / "report.json").read_text())["memory"]
    return {"case": name, **memory}


def main() -> None:
    """Every case; a table, and the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--only", choices=CASES, action="append")
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    prepare(asked.folder)
    found = []
    for name in asked.only or CASES:
        found.append(run(asked.folder, name, CASES[name]))
        print(
            f"{name:18} planned {found[-1]['predicted_bytes'] / 1e6:6.0f} MB   "
            f"peak {found[-1]['measured_peak_bytes'] / 1e6:6.0f} MB   "
            f"{found[-1]['error']:+.1%}",
            flush=True,
        )
        if asked.output:
            facts = {"model": "hidden 768, 8 layers, 4 x 512 tokens a pass", "cases": found}
            asked.output.write_text(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    main()
