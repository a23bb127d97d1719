"""One run of the installed `qtune` in a process of its own, on as much of the device as told."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import statistics
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from qtune.plan import Machine

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WARM_UP = 2  # steps whose time does not count
TIMEOUT = 420
HOLD = """
import sys, torch
free, _ = torch.cuda.mem_get_info()
rest = max(1, free - {size})
held = torch.full((rest,), 1, dtype=torch.uint8, device="cuda")
print("held", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def card(size: int | None) -> Iterator[None]:
    """Leave the device no more free memory than a card of `size` bytes has: another process holds
    the rest, so that even managed memory pages out as it would there."""
    if size is None or not torch.cuda.is_available():
        yield
        return
    code = HOLD.format(size=size)
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe) as holder:
        try:
            if holder.stdout is None or holder.stdout.readline().strip() != b"held":
                raise SystemExit("the rest of the device cannot be held")
            yield
        finally:
            holder.communicate()


@dataclass(frozen=True)
class Runs:
    """Where runs and their results lie."""

    folder: Path
    python: str = sys.executable

    def train(self, name: str, recipe: dict[str, Any], *options: str) -> dict[str, Any]:
        """Train and return the figures, or `{"failed": ...}` with the error's last line."""
        written = self.folder / f"{name}.yaml"
        written.write_text(json.dumps(recipe))
        output = self.folder / name
        if "--resume" not in options:
            shutil.rmtree(output, ignore_errors=True)
        words = ["train", str(written), "-o", str(output), "-q", "--json", *options]
        done = self._call(words)
        if done.returncode:
            return {"failed": (done.stderr.strip() or done.stdout.strip()).splitlines()[-1][:500]}
        return figures(output)

    def plan(self, recipe: dict[str, Any], *options: str) -> dict[str, Any]:
        """What `qtune plan --json` says."""
        written = self.folder / "planned.yaml"
        written.write_text(json.dumps(recipe))
        done = self._call(["plan", str(written), "--json", *options])
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def _call(self, words: list[str]) -> subprocess.CompletedProcess[str]:
        command = [self.python, "-m", "qtune", *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)


def figures(output: Path) -> dict[str, Any]:
    """What a run folder says of speed, memory and losses."""
    report = json.loads((output / "report.json").read_text())
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if line["kind"] == "train"]
    counted = steps[WARM_UP:] or steps[-1:]
    planned = report["memory"]["predicted_bytes"]
    peak = report["memory"]["measured_peak_bytes"]
    return {
        "tokens_per_second": round(statistics.median(s["tokens_per_second"] for s in counted), 1),
        "losses": [step["loss"] for step in steps],
        "planned_bytes": planned,
        "peak_bytes": peak,
        "plan_error": round(planned / peak - 1, 4),
        "adapter_sha256": digest(output / "adapter" / "adapter_model.safetensors"),
    }


def digest(path: Path) -> str:
    """sha256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def card_bytes(gigabytes: int) -> int:
    """What the plan counts on having on a card of so many GB."""
    return Machine.gpu(gigabytes * 10**9).device_memory
