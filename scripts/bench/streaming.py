"""A base that streams trains under a memory limit that it does not fit, and what that costs.

    python scripts/bench/streaming.py [--parameters 500] [--steps 3] [--output FILE.json]

Makes a random Llama (bf16, several shards) and lets `qtune quantize` keep a 4-bit copy. Then
`qtune train` runs four times, each in a process of its own: resident and streamed without a limit,
which gives the peak of each one's data segment (VmData: all private memory that can be written to),
and both again under RLIMIT_DATA a quarter of the quantised layers above the streamed peak. All give
large blocks back to the system at once, as streamed runs do anyway: the base is all that differs.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import load_memory
import random_model
import workload

VOCABULARY = 4096
SHAPES = {  # by millions of parameters: (hidden, layers)
    5: (128, 16),
    70: (512, 16),
    500: (1024, 32),
}
BASELINE = "import torch, transformers, bitsandbytes, qtune.run.train; print('ready'); input()"


@dataclass(frozen=True)
class Run:
    """A finished process: its exit code, its peaks, and what its run folder says."""

    code: int
    data_bytes: int
    resident_bytes: int
    seconds: float
    tail: str
    folder: Path

    def told(self) -> dict[str, Any]:
        """The run's report."""
        return dict(json.loads((self.folder / "report.json").read_text()))

    def step_seconds(self) -> float:
        """Median of the steps but the first."""
        lines = (self.folder / "metrics.jsonl").read_text().splitlines()
        steps = [event for event in map(json.loads, lines) if event["kind"] == "train"]
        size = steps[0]["tokens"]
        return statistics.median(size / event["tokens_per_second"] for event in steps[1:])

    def adapter(self) -> bytes:
        """What was learnt."""
        return (self.folder / "adapter" / "adapter_model.safetensors").read_bytes()


def environment(folder: Path) -> dict[str, str]:
    """Everything in one folder, and no network."""
    return {
        **os.environ,
        "XDG_CACHE_HOME": str(folder / "cache"),
        "HF_HUB_OFFLINE": "1",
        "MALLOC_MMAP_THRESHOLD_": str(2**20),
    }


def status(pid: int, key: str) -> int:
    """Bytes of a line of /proc/PID/status; 0 when the process is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(key)), 0)


def qtune(folder: Path, *arguments: str, limit: int | None = None, name: str = "") -> Run:
    """Run a command of qtune, watched, under a limit of its data segment."""

    def confine() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))

    started = time.perf_counter()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "qtune", *arguments],
            cwd=folder,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment(folder),
            preexec_fn=confine,
        )
        data = anonymous = 0
        while process.poll() is None:
            data = max(data, status(process.pid, "VmData"))
            anonymous = max(anonymous, status(process.pid, "RssAnon"))
            time.sleep(0.005)
        output.seek(0)
        tail = output.read().decode(errors="replace")[-1500:]
    seconds = time.perf_counter() - started
    return Run(process.returncode, data, anonymous, seconds, tail, folder / name)


def baseline() -> int:
    """VmData of a process that has imported all and loaded nothing."""
    process = subprocess.Popen(
        [sys.executable, "-c", BASELINE], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    if process.stdout is None or not process.stdout.readline():
        raise SystemExit("the libraries cannot be imported")
    found = status(process.pid, "VmData")
    process.communicate(b"\n")
    return found


def prepare(folder: Path, millions: int, *, rows: int, length: int) -> dict[str, Any]:
    """The model, its tokenizer, rows, a recipe and the copy."""
    hidden, layers = SHAPES[millions]
    model = folder / "model"
    model.mkdir(parents=True)
    facts = load_memory.write_checkpoint(model, hidden=hidden, layers=layers, vocabulary=VOCABULARY)
    workload.write_tokenizer(model, list(workload.made_up(20)), VOCABULARY)
    shape = random_model.Shape(
        hidden=hidden, width=0, layers=layers, heads=1, key_value_heads=1, vocabulary=VOCABULARY
    )
    random_model.write_rows(folder / "rows.jsonl", shape, count=rows, length=length)
    recipe = {
        "model": {"name_or_path": str(model)},
        "data": {"train": [{"path": "rows.jsonl", "format": "tokens"}], "max_length": length},
        "method": {"name": "lora", "rank": 8, "alpha": 16, "dropout": 0.05},
        "optim": {"name": "adamw", "learning_rate": 2e-4},
        "train": {"batch_size": 1},
        "logging": {"steps": 1},
        "memory": {"micro_batch_size": 1, "activations": "layer"},
    }
    (folder / "recipe.yaml").write_text(json.dumps(recipe))
    made = qtune(folder, "quantize", str(model), "--json")
    if made.code:
        raise SystemExit(made.tail)
    return facts | {"hidden": hidden, "layers": layers, "quantize_seconds": round(made.seconds, 1)}


def train(folder: Path, base: str, *, steps: int, limit: int | None = None) -> Run:
    """Train a few steps with the base held in one way."""
    name = f"{base}-{'limited' if limit else 'free'}"
    settings = [f"memory.base={base}", f"train.max_steps={steps}", f"train.output_dir={name}"]
    options = [part for setting in settings for part in ("--set", setting)]
    return qtune(folder, "train", "recipe.yaml", "--quiet", *options, limit=limit, name=name)


def bench(folder: Path, millions: int, *, steps: int, length: int) -> dict[str, Any]:
    """All four runs, and what they show."""
    facts = prepare(folder, millions, rows=steps, length=length)
    free = {base: train(folder, base, steps=steps) for base in ("resident", "stream")}
    if any(run.code for run in free.values()):
        raise SystemExit("\n".join(run.tail for run in free.values()))
    told = free["stream"].told()["streamed"]
    limit = free["stream"].data_bytes + told["layer_bytes"] // 4
    limited = {base: train(folder, base, steps=steps, limit=limit) for base in free}
    passed = limited["stream"].code == 0
    return {
        "host": {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "model": facts,
        "tokens_a_step": length,
        "quantised_layers_bytes": told["layer_bytes"],
        "slot_bytes": told["slot_bytes"],
        "baseline_data_bytes": baseline(),
        "limit_bytes": limit,
        "free": {base: _peaks(run) for base, run in free.items()},
        "limited": {
            base: {"exit_code": run.code, "last_line": run.tail.strip().splitlines()[-1:]}
            for base, run in limited.items()
        },
        "same_adapter": passed
        and free["resident"].adapter() == free["stream"].adapter() == limited["stream"].adapter(),
        "streamed": told,
        "streamed_step_to_resident": round(
            free["stream"].step_seconds() / free["resident"].step_seconds(), 3
        ),
        "share_of_reading_hidden": round(
            1 - min(1.0, told["waited_seconds"] / told["read_seconds"]), 3
        ),
    }


def _peaks(run: Run) -> dict[str, Any]:
    return {
        "exit_code": run.code,
        "peak_data_bytes": run.data_bytes,
        "peak_resident_anonymous_bytes": run.resident_bytes,
        "step_seconds": round(run.step_seconds(), 3),
    }


def main() -> None:
    """Measure, print, and write the JSON beside the script or where told."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parameters", type=int, choices=sorted(SHAPES), default=500)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = bench(
            Path(folder), arguments.parameters, steps=arguments.steps, length=arguments.length
        )
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.output:
        arguments.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
