"""QLoRA on one GPU: planned against measured memory, and tokens/s against transformers + PEFT.

    python scripts/bench/gpu.py [CASE ...] [--steps 5] [--output FILE.json]

Weights are random, made on the device and quantised tensor by tensor by qtune's own loader, so
nothing is downloaded. Each case trains with qtune's step and with a plain loop in transformers +
PEFT on the same base, same rows and same optimizer, turn by turn; times are medians. A case with a
cap forbids the process more memory than a smaller card has left. `tiny` also runs on a CPU.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import LlamaConfig

from qtune import losses, methods, optim, plan, training
from qtune.data import EncodedRow
from qtune.data.batch import Batch, collate
from qtune.models import activations
from qtune.models.loading import compute_buffers
from qtune.models.placing import place
from qtune.models.preparation import freeze
from qtune.models.skeleton import build, exchange, quantizable
from qtune.recipe import Recipe
from qtune.recipe.sections import ModelSection, QuantizationSection
from qtune.run.memory import limit

if TYPE_CHECKING:
    from collections.abc import Callable

QUANTIZATION = QuantizationSection()
RATE = 1e-3
SHAPES = {
    "tiny": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "heads": (4, 2)},
    "8b": {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "heads": (32, 8),
    },
    "65b": {
        "hidden_size": 8192,
        "intermediate_size": 22016,
        "num_hidden_layers": 80,
        "heads": (64, 64),
    },
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is trained, and on how large a card."""

    shape: str
    vocabulary: int
    rank: int
    rows: int
    length: int
    optimizer: str
    checkpointing: bool
    card: str | None = None
    peer: bool = True


CASES = {
    "tiny": Case(
        shape="tiny",
        vocabulary=320,
        rank=4,
        rows=2,
        length=32,
        optimizer="paged_adamw_32bit",
        checkpointing=True,
    ),
    "8b": Case(
        shape="8b",
        vocabulary=128256,
        rank=16,
        rows=4,
        length=1024,
        optimizer="paged_adamw_8bit",
        checkpointing=True,
    ),
    "8b-kept": Case(
        shape="8b",
        vocabulary=128256,
        rank=16,
        rows=2,
        length=1024,
        optimizer="paged_adamw_8bit",
        checkpointing=False,
    ),
    # the QLoRA paper's own claim: r 64 on all linears, fp32 adapters, paged 32-bit AdamW
    "65b-48gb": Case(
        shape="65b",
        vocabulary=32000,
        rank=64,
        rows=1,
        length=512,
        optimizer="paged_adamw_32bit",
        checkpointing=True,
        card="48GB",
        peer=False,
    ),
}


def random_base(case: Case, folder: Path, device: torch.device) -> Any:
    """A frozen NF4 Llama with random weights, through the loader's own placing."""
    torch.manual_seed(0)
    sizes = dict(SHAPES[case.shape])
    heads, key_value_heads = sizes.pop("heads")
    config = LlamaConfig(
        **sizes,
        num_attention_heads=heads,
        num_key_value_heads=key_value_heads,
        vocab_size=case.vocabulary,
        max_position_embeddings=8192,
        tie_word_embeddings=False,
        architectures=["LlamaForCausalLM"],
    )
    config.save_pretrained(folder)
    network = build(folder, ModelSection(name_or_path=str(folder)), dtype=torch.bfloat16)
    shapes = {name: tensor.shape for name, tensor in network.named_parameters()}
    exchange(network, quantizable(network, QUANTIZATION), QUANTIZATION)
    for name, shape in shapes.items():
        value = torch.randn(shape, device=device, dtype=torch.bfloat16) * 0.02
        place(network, name, value, QUANTIZATION, device)
    compute_buffers(network, device)
    freeze(network)
    activations.use(network, "layer" if case.checkpointing else "none")
    return network


def rows_of(case: Case) -> Batch:
    """Random rows of one length, a quarter of each a prompt."""
    generator = torch.Generator().manual_seed(1)
    prompt = case.length // 4
    rows = []
    for number in range(case.rows):
        ids = torch.randint(3, case.vocabulary, (case.length,), generator=generator).tolist()
        labels = [-100] * prompt + ids[prompt:]
        rows.append(EncodedRow(input_ids=ids, labels=labels, place=f"row {number}"))
    return collate(rows, pad_id=0)


def recipe_of(case: Case) -> Recipe:
    """The case as a recipe, for the plan."""
    return Recipe.model_validate(
        {
            "model": {"name_or_path": "random"},
            "data": {"train": [{"path": "random"}], "max_length": case.length},
            "method": {"name": "lora", "rank": case.rank, "dropout": 0.0},
            "optim": {"name": case.optimizer},
            "train": {"batch_size": case.rows},
            "memory": {
                "micro_batch_size": case.rows,
                "activations": "layer" if case.checkpointing else "none",
            },
        }
    )


def our_step(case: Case, network: Any, batch: Batch) -> tuple[Callable[[int], float], Any]:
    """qtune's step, and the method to detach afterwards."""
    asked = recipe_of(case)
    method = methods.create(asked.method, seed=0)
    method.attach(network)
    groups = method.param_groups(learning_rate=RATE, weight_decay=0.0)
    optimizer = optim.make(asked.optim, groups)
    loss = losses.make(asked.loss, chunk_size=asked.memory.loss_chunk_size)

    def step(number: int) -> float:
        result = training.train_step(
            network, loss, method, optimizer, [batch], step=number, max_grad_norm=0.3
        )
        return result.loss

    return step, method


def peer_step(case: Case, network: Any, batch: Batch) -> Callable[[int], float]:
    """The same update by transformers' own loss and PEFT's own LoRA."""
    from peft import LoraConfig, get_peft_model

    names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    settings = LoraConfig(r=case.rank, lora_alpha=16, lora_dropout=0.0, target_modules=names)
    model = get_peft_model(network, settings)
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = optim.make(recipe_of(case).optim, [{"params": trainable, "lr": RATE}])
    moved = batch.to(next(network.parameters()).device)

    def step(_: int) -> float:
        loss = model(
            input_ids=moved.input_ids, attention_mask=moved.attention_mask, labels=moved.labels
        ).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trainable, 0.3)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    return step


def timed(step: Callable[[int], float], steps: int, device: torch.device) -> dict[str, Any]:
    """Seconds of each step after two to warm up, the losses, and the peak of device memory."""
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
    seconds, seen = [], []
    for number in range(steps + 2):
        start = time.perf_counter()
        seen.append(step(number))
        if cuda:
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
    return {
        "seconds": round(statistics.median(seconds[2:]), 4),
        "losses": [round(value, 4) for value in seen],
        "peak_bytes": torch.cuda.max_memory_reserved(device) if cuda else None,
    }


def run(case: Case, *, steps: int, device: torch.device) -> dict[str, Any]:
    """One case: the plan, qtune's figures, the peer's, and their ratio."""
    with tempfile.TemporaryDirectory() as folder:
        machine = plan.Machine.gpu(plan.parse_size(case.card)) if case.card else None
        if machine is not None:
            limit(device, budget=machine.device_memory)
        network = random_base(case, Path(folder), device)
        config = json.loads((Path(folder) / "config.json").read_text())
    planned = plan.make(recipe_of(case), machine or plan.Machine.gpu(10**12), plan.shape_of(config))
    batch = rows_of(case)
    network.train()
    step, method = our_step(case, network, batch)
    ours = timed(step, steps, device)
    method.detach()
    tokens = case.rows * case.length
    figures: dict[str, Any] = {
        "planned_bytes": planned.device_bytes,
        "budget_bytes": machine.device_memory if machine else None,
        "qtune": ours | {"tokens_per_second": round(tokens / ours["seconds"], 1)},
    }
    del step, method
    release(device)
    if case.peer:
        peer = timed(peer_step(case, network, batch), steps, device)
        figures["transformers_peft"] = peer | {
            "tokens_per_second": round(tokens / peer["seconds"], 1)
        }
        figures["speed_ratio"] = round(peer["seconds"] / ours["seconds"], 3)
    return figures


def release(device: torch.device) -> None:
    """Give the memory of one side back before the other begins."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def main() -> None:
    """Run the cases and write their figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", choices=[*CASES, []], help="all but tiny by default")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    names = arguments.cases or [name for name in CASES if name != "tiny"]
    results: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "CPU",
        "torch": torch.__version__,
    }
    for name in names:
        results[name] = run(CASES[name], steps=arguments.steps, device=device)
        print(json.dumps({name: results[name]}, indent=2))
        release(device)
    if arguments.output is not None:
        arguments.output.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
