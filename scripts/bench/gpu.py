"""Everything that a GPU must show, in one command of under nine minutes on a large card.

    python scripts/bench/gpu.py [--only PART ...] [--small] [--folder FOLDER] [--output gpu.json]

Parts: ceiling (matrix products), kernels (Triton's against torch and bitsandbytes), equal (fused,
by Triton, recomputed, streamed, packed = plain), guanaco (65B on 48 GB), streamed (65B on 24 GB),
speed (8B by policy, and transformers + PEFT), paged (states that page out). Models are random 4-bit
checkpoints, written to FOLDER once (34 GB for 65B). A part that stands in the output already is not
run again. `--small` runs every part with tiny models.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import gpu_parts
import torch
from rich.console import Console
from rich.table import Table


def main() -> None:
    """Run the parts that are missing, keeping what each found at once."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=gpu_parts.PARTS, default=[*gpu_parts.PARTS])
    parser.add_argument("--small", action="store_true", help="tiny models, also on a CPU")
    parser.add_argument("--folder", type=Path, help="where models and runs go")
    parser.add_argument("--output", type=Path, default=Path("gpu.json"))
    arguments = parser.parse_args()
    if not torch.cuda.is_available() and not arguments.small:
        parser.error("no CUDA device is here; --small runs everything on a CPU")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    results = json.loads(arguments.output.read_text()) if arguments.output.exists() else {}
    with tempfile.TemporaryDirectory() as spare:
        folder = (arguments.folder or Path(spare)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        bench = gpu_parts.Bench(folder, arguments.small, device)
        for name in arguments.only:
            if name not in results:
                results[name] = _part(name, bench)
                _keep(arguments.output, results)
    show(results)


def _part(name: str, bench: gpu_parts.Bench) -> dict[str, Any]:
    """One part with its time; what fails is said, and the others go on."""
    started = time.perf_counter()
    try:
        result = gpu_parts.PARTS[name](bench)
    except Exception as error:  # whatever a foreign driver or library raises
        result = {"failed": f"{type(error).__name__}: {error}"[:500]}
    device = torch.cuda.get_device_name() if bench.device.type == "cuda" else "CPU"
    return {
        "device": device,
        "torch": torch.__version__,
        "small": bench.small,
        "seconds": round(time.perf_counter() - started, 1),
        "result": result,
    }


def _keep(path: Path, results: dict[str, Any]) -> None:
    """Write all results, so that a run that is cut off has those of its whole parts."""
    results.pop("plan", None)
    whole = {**results, "plan": {"result": gpu_parts.plan_error(results)}}
    path.write_text(json.dumps(whole, indent=2) + "\n")


def show(results: dict[str, Any]) -> None:
    """The runs of all parts as a table."""
    table = Table("part", "run", "tokens/s", "peak", "plan", box=None)
    for part, entry in results.items():
        result = entry["result"]
        runs = result.get("runs", result)
        for name, run in runs.items():
            if not isinstance(run, dict):
                table.add_row(part, name, str(run))
            elif "failed" in run:
                table.add_row(part, name, f"[red]{run['failed']}[/red]")
            elif "plan_error" in run:
                peak, error = run["peak_bytes"] / 1e9, run["plan_error"]
                speed = f"{run['tokens_per_second']:,.0f}"
                table.add_row(part, name, speed, f"{peak:.1f} GB", f"{error:+.1%}")
            else:
                table.add_row(part, name, " ".join(f"{k}={v}" for k, v in run.items())[:90])
    Console().print(table)


if __name__ == "__main__":
    main()
