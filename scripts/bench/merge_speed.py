"""Speed and peak memory of a merge beside a plain `cp` of the bytes it writes.

    python scripts/bench/merge_speed.py [--shape 1b] [--repeats 3] [--max-memory 600MB]

Makes a random 4-bit Llama checkpoint and a random LoRA on all its linears on the disk, then merges
and copies in turn. Both end when their bytes are on the disk (fsync); the time of `cp` alone, which
ends in the page cache, is told beside. The peak is VmHWM of the merging process, libraries and all.
Where the merge's time goes is measured by a clock around each part; the parts run in three threads.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

RESULT = Path(__file__).with_suffix(".json")
RANK = 16


def make(folder: Path, shape_name: str) -> None:
    """The checkpoint and an adapter for it, one layer in memory at a time."""
    import torch
    from random_model import SHAPES, write
    from safetensors.torch import save_file

    shape = SHAPES[shape_name]
    write(folder / "base", shape, torch.device("cpu"))
    (folder / "adapter").mkdir(exist_ok=True)
    generator = torch.Generator().manual_seed(2)
    tensors = {}
    for layer in range(shape.layers):
        for name, (out, inner) in shape.linears.items():
            whole = f"base_model.model.model.layers.{layer}.{name}"
            down = torch.randn(RANK, inner, generator=generator)
            up = torch.randn(out, RANK, generator=generator)
            tensors[f"{whole}.lora_A.weight"] = 0.01 * down
            tensors[f"{whole}.lora_B.weight"] = 0.01 * up
    save_file(tensors, folder / "adapter" / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "base",
        "r": RANK,
        "lora_alpha": 2 * RANK,
        "target_modules": sorted({name.rpartition(".")[2] for name in shape.linears}),
    }
    (folder / "adapter" / "adapter_config.json").write_text(json.dumps(config))


def clocked(seconds: dict[str, float], part: str, plain: Callable[..., Any]) -> Callable[..., Any]:
    """A function that adds the time it takes to its part."""

    def timed(*values: Any, **named: Any) -> Any:
        start = time.perf_counter()
        try:
            return plain(*values, **named)
        finally:
            seconds[part] = seconds.get(part, 0.0) + time.perf_counter() - start

    return timed


def put_clocks(seconds: dict[str, float]) -> None:
    """A clock around each part of a merge."""
    from qtune.merging import bases, folding, merge, shard_file
    from qtune.methods import lora_merge

    plain = bases.TrainedBase.rows

    def rows(self: Any, name: str) -> Any:
        found = plain(self, name)
        return type(found)(found.shape, clocked(seconds, "base", found.read), found.step)

    bases.TrainedBase.rows = clocked(seconds, "base", rows)  # type: ignore[method-assign]
    for owner, name, part in (
        (lora_merge, "_fold", "product"),
        (folding.Folding, "_account", "account"),
        (shard_file._Pipe, "_append", "hash and write"),
        (os, "fsync", "fsync"),
    ):
        setattr(owner, name, clocked(seconds, part, getattr(owner, name)))
    merge.write = clocked(seconds, "all of it", merge.write)


def child(folder: Path, target: Path, max_memory: str, verify: str) -> None:
    """One merge in this process; prints its figures."""
    import torch

    from qtune import merging
    from qtune.merging import merge as core
    from qtune.run.display import Quiet
    from qtune.run.merge import merge

    torch.set_num_threads(2)
    parts: dict[str, float] = {}
    put_clocks(parts)
    merging.write = core.write
    start = time.perf_counter()
    cpu = time.process_time()
    report = merge(
        str(folder / "adapter"),
        target,
        base=str(folder / "base"),
        settings={"max_memory": max_memory},
        verify=verify == "verify",
        display=Quiet(),
    )
    seconds = time.perf_counter() - start
    print(
        json.dumps(
            {
                "seconds": seconds,
                "cpu_seconds": time.process_time() - cpu,
                "bytes": report["bytes"],
                "peak_resident_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                "verification": report["verification"],
                "parts": parts,
            }
        )
    )


def merged(folder: Path, target: Path, max_memory: str, *, verify: bool) -> dict[str, Any]:
    """A merge in a fresh process."""
    how = "verify" if verify else "plain"
    done = subprocess.run(
        [sys.executable, __file__, "--child", str(folder), str(target), max_memory, how],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def copied(source: Path, target: Path) -> dict[str, float]:
    """Seconds of `cp -r`, and until its bytes are on the disk."""
    start = time.perf_counter()
    subprocess.run(["cp", "-r", str(source), str(target)], check=True)
    cached = time.perf_counter() - start
    for path in target.iterdir():
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)
    return {"cached": cached, "seconds": time.perf_counter() - start}


def bench(place: Path, asked: argparse.Namespace) -> dict[str, Any]:
    """Merge and copy in turn."""
    subprocess.run(
        [sys.executable, __file__, "--make", str(place), "--shape", asked.shape], check=True
    )
    merges, copies = [], []
    kept = place / "kept"
    for number in range(asked.repeats):
        merges.append(merged(place, place / f"merged-{number}", asked.max_memory, verify=False))
        if number == 0:
            (place / "merged-0").rename(kept)
        else:
            shutil.rmtree(place / f"merged-{number}")
        copies.append(copied(kept, place / "copy"))
        shutil.rmtree(place / "copy")
    shutil.rmtree(kept)
    checked = merged(place, place / "checked", asked.max_memory, verify=True)
    size = merges[0]["bytes"]
    ours, theirs = (statistics.median(one["seconds"] for one in each) for each in (merges, copies))
    core = statistics.median(one["parts"]["all of it"] for one in merges)
    return {
        "shape": asked.shape,
        "written_bytes": size,
        "checkpoint_bytes": sum(p.stat().st_size for p in (place / "base").glob("*.safetensors")),
        "adapter_rank": RANK,
        "max_memory": asked.max_memory,
        "peak_resident_megabytes": [round(m["peak_resident_bytes"] / 1e6) for m in merges],
        "merge_seconds": [round(one["seconds"], 2) for one in merges],
        "copy_seconds": [round(one["seconds"], 2) for one in copies],
        "copy_into_page_cache_seconds": [round(one["cached"], 2) for one in copies],
        "share_of_copy_speed": round(theirs / ours, 3),
        "share_of_copy_speed_while_writing": round(theirs / core, 3),
        "megabytes_per_second": {
            "merge": round(size / ours / 1e6),
            "copy": round(size / theirs / 1e6),
        },
        "parts_seconds": [
            {part: round(seconds, 2) for part, seconds in one["parts"].items()} for one in merges
        ],
        "cpu_seconds": [round(one["cpu_seconds"], 2) for one in merges],
        "verified": {
            "seconds": round(checked["seconds"], 2),
            "writing_and_verifying_seconds": round(checked["parts"]["all of it"], 2),
            "peak_resident_megabytes": round(checked["peak_resident_bytes"] / 1e6),
            "verification": checked["verification"],
        },
        "threads": 2,
    }


def main() -> None:
    """Print the figures and write them beside this file."""
    parser = argparse.ArgumentParser(description="Merge speed beside cp.")
    parser.add_argument("--shape", default="1b")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--max-memory", default="600MB")
    parser.add_argument("--place", type=Path, help="where the large files go")
    parser.add_argument("--output", type=Path, default=RESULT)
    parser.add_argument("--make", type=Path)
    parser.add_argument("--child", nargs=4)
    asked = parser.parse_args()
    if asked.child:
        folder, target, max_memory, verify = asked.child
        child(Path(folder), Path(target), max_memory, verify)
    elif asked.make:
        make(asked.make, asked.shape)
    else:
        with tempfile.TemporaryDirectory(dir=asked.place) as place:
            text = json.dumps(bench(Path(place), asked), indent=2)
        asked.output.write_text(text + "\n")
        print(text)


if __name__ == "__main__":
    main()
