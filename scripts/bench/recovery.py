"""What pruning costs a small model that others pretrained, and what LoRA brings back.

    scripts/bench/recovery.py -o FOLDER            prune, train 150 steps, measure: some minutes
    scripts/bench/recovery.py -o FOLDER --steps 4  a trial, nothing kept

Held-out loss on clean TinyStories: of the model, pruned, after LoRA, and after a merge that keeps
the zeros. The unpruned model learns, too: what it gains is the stories' own, not recovery. Model
and stories are in ../shared/real, which is no part of the repository.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from qtune.models.structured import Cut
from qtune.run.display import Quiet
from qtune.run.eval import evaluate
from qtune.run.merge import merge
from qtune.run.prune import Request, prune
from qtune.run.shrink import shrink
from qtune.run.train import train

HERE = Path(__file__).parent
REAL = HERE.parents[2] / "shared" / "real"
RESULTS = HERE / "results"
HELD_OUT, CALIBRATION, STEPS = 40, 32, 150
WAYS: dict[str, Request | Cut | None] = {
    "dense": None,
    "magnitude 50 %": Request("magnitude", share=0.5),
    "wanda 50 %": Request("wanda", share=0.5, rows=CALIBRATION),
    "sparsegpt 50 %": Request("sparsegpt", share=0.5, rows=CALIBRATION),
    "wanda 2:4": Request("wanda", pattern="2:4", rows=CALIBRATION),
    "sparsegpt 2:4": Request("sparsegpt", pattern="2:4", rows=CALIBRATION),
    "a third of the channels out": Cut(channels=0.33),
    "a layer out": Cut(layers=1),
}
RECIPE = """
model: {{name_or_path: {model}}}
quantization: {{bits: 16, compute_dtype: float32}}
method: {{name: lora, rank: 8, alpha: 16, dropout: 0.0}}
data:
  train: [{{path: train.jsonl}}]
  eval: [{{path: test.jsonl}}]
  max_length: 256
  packing: true
optim: {{name: adamw, learning_rate: 2e-3, lr_scheduler_type: cosine}}
train: {{batch_size: 4, max_steps: {steps}}}
"""


def main() -> int:
    """Every way of pruning, one after another; the table and its JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=STEPS)
    arguments = parser.parse_args()
    if not REAL.is_dir():
        print(f"skipped: {REAL} is not there")
        return 0
    folder: Path = arguments.output
    folder.mkdir(parents=True)
    write_stories(folder)
    rows = []
    for number, (name, way) in enumerate(WAYS.items()):
        started = time.perf_counter()
        row = recovered(folder, f"{number}", way, steps=arguments.steps)
        row = {"name": name, **row, "seconds": round(time.perf_counter() - started, 1)}
        print(json.dumps(row), flush=True)
        rows.append(row)
    report = {"steps": arguments.steps, "rank": 8, "held_out_stories": HELD_OUT, "rows": rows}
    print(table(report))
    if arguments.steps == STEPS:
        (RESULTS / "recovery.json").write_text(json.dumps(report, indent=2) + "\n")
        (RESULTS / "recovery.md").write_text(table(report))
    return 0


def write_stories(folder: Path) -> None:
    """train.jsonl and test.jsonl: the stories that are plain ASCII, as text."""
    stories = json.loads((REAL / "data" / "tinystories_1000.json").read_text())
    clean = [json.dumps({"text": story}) for story in stories if story.isascii()]
    parts = {"test": clean[:HELD_OUT], "train": clean[HELD_OUT:]}
    for name, lines in parts.items():
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")


def recovered(folder: Path, name: str, way: Request | Cut | None, *, steps: int) -> dict[str, Any]:
    """Prune, train on it and merge; the held-out loss of each."""
    model, weights = pruned(folder, name, way)
    recipe = folder / f"{name}.yaml"
    recipe.write_text(RECIPE.format(model=json.dumps(str(model)), steps=steps))
    run = folder / f"run-{name}"
    report, _ = train(recipe, overrides=[f"train.output_dir={run}"], display=Quiet())
    first, last = report["evaluations"][0], report["evaluations"][-1]
    kept = None
    if isinstance(way, Request):
        merged = folder / f"merged-{name}"
        settings: dict[str, str | bool] = {"keep_mask": True}
        merge(str(run), merged, settings=settings, verify=False, display=Quiet())
        kept = loss_of(evaluate(str(merged), str(recipe), display=Quiet()))
    return {
        "weights": weights,
        "loss_before": first["loss"],
        "loss_after": last["loss"],
        "loss_zeros_kept": kept,
    }


def pruned(folder: Path, name: str, way: Request | Cut | None) -> tuple[Path, float]:
    """The pruned model, and which share of the layers' weights is there and not zero."""
    model, target = REAL / "model", folder / f"model-{name}"
    rows = str(folder / "train.jsonl")
    if way is None:
        return model, 1.0
    if isinstance(way, Cut):
        told = shrink(str(model), target, way, rows, rows=CALIBRATION, display=Quiet())
        return target, told["parameters"] / told["parameters_before"]
    asked = Request(way.method, way.share, way.pattern, rows, way.rows)
    told = prune(str(model), target, asked, display=Quiet())
    return target, 1 - told["zeros"] / told["weights"]


def loss_of(report: dict[str, Any]) -> float:
    """The held-out loss of a measured model."""
    return float(report["model"]["loss"])


def table(report: dict[str, Any]) -> str:
    """The rows in Markdown."""
    lines = [
        "| pruned by | weights left | loss | after LoRA | merged, zeros kept |",
        "|---|---|---|---|---|",
    ]
    for row in report["rows"]:
        kept = row["loss_zeros_kept"]
        last = "" if kept is None else f"{kept:.3f}"
        lines.append(
            f"| {row['name']} | {100 * row['weights']:.0f} % | {row['loss_before']:.3f} | "
            f"{row['loss_after']:.3f} | {last} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
