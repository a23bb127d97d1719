"""Speed and peak memory of a merge beside a plain `cp` of the bytes it writes.

    python scripts/bench/merge_speed.py [--shape 1b] [--repeats 3] [--max-memory 600MB]

Makes a random 4-bit Llama checkpoint and a random LoRA on all its linears on the disk, then merges
and copies in turn. Both end when their bytes are on the disk (fsync); the time of `cp` alone, which
ends in the page cache, is told beside. The peak is VmHWM of the merging process, libraries and all.
The merge is counted from its call, with the import of transformers and the model's plan, and from
its first weight: the former does not depend on the model's size. Where it computes is measured by
clocks of its threads, and what it cannot do without by each part alone (merge_parts.py).
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

from merge_parts import alone

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


def clocked(
    seconds: dict[str, list[float]],
    part: str,
    plain: Callable[..., Any],
    clock: Callable[[], float] = time.thread_time,
) -> Callable[..., Any]:
    """A function that adds the time it takes to its part, in any thread."""

    def timed(*values: Any, **named: Any) -> Any:
        start = clock()
        try:
            return plain(*values, **named)
        finally:
            seconds.setdefault(part, []).append(clock() - start)

    return timed


def put_clocks(seconds: dict[str, list[float]]) -> None:
    """A clock around each part of a merge: computing time, but for all of it."""
    from qtune.merging import bases, folding, merge, shard_file
    from qtune.methods import lora_merge

    plain = bases.TrainedBase.rows

    def rows(self: Any, name: str) -> Any:
        found = plain(self, name)
        return type(found)(found.shape, clocked(seconds, "read and unfold", found.read), found.step)

    bases.TrainedBase.rows = clocked(seconds, "constants", rows)  # type: ignore[method-assign]
    for owner, name, part in (
        (lora_merge, "_fold", "product"),
        (folding, "measured", "account"),
        (folding, "check_finite", "account"),
        (shard_file._Press, "_hash", "hash"),
        (shard_file._Press, "_write", "write"),
    ):
        setattr(owner, name, clocked(seconds, part, getattr(owner, name)))
    merge.write = clocked(seconds, "all of it", merge.write, time.perf_counter)
    merge._write_files = clocked(seconds, "computing", merge._write_files, time.process_time)
    merge._write_files = clocked(seconds, "weights", merge._write_files, time.perf_counter)


def child(folder: Path, target: Path, max_memory: str, verify: str) -> None:
    """One merge in this process; prints its figures."""
    import torch

    from qtune import merging
    from qtune.merging import merge as core
    from qtune.run.display import Quiet
    from qtune.run.merge import merge

    torch.set_num_threads(2)
    parts: dict[str, list[float]] = {}
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
                "parts": {part: sum(each) for part, each in parts.items()},
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
    load = os.getloadavg()[0]
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
    size = merges[0]["bytes"]
    ours, theirs = (statistics.median(one["seconds"] for one in each) for each in (merges, copies))
    core = statistics.median(one["parts"]["all of it"] for one in merges)
    least = alone(place, asked.shape, rank=RANK, size=size)
    return {
        "shape": asked.shape,
        "written_bytes": size,
        "checkpoint_bytes": sum(p.stat().st_size for p in (place / "base").glob("*.safetensors")),
        "adapter_rank": RANK,
        "max_memory": asked.max_memory,
        "peak_resident_megabytes": [round(m["peak_resident_bytes"] / 1e6) for m in merges],
        "merge_seconds": rounded(merges, "seconds"),
        "merge_seconds_from_the_first_weight": [round(m["parts"]["all of it"], 2) for m in merges],
        "copy_seconds": rounded(copies, "seconds"),
        "copy_into_page_cache_seconds": rounded(copies, "cached"),
        "share_of_copy_speed": round(theirs / ours, 3),
        "share_of_copy_speed_from_the_first_weight": round(theirs / core, 3),
        "megabytes_per_second": {
            "merge": round(size / ours / 1e6),
            "merge_from_the_first_weight": round(size / core / 1e6),
            "copy": round(size / theirs / 1e6),
        },
        "parts_computing_seconds": [
            {part: round(seconds, 2) for part, seconds in one["parts"].items()} for one in merges
        ],
        "parts_alone": least,
        "share_of_the_limit": round(least["least_seconds_on_two_cores"] / core, 3),
        "share_of_the_limit_in_computing_time": round(
            least["computing_seconds_of_all"]
            / statistics.median(one["parts"]["computing"] for one in merges),
            3,
        ),
        "load_before": round(load, 2),
        "cpu_seconds": rounded(merges, "cpu_seconds"),
        "verified": verified(place, asked.max_memory) if asked.verify else None,
        "threads": 2,
    }


def rounded(runs: list[dict[str, Any]], what: str) -> list[float]:
    """One figure of each run."""
    return [round(one[what], 2) for one in runs]


def verified(place: Path, max_memory: str) -> dict[str, Any]:
    """A merge with its verification."""
    checked = merged(place, place / "checked", max_memory, verify=True)
    return {
        "seconds": round(checked["seconds"], 2),
        "writing_and_verifying_seconds": round(checked["parts"]["all of it"], 2),
        "peak_resident_megabytes": round(checked["peak_resident_bytes"] / 1e6),
        "verification": checked["verification"],
    }


def main() -> None:
    """Print the figures and write them beside this file."""
    parser = argparse.ArgumentParser(description="Merge speed beside cp.")
    parser.add_argument("--shape", default="1b")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--max-memory", default="600MB")
    parser.add_argument("--verify", action=argparse.BooleanOptionalAction, default=True)
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
