"""Peak resident memory of real runs on a CPU against the plan's figure.

Random Llamas (vocabulary 8,192) are written once; each case trains three steps of rows at their
longest in a process of its own and reads plan and peak off its report. Two processes, and one to
set beside them, train a larger model on short rows, so that its weights are what counts: whole in
each, or shared out. Cases that are left out stay as they are in the output.

  scripts/bench/plan_error.py --folder /tmp/plan-error --output scripts/bench/plan_error.json
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
TOKENIZER = REPOSITORY / "recipes" / "quickstart" / "model"


@dataclass(frozen=True)
class Size:
    """A model, and the rows that it learns."""

    hidden: int
    layers: int
    length: int
    rows: int
    """Of a pass."""

    def __str__(self) -> str:
        tokens = f"{self.rows} x {self.length} tokens a pass"
        return f"hidden {self.hidden}, {self.layers} layers, {tokens}"


LONG, WIDE = Size(768, 8, 512, 4), Size(1536, 16, 64, 1)
CASES: dict[str, list[str]] = {
    "none, fused": ["memory.activations=none"],
    "none, plain": ["memory.activations=none", "memory.kernels=plain"],
    "selective, fused": ["memory.activations=selective"],
    "layer, fused": ["memory.activations=layer"],
    "1 process, wide": ["memory.activations=layer"],
    "2 processes, ddp": ["distributed.strategy=ddp", "memory.activations=layer"],
    "2 processes, fsdp": ["distributed.strategy=fsdp", "memory.activations=layer"],
}
RECIPE = """\
model: {{name_or_path: ./model}}
data: {{train: [{{path: ./rows.jsonl}}], max_length: {length}}}
method: {{name: lora, rank: 16, dropout: 0.05}}
optim: {{name: adamw}}
train: {{batch_size: {rows}, max_steps: 3}}
memory: {{micro_batch_size: {rows}}}
"""


def size_of(name: str) -> Size:
    """The model of a case."""
    return WIDE if "process" in name else LONG


def prepare(folder: Path, size: Size) -> None:
    """Model, rows and recipe, unless they are there."""
    if (folder / "recipe.yaml").is_file():
        return
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=size.hidden,
        intermediate_size=size.hidden * 8 // 3,
        num_hidden_layers=size.layers,
        num_attention_heads=12,
        vocab_size=8192,
        max_position_embeddings=512,
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
            ids = torch.randint(3, 700, (size.length,), generator=draw).tolist()
            stream.write(json.dumps({"input_ids": ids, "labels": ids}) + "\n")
    (folder / "recipe.yaml").write_text(RECIPE.format(length=size.length, rows=size.rows))


def run(folder: Path, name: str, settings: list[str]) -> dict[str, Any]:
    """Train one case; predicted and measured bytes with their difference."""
    output = folder / "runs" / name.replace(", ", "-").replace(" ", "-")
    shutil.rmtree(output, ignore_errors=True)
    command = [sys.executable, "-m", "qtune", "train", str(folder / "recipe.yaml")]
    if name.startswith("2 processes"):  # as many rows in each as in one alone
        command += ["--processes", "2", "--set", f"train.batch_size={2 * WIDE.rows}"]
    command += ["-o", str(output), *(part for each in settings for part in ("--set", each))]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    memory = json.loads((output / "report.json").read_text())["memory"]
    return {"case": name, "model": str(size_of(name)), **memory}


def main() -> None:
    """Every case; a table, and the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--only", choices=CASES, action="append")
    asked = parser.parse_args()
    found: dict[str, dict[str, Any]] = {}
    if asked.output and asked.output.is_file():
        found = {each["case"]: each for each in json.loads(asked.output.read_text())["cases"]}
    for name in asked.only or CASES:
        size = size_of(name)
        place = asked.folder / f"{size.hidden}"
        place.mkdir(parents=True, exist_ok=True)
        prepare(place, size)
        found[name] = run(place, name, CASES[name])
        print(
            f"{name:18} planned {found[name]['predicted_bytes'] / 1e6:6.0f} MB   "
            f"peak {found[name]['measured_peak_bytes'] / 1e6:6.0f} MB   "
            f"{found[name]['error']:+.1%}",
            flush=True,
        )
        if asked.output:
            kept = [found[case] for case in CASES if case in found]
            asked.output.write_text(json.dumps({"cases": kept}, indent=2) + "\n")


if __name__ == "__main__":
    main()
