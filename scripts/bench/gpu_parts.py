"""The parts of the GPU benchmark: each a function of a `Bench`, giving plain values for JSON.

Everything runs through the installed `qtune` and its recipes; `--small` shrinks the models, so that
the same code runs on a CPU.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gpu_kernels
import gpu_run
import random_model
import torch

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).parent
POLICIES = ("none", "selective", "layer", "offload")


@dataclass(frozen=True)
class Bench:
    """Sizes, places and the device of one benchmark."""

    folder: Path
    small: bool
    device: torch.device

    @property
    def runs(self) -> gpu_run.Runs:
        """The place of the runs."""
        return gpu_run.Runs(self.folder)

    def model(self, name: str) -> str:
        """The folder of a random model, made when first asked for."""
        name = "tiny" if self.small else name
        random_model.write(self.folder / name, random_model.SHAPES[name], self.device)
        return str(self.folder / name)

    def shape(self, name: str) -> random_model.Shape:
        """The sizes of that model."""
        return random_model.SHAPES["tiny" if self.small else name]

    def card(self, gigabytes: int) -> int | None:
        """Bytes that a card of that size has left; no limit on a CPU."""
        return None if self.small else gpu_run.card_bytes(gigabytes)

    def recipe(self, model: str, *, length: int, steps: int, **sections: Any) -> dict[str, Any]:
        """LoRA on every linear of a random model, on rows of one length."""
        length = min(length, 64) if self.small else length
        rows = self.folder / f"{'tiny' if self.small else model}-{length}.jsonl"
        batch = sections.get("train", {}).get("batch_size", 1)
        if not rows.exists():
            random_model.write_rows(rows, self.shape(model), count=64, length=length)
        base: dict[str, Any] = {
            "model": {"name_or_path": self.model(model)},
            "data": {
                "train": [{"path": str(rows), "format": "tokens"}],
                "max_length": length,
                "shuffle": False,
            },
            "method": {"name": "lora", "rank": 16, "dropout": 0.0},
            "optim": {"name": "paged_adamw_8bit", "learning_rate": 1e-4, "warmup_steps": 0},
            "train": {"batch_size": batch, "max_steps": steps, "seed": 1},
        }
        for name, section in sections.items():
            base[name] = base.get(name, {}) | section
        return base


def ceiling(bench: Bench) -> dict[str, Any]:
    """Measured bf16 matrix product: TFLOPS of the shapes of an 8B layer at 4,096 tokens."""
    shape = bench.shape("8b")
    tokens = 64 if bench.small else 4096
    found = {}
    for name, (out, inner) in shape.linears.items():
        left = torch.randn(tokens, inner, device=bench.device, dtype=torch.bfloat16)
        right = torch.randn(out, inner, device=bench.device, dtype=torch.bfloat16)
        seconds = _time(lambda left=left, right=right: left @ right.t(), bench.device)
        found[name] = round(2 * tokens * out * inner / seconds / 1e12, 6)
    weights = {name: out * inner for name, (out, inner) in shape.linears.items()}
    whole = sum(weights.values()) / sum(weights[name] / found[name] for name in found)
    return {"tokens": tokens, "tflops": found, "layer_tflops": round(whole, 6)}


def kernels(bench: Bench) -> dict[str, Any]:
    """Each Triton kernel of an 8B layer at 4,096 tokens against torch and bitsandbytes."""
    tokens = 8 if bench.small else 4096
    return gpu_kernels.measure(bench.shape("8b"), tokens, bench.device, _time)


def _time(product: Callable[[], Any], device: torch.device) -> float:
    """Median seconds of a call, after some to warm up."""
    seconds = []
    for _ in range(15):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        product()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[5:])


def guanaco(bench: Bench) -> dict[str, Any]:
    """65B on a 48 GB card: the paper's step (r 64, paged 32-bit AdamW, 512 tokens, batch 16), and
    the longest rows that the plan lets through at r 16."""
    runs, room = bench.runs, bench.card(48)
    paper = bench.recipe(
        "65b",
        length=512,
        steps=3,
        method={"rank": 64},
        optim={"name": "paged_adamw_32bit"},
        train={"batch_size": 2 if bench.small else 16},
    )
    with gpu_run.card(room):
        found = {"r64, 512 tokens": runs.train("guanaco", paper)}
        length = longest(bench, room)
        long = bench.recipe("65b", length=length, steps=3)
        found[f"r16, {length} tokens"] = runs.train("longest", long)
    return {"card_bytes": room, "longest_by_plan": length, "runs": found}


def longest(bench: Bench, room: int | None) -> int:
    """The longest rows that fit by the plan, in steps of 256 tokens."""
    options = () if room is None else ("--gpu", f"{room}B")
    low, high = 1, 2 if bench.small else 64
    while high - low > 1:
        middle = (low + high) // 2
        recipe = bench.recipe("65b", length=middle * 256, steps=1)
        fits = bench.runs.plan(recipe, *options)["fits"]
        low, high = (middle, high) if fits else (low, middle)
    return min(low * 256, 64) if bench.small else low * 256


def streamed(bench: Bench) -> dict[str, Any]:
    """65B within a 24 GB card, layer by layer from host memory, beside the resident run."""
    runs, found = bench.runs, {}
    for tokens in (1024, 4096):
        asked = bench.recipe("65b", length=tokens, steps=3, memory={"base": "stream"})
        with gpu_run.card(bench.card(24)):
            found[f"streamed, {tokens}"] = runs.train(f"streamed-{tokens}", asked)
        asked = bench.recipe("65b", length=tokens, steps=3, memory={"base": "resident"})
        found[f"resident, {tokens}"] = runs.train(f"resident-{tokens}", asked)
    for tokens in (1024, 4096):
        pair = [
            found[f"{name}, {tokens}"].get("tokens_per_second") for name in ("streamed", "resident")
        ]
        found[f"speed kept, {tokens}"] = round(pair[0] / pair[1], 3) if all(pair) else None
    return {"card_bytes": bench.card(24), "runs": found}


def speed(bench: Bench) -> dict[str, Any]:
    """8B at 4,096 packed tokens: tokens/s and share of the 4N limit for each policy, with and
    without dequantised layers and fused blocks; beside it transformers + PEFT."""
    limit = ceiling(bench)["layer_tflops"] * 1e12 / (4 * bench.shape("8b").linear_parameters)
    found: dict[str, Any] = {}
    cases = [{"activations": policy, "dequantized_layers": 0} for policy in POLICIES]
    cases.append({"activations": "none", "dequantized_layers": "all"})
    # by torch's operators, where the others are Triton's
    cases += [{**cases[0], "kernels": form} for form in ("fused", "plain")]
    for memory in cases:
        name = ", ".join(f"{key} {value}" for key, value in memory.items())
        asked = bench.recipe("8b", length=4096, steps=6, memory=memory)
        found[name] = bench.runs.train(f"speed-{len(found)}", asked)
    found["transformers + PEFT, checkpointed"] = peer(bench, steps=6)
    for run in found.values():
        if "tokens_per_second" in run:
            run["share_of_4n_limit"] = round(run["tokens_per_second"] / limit, 3)
    return {"limit_tokens_per_second": round(limit, 1), "runs": found}


def peer(bench: Bench, *, steps: int) -> dict[str, Any]:
    """The same steps by plain transformers + PEFT in a process of its own."""
    model = bench.model("8b")
    length = 64 if bench.small else 4096
    command = [sys.executable, str(HERE / "gpu_peer.py"), model, str(length), str(steps)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"failed": done.stderr.strip().splitlines()[-1][:500]}
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def equal(bench: Bench) -> dict[str, Any]:
    """Fused, packed, recomputed, offloaded, streamed and shrunk: the losses of the plain run?"""
    ways: dict[str, dict[str, Any]] = {
        "fused": {"kernels": "fused"},
        **({} if gpu_kernels.why_torch(bench.device) else {"triton": {"kernels": "triton"}}),
        **{policy: {"activations": policy} for policy in POLICIES[1:]},
        "streamed": {"base": "stream", "activations": "layer"},
        "dequantised": {"dequantized_layers": "all"},
        "fused, streamed": {"base": "stream", "activations": "layer", "kernels": "fused"},
    }
    plain = {"activations": "none", "kernels": "plain", "dequantized_layers": 0, "base": "resident"}

    def run(name: str, memory: dict[str, Any], **sections: Any) -> dict[str, Any]:
        memory = plain | {"micro_batch_size": 2} | memory
        asked = bench.recipe(
            "small", length=256, steps=12, memory=memory, train={"batch_size": 4}, **sections
        )
        return bench.runs.train(f"equal-{name.replace(', ', '-')}", asked)

    wanted = run("plain", {})
    again = run("again", {})
    found: dict[str, Any] = {"plain": wanted, "plain again": _difference(wanted, again)}
    for name, memory in ways.items():
        found[name] = _difference(wanted, run(name, memory))
    found["packed"] = _difference(wanted, run("packed", {}, data={"packing": True}))
    return found


def _difference(wanted: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """The largest difference of two loss curves, and whether the adapters are the same bits."""
    if "failed" in found or "failed" in wanted:
        return {"failed": found.get("failed", wanted.get("failed"))}
    pairs = zip(wanted["losses"], found["losses"], strict=True)
    return {
        "largest_loss_difference": max(abs(one - other) for one, other in pairs),
        "same_bits": wanted["adapter_sha256"] == found["adapter_sha256"],
    }


def paged(bench: Bench) -> dict[str, Any]:
    """Paged states on a card that is too small for them: as on a large one, and resumed exactly."""
    asked = bench.recipe(
        "1b",
        length=256,
        steps=6,
        method={"rank": 256},
        optim={"name": "paged_adamw_32bit"},
        train={"batch_size": 2},
        memory={"activations": "layer", "micro_batch_size": 2, "loss_chunk_size": 512},
    )
    large = bench.runs.train("paged-large", asked)
    planned = bench.runs.plan(asked, *(() if bench.small else ("--gpu", "80GB")))
    parts = {item["part"]: item["bytes"] for item in planned["memory"]}
    states = parts["optimizer states"]
    room = None if bench.small else planned["device_bytes"] - states // 2
    with gpu_run.card(room):
        tight = bench.runs.train("paged-tight", asked)
        first = bench.runs.train("paged-resumed", asked, "--max-steps", "3")
        resumed = bench.runs.train("paged-resumed", asked, "--resume")
    return {
        "state_bytes": states,
        "card_bytes": room,
        "large": large,
        "tight": tight,
        "first_half": first.get("failed", "done"),
        "tight_is_large": tight.get("adapter_sha256") == large.get("adapter_sha256"),
        "resumed_is_straight": resumed.get("adapter_sha256") == tight.get("adapter_sha256"),
    }


def plan_error(results: dict[str, Any]) -> dict[str, Any]:
    """Planned against measured peak of every run that has both."""
    found: dict[str, float] = {}

    def walk(name: str, value: Any) -> None:
        if isinstance(value, dict):
            if "plan_error" in value:
                found[name] = value["plan_error"]
            for key, inner in value.items():
                walk(f"{name}: {key}" if name else key, inner)

    walk("", {part: result["result"] for part, result in results.items()})
    worst = max(map(abs, found.values()), default=None)
    return {"largest": worst, "by_run": found}


PARTS: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "ceiling": ceiling,
    "kernels": kernels,
    "equal": equal,
    "guanaco": guanaco,
    "streamed": streamed,
    "speed": speed,
    "paged": paged,
}
