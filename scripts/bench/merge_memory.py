"""Peak host memory of merging a LoRA adapter onto a dequantised NF4 base.

    python scripts/bench/merge_memory.py [--parameters 500] [--output FILE.json]

Builds a random bf16 Llama checkpoint in several shards and a random adapter for it, merges them in
a fresh process without verification, and samples RssAnon and RssFile of that process every
millisecond, counted from just before the merge with all libraries warm. The adapter's own tensors
are part of the peak.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from load_memory import watch, write_checkpoint

RANK = 8


def write_adapter(base: Path, folder: Path) -> int:
    """A random LoRA on all linears of a base; returns the bytes of its tensors."""
    import torch

    from qtune import methods, models
    from qtune.recipe.inputs import ModelSection, QuantizationSection
    from qtune.recipe.methods import LoraConfig

    loaded = models.load(
        ModelSection(name_or_path=str(base)),
        QuantizationSection(),
        device=torch.device("cpu"),
        activations="none",
    )
    method = methods.create(LoraConfig(rank=RANK, dropout=0.0), seed=0)
    method.attach(loaded.model)
    with torch.no_grad():
        for parameter in method.parameters().values():
            parameter.add_(0.01 * torch.randn_like(parameter))
    methods.save(folder, method, base_model=base.name, base_fingerprint=loaded.fingerprint)
    return sum(4 * parameter.numel() for parameter in method.parameters().values())


def child(small: Path, large: Path, target: Path) -> None:
    """Warm everything up on the small base, then merge the large one between two lines."""
    import torch

    from qtune.run.display import Quiet
    from qtune.run.merge import merge

    torch.set_num_threads(1)

    def run(folder: Path, output: Path) -> dict[str, Any]:
        return merge(
            str(folder / "adapter"),
            output,
            base=str(folder / "base"),
            verify=False,
            display=Quiet(),
        )

    run(small, target / "small")
    print("ready", flush=True)
    sys.stdin.readline()
    start = time.perf_counter()
    report = run(large, target / "large")
    print(
        json.dumps({"seconds": time.perf_counter() - start, "bytes": report["bytes"]}), flush=True
    )
    sys.stdin.readline()


def measure(small: Path, large: Path, target: Path) -> dict[str, float]:
    """Peak bytes above the warm process."""
    seen = watch([__file__, "--child", str(small), str(large), str(target)])
    return {
        "written_bytes": seen.result["bytes"],
        "seconds": round(seen.result["seconds"], 2),
        "peak_anonymous_bytes": seen.grown("RssAnon"),
        "peak_file_bytes": seen.grown("RssFile"),
    }


def bench(millions: int) -> dict[str, object]:
    """One merge, its peak in largest tensors and as a share of the model."""
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        for name in ("small", "large"):
            (place / name / "base").mkdir(parents=True)
        write_checkpoint(place / "small" / "base", hidden=64, layers=1, vocabulary=320)
        layers = max(1, round((millions - 82) / 23.8))
        facts = write_checkpoint(
            place / "large" / "base", hidden=1280, layers=layers, vocabulary=32000
        )
        write_adapter(place / "small" / "base", place / "small" / "adapter")
        adapter_bytes = write_adapter(place / "large" / "base", place / "large" / "adapter")
        result = measure(place / "small", place / "large", place / "merged")
    above = result["peak_anonymous_bytes"] - adapter_bytes
    return {
        "checkpoint": facts,
        "adapter_bytes": adapter_bytes,
        "merge": result,
        "peak_above_adapter_in_largest_tensors": round(above / facts["largest_tensor_bytes"], 2),
        "peak_share_of_model": round(result["peak_anonymous_bytes"] / (2 * facts["parameters"]), 4),
    }


def main() -> None:
    """Print the figures, and write them to a file if one is named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parameters", type=int, default=500, help="millions of parameters")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--child", nargs=3, type=Path)
    arguments = parser.parse_args()
    if arguments.child:
        child(*arguments.child)
        return
    text = json.dumps(bench(arguments.parameters), indent=2)
    print(text)
    if arguments.output:
        arguments.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
