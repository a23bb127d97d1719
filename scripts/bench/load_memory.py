"""Peak host memory of loading a model into NF4: qtune's loader against transformers' own.

    python scripts/bench/load_memory.py [--parameters 500] [--output FILE.json]

Builds a random Llama checkpoint in several bf16 shards in a temporary folder and loads it in a
fresh process for each loader. The parent samples RssAnon and RssFile of the child every
millisecond; both are counted from just before the load, with all libraries warm. What is freed
goes back at once (from a megabyte on): what glibc keeps of it differs by 25 MB from run to run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

SHARD_BYTES = 200_000_000
LOADERS = ("qtune", "transformers")
GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": str(2**20)}


def write_checkpoint(folder: Path, *, hidden: int, layers: int, vocabulary: int) -> dict[str, int]:
    """A random bf16 Llama; returns its number of parameters and shards, and its largest tensor."""
    import torch
    from safetensors.torch import save_file
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=hidden,
        intermediate_size=hidden * 7 // 2,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        num_key_value_heads=hidden // 64,
        vocab_size=vocabulary,
        tie_word_embeddings=False,
    )
    with torch.device("meta"):
        shapes = {name: t.shape for name, t in LlamaForCausalLM(config).state_dict().items()}
    config.architectures = ["LlamaForCausalLM"]
    config.save_pretrained(folder)
    shards: list[dict[str, torch.Size]] = [{}]
    for name, shape in shapes.items():
        if sum(s.numel() * 2 for s in shards[-1].values()) + shape.numel() * 2 > SHARD_BYTES:
            shards.append({})
        shards[-1][name] = shape
    generator = torch.Generator().manual_seed(0)
    weight_map = {}
    for number, shard in enumerate(shards, start=1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        tensors = {
            name: torch.randn(shape, generator=generator).mul_(0.02).bfloat16()
            for name, shape in shard.items()
        }
        save_file(tensors, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(shard, file)
    total = sum(shape.numel() for shape in shapes.values())
    index = {"metadata": {"total_size": 2 * total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    largest = max(shape.numel() for shape in shapes.values())
    return {"parameters": total, "largest_tensor_bytes": 2 * largest, "shards": len(shards)}


def load(loader: str, folder: Path) -> Any:
    """The model of a folder in NF4 with double quantisation."""
    import torch

    from qtune.models import load as load_base
    from qtune.recipe.inputs import ModelSection, QuantizationSection

    if loader == "qtune":
        return load_base(
            ModelSection(name_or_path=str(folder)),
            QuantizationSection(),
            device=torch.device("cpu"),
            activations="none",
        ).model
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.bfloat16, quantization_config=config, device_map={"": "cpu"}
    )


def child(loader: str, small: Path, folder: Path) -> None:
    """Warm everything up on a small checkpoint, then load the large one between two lines.

    On one thread: two busy cores make the time of two threads a matter of luck.
    """
    import torch

    from qtune.models import inventory

    torch.set_num_threads(1)
    load(loader, small)
    print("ready", flush=True)
    sys.stdin.readline()
    start = time.perf_counter()
    model = load(loader, folder)
    seconds = time.perf_counter() - start
    print(json.dumps({"held": inventory(model).bytes, "seconds": seconds}), flush=True)
    sys.stdin.readline()


def resident(pid: int) -> dict[str, int]:
    """Resident bytes of a process: RssAnon (with RssShmem), RssFile, and both together."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    values = dict(line.split(":", 1) for line in lines if line.startswith("Rss"))
    size = {key: int(value.split()[0]) * 1024 for key, value in values.items()}
    anonymous = size["RssAnon"] + size["RssShmem"]
    return {"RssAnon": anonymous, "RssFile": size["RssFile"], "both": anonymous + size["RssFile"]}


@dataclass(frozen=True)
class Watched:
    """Resident bytes of a child process around its work, and what it printed about it."""

    start: dict[str, int]
    peak: dict[str, int]
    end: dict[str, int]
    result: dict[str, Any]

    def grown(self, key: str) -> int:
        """Peak bytes above the start: RssAnon, RssFile, or both together."""
        return self.peak[key] - self.start[key]


def watch(arguments: list[str], **environment: str) -> Watched:
    """Run a child that prints "ready", works between two lines of its input, and prints JSON."""
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1", **environment},
    )
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("no pipes to the child")
    while "ready" not in (line := process.stdout.readline()):
        if not line:
            raise RuntimeError("the child died")
    start = resident(process.pid)
    peak = dict(start)
    done = threading.Event()

    def sample() -> None:
        while not done.is_set():
            now = resident(process.pid)
            peak.update({key: max(peak[key], value) for key, value in now.items()})
            time.sleep(0.001)

    sampler = threading.Thread(target=sample)
    sampler.start()
    print(file=process.stdin, flush=True)
    result = json.loads(process.stdout.readline())
    done.set()
    sampler.join()
    end = resident(process.pid)
    process.communicate("\n")
    return Watched(start, peak, end, result)


@contextmanager
def checkpoints(millions: int) -> Iterator[tuple[Path, Path, dict[str, int]]]:
    """A small one to warm up with, one of so many million parameters, and the facts of that."""
    with tempfile.TemporaryDirectory() as temporary:
        small, large = Path(temporary) / "small", Path(temporary) / "large"
        small.mkdir()
        large.mkdir()
        write_checkpoint(small, hidden=64, layers=1, vocabulary=320)
        layers = max(1, round((millions - 82) / 23.8))
        yield small, large, write_checkpoint(large, hidden=1280, layers=layers, vocabulary=32000)


def measure(loader: str, small: Path, folder: Path) -> dict[str, float]:
    """Peak bytes above the warm process, and what the model holds in the end."""
    seen = watch([__file__, "--child", loader, str(small), str(folder)], **GIVE_BACK)
    return {
        "held_bytes": seen.result["held"],
        "seconds": round(seen.result["seconds"], 2),
        "peak_anonymous_bytes": seen.grown("RssAnon"),
        "peak_file_bytes": seen.grown("RssFile"),
        "peak_both_bytes": seen.grown("both"),
        "end_anonymous_bytes": seen.end["RssAnon"] - seen.start["RssAnon"],
        "end_file_bytes": seen.end["RssFile"] - seen.start["RssFile"],
    }


def bench(millions: int) -> dict[str, object]:
    """Both loaders on one checkpoint, each above its own quantised size in largest tensors."""
    import bitsandbytes
    import torch
    import transformers

    with checkpoints(millions) as (small, folder, facts):
        results = {loader: measure(loader, small, folder) for loader in LOADERS}
    for result in results.values():
        for kind in ("anonymous", "both"):
            above = result[f"peak_{kind}_bytes"] - result["held_bytes"]
            result[f"{kind}_above_held_in_largest_tensors"] = round(
                above / facts["largest_tensor_bytes"], 2
            )
    ours, theirs = (results[loader] for loader in LOADERS)
    return {
        "checkpoint": facts,
        "loaders": results,
        "ratio_of_peaks": {
            kind: round(ours[f"peak_{kind}_bytes"] / theirs[f"peak_{kind}_bytes"], 3)
            for kind in ("anonymous", "both")
        },
        "ratio_of_seconds": round(ours["seconds"] / theirs["seconds"], 3),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "bitsandbytes": bitsandbytes.__version__,
        },
    }


def main() -> None:
    """Measure and write the result."""
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parameters", type=int, default=500, help="millions (at least 106)")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments = parser.parse_args()
    result = bench(arguments.parameters)
    text = json.dumps(result, indent=2)
    arguments.output.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
