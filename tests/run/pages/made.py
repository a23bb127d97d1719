"""A run folder as training leaves it, written by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

EVIL = '<script>alert("x")</script>&'
RECIPE = """\
model:
  name_or_path: ../some/model                    # recipe.yaml:1
data:
  train:
    - path: ../rows.jsonl                        # recipe.yaml:2
      max_rows: null                             # default
method:
  name: lora                                     # recipe.yaml:3
  rank: 16                                       # default
optim:
  learning_rate: 0.0002                          # --set optim.learning_rate=2e-4
"""
PLAN: dict[str, Any] = {
    "machine": {
        "device": "cpu",
        "name": "CPU, 2 cores",
        "device_memory": 8 * 10**9,
        "note": "free",
    },
    "memory": [{"part": "NF4 weights", "bytes": 10**6, "where": "device", "reason": "small"}],
    "decisions": [{"key": "memory.activations", "value": "none", "reason": EVIL}],
    "steps": {"total": 60},
    "device_bytes": 2 * 10**6,
    "next_best": "micro_batch_size 8",
}
ENVIRONMENT = {"qtune": "0.1.0", "packages": {"torch": "2.13.0"}, "cores": 2}


def report(**values: Any) -> dict[str, Any]:
    """report.json of a finished run of 60 steps."""
    evaluations = [
        {"step": 0, "loss": 6.5, "perplexity": 665.0, "exact_match": 0.0},
        {"step": 60, "loss": 0.5, "perplexity": 1.65, "exact_match": 0.75},
    ]
    parts = [{"part": "the base", "predicted_bytes": 10**6, "measured_bytes": 1_200_000}]
    memory = {"predicted_bytes": 2 * 10**6, "measured_peak_bytes": 2_500_000, "parts": parts}
    return {
        "recipe": "orders",
        "steps": 60,
        "tokens": 6000,
        "tokens_per_second": 100.0,
        "seconds": 61.5,
        "loss_first": 6.4,
        "loss_last": 0.5,
        "evaluations": evaluations,
        "adapter_step": 60,
        "best": {"metric": "loss", "step": 60, "value": 0.5},
        "memory": memory,
        "gates": [gate("max_loss", 1.0, 0.5), gate("min_exact_match", 0.9, 0.75)],
        "doubts": [EVIL],
    } | values


def gate(name: str, limit: float, actual: float) -> dict[str, Any]:
    passed = actual <= limit if name.startswith("max_") else actual >= limit
    return {"gate": name, "limit": limit, "actual": actual, "unit": "", "passed": passed}


def train_record(step: int, **values: Any) -> dict[str, Any]:
    return {
        "kind": "train",
        "step": step,
        "loss": 6.5 / step + 0.4,
        "grad_norm": 1.0 / step,
        "learning_rate": 2e-4,
        "tokens_per_second": 100.0,
        "epoch": step / 60,
        "tokens": 100,
        "supervised": 50,
    } | values


def records() -> list[dict[str, Any]]:
    """Steps, two evaluations with an interval, readings and a warning."""
    found: list[dict[str, Any]] = [{"kind": "eval"} | report()["evaluations"][0]]
    for step in range(1, 61):
        found.append(train_record(step))
        if step % 10 == 0:
            found.append(
                {
                    "kind": "hardware",
                    "step": step,
                    "seconds": float(step),
                    "cpu_share": 0.5,
                    "host_bytes": 10**9,
                    "gpu_celsius": 60.0,
                    "gpu_watts": 300.0,
                }
            )
    found.append({"kind": "alert", "step": 50, "name": "disk", "message": f"disk {EVIL}"})
    found.append({"kind": "interval", "step": 60, "loss_low": 0.45, "loss_high": 0.55})
    return [*found, {"kind": "eval"} | report()["evaluations"][1]]


def write_run(folder: Path, **files: Any) -> Path:
    """A finished run; a file that is named takes the place of its own, None leaves it out."""
    kept: dict[str, Any] = {
        "recipe.yaml": RECIPE,
        "plan.json": PLAN,
        "env.json": ENVIRONMENT,
        "report.json": report(),
        "metrics.jsonl": "".join(json.dumps(one) + "\n" for one in records()),
        "log.txt": "plan: fits\nadapter of step 60\n",
    }
    kept |= {name.replace("_", "."): content for name, content in files.items()}
    (folder / "adapter").mkdir(parents=True)
    (folder / "adapter" / "adapter_config.json").write_text("{}")
    for name, content in kept.items():
        if content is not None:
            text = content if isinstance(content, str) else json.dumps(content)
            (folder / name).write_text(text)
    return folder


def write_samples(folder: Path) -> None:
    """Two rows answered before and after."""
    lines = []
    for step, said in ((0, EVIL), (60, "four")):
        for place in ("a:1", "a:2"):
            answer = {"place": place, "prompt": f"2 + 2 {EVIL}", "reference": "four", "text": said}
            lines.append(json.dumps({"step": step} | answer))
    (folder / "samples.jsonl").write_text("\n".join(lines) + "\n")
