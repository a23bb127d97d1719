"""Loading one model into two processes: each by itself, one for both, and in shards.

    python scripts/bench/ranks_loading.py [--parameters 300] [--output FILE.json]

Builds a random bf16 Llama checkpoint and loads it into NF4 in two processes over gloo. Peaks are
RssAnon above the warm process, sampled every millisecond; read bytes are what a process asked the
system for (rchar), so the page cache makes no difference.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from load_memory import GIVE_BACK, checkpoints, watch

WAYS = {"each by itself": "none", "one for both": "ddp", "in shards": "fsdp"}
SIZE = 2


def child(way: str, rank: int, port: int, folders: list[Path]) -> None:
    """Load a small checkpoint, then the large one between two lines."""
    seats = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": SIZE, "LOCAL_WORLD_SIZE": SIZE}
    os.environ.update({key: str(value) for key, value in seats.items()})
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    import torch

    from qtune import models
    from qtune.ranks import ALONE, joined, seat
    from qtune.recipe.inputs import ModelSection, QuantizationSection

    torch.set_num_threads(1)
    with joined(seat()) as ranks:
        spread = models.Spread(ALONE if way == "none" else ranks, way)  # type: ignore[arg-type]

        def load(folder: Path) -> models.Base:
            return models.load(
                ModelSection(name_or_path=str(folder)),
                QuantizationSection(),
                device=torch.device("cpu"),
                activations="none",
                spread=spread,
            )

        load(folders[0])
        print("ready", flush=True)
        sys.stdin.readline()
        ranks.wait()
        before, start = _read(), time.perf_counter()
        base = load(folders[1])
        seconds, read = time.perf_counter() - start, _read() - before
        told = {"held": base.inventory.bytes, "seconds": round(seconds, 2), "read": read}
        print(json.dumps(told), flush=True)
        sys.stdin.readline()
        ranks.wait()


def _read() -> int:
    """Bytes that this process has asked files for."""
    first = Path("/proc/self/io").read_text().splitlines()[0]
    return int(first.split()[1])


def measure(way: str, small: Path, large: Path) -> list[dict[str, Any]]:
    """What each of the processes took."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]

    def one(rank: int) -> dict[str, Any]:
        words = ["--child", way, str(rank), str(port), str(small), str(large)]
        seen = watch([__file__, *words], **GIVE_BACK)
        return {
            "held_bytes": seen.result["held"],
            "read_bytes": seen.result["read"],
            "seconds": seen.result["seconds"],
            "peak_bytes": seen.grown("RssAnon"),
            "end_bytes": seen.end["RssAnon"] - seen.start["RssAnon"],
        }

    with ThreadPoolExecutor(SIZE) as threads:
        return list(threads.map(one, range(SIZE)))


def bench(millions: int) -> dict[str, Any]:
    """All ways on one checkpoint, as ratios to each by itself."""
    with checkpoints(millions) as (small, large, facts):
        found = {name: measure(way, small, large) for name, way in WAYS.items()}

    def total(name: str, key: str) -> int:
        return sum(one[key] for one in found[name])

    first = next(iter(WAYS))
    ratios = {
        name: {
            key: round(total(name, key) / total(first, key), 3)
            for key in ("read_bytes", "peak_bytes", "held_bytes")
        }
        for name in found
    }
    return {"checkpoint": facts, "ways": found, "ratios_to_each_by_itself": ratios}


def main() -> None:
    """Measure and write the result."""
    if sys.argv[1:2] == ["--child"]:
        way, rank, port, *folders = sys.argv[2:]
        child(way, int(rank), int(port), [Path(folder) for folder in folders])
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parameters", type=int, default=300, help="millions (at least 106)")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments = parser.parse_args()
    text = json.dumps(bench(arguments.parameters), indent=2)
    arguments.output.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
