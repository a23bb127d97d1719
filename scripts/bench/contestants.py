"""One contestant of vs_peers.py, in its own process.

    python scripts/bench/contestants.py NAME JOB.json

Trains the made-up Llama of workload.py on its rows, in their order, and prints one line of JSON:
seconds and loss of each step, peak resident memory, versions.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import workload
from ticks import Ticks, peak_since

if TYPE_CHECKING:
    from collections.abc import Callable

PACKAGES = ("qtune", "torch", "transformers", "peft", "trl", "unsloth", "bitsandbytes")


@dataclass(frozen=True)
class Job:
    """What is trained, from which folder, for how many steps."""

    folder: Path
    size: workload.Size
    steps: int
    overrides: tuple[str, ...] = ()


def qtune(job: Job, ticks: Ticks) -> None:
    """`qtune train`, through the function that the command calls."""
    from qtune.run.display import Quiet
    from qtune.run.train import train

    class Watch(Quiet):
        def line(self, text: str) -> None:
            print(text, file=sys.stderr)

        def step(self, event: Any) -> None:
            if not ticks.seconds:  # what came before the first step was loading
                ticks.last = time.perf_counter() - event.seconds
                ticks.last_cpu = time.process_time()
            ticks.losses.append(event.loss)
            ticks.end()

    with tempfile.TemporaryDirectory() as temporary:
        recipe = Path(temporary) / "recipe.yaml"
        recipe.write_text(workload.recipe(job.folder, job.size, steps=job.steps))
        output = f"train.output_dir={temporary}/run"
        train(recipe, overrides=[*job.overrides, output], display=Watch())


def qtune_plain(job: Job, ticks: Ticks) -> None:
    """`qtune train` with the blocks as transformers computes them."""
    qtune(replace(job, overrides=(*job.overrides, "memory.kernels=plain")), ticks)


def plain(job: Job, ticks: Ticks) -> None:
    """The loop that transformers' and PEFT's examples show: padded, the model's own loss."""
    from peft import get_peft_model

    loop(job, ticks, get_peft_model(base(job), lora()))


def plain_ddp(job: Job, ticks: Ticks) -> None:
    """The same under torchrun: each process has a part of every step, and DDP the gradients."""
    from peft import get_peft_model
    from torch import distributed
    from torch.nn.parallel import DistributedDataParallel

    distributed.init_process_group("gloo")
    model = get_peft_model(base(job), lora())
    start_equal(model, job)
    wrapped = DistributedDataParallel(model, broadcast_buffers=False, init_sync=False)
    loop(job, ticks, wrapped, (distributed.get_rank(), distributed.get_world_size()))
    distributed.destroy_process_group()


def loop(job: Job, ticks: Ticks, model: Any, hand: tuple[int, int] = (0, 1)) -> None:
    """Forward, backward, clip, step: nothing around it that could cost time."""
    import torch
    from bitsandbytes.optim import AdamW8bit

    if hand[1] == 1:
        start_equal(model, job)
    model.train()
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = AdamW8bit(trainable, lr=workload.LEARNING_RATE, weight_decay=0.0)
    rows = workload.read_rows(job.folder)
    ticks.begin()
    for step in range(job.steps):
        chosen = rows[step * job.size.batch : (step + 1) * job.size.batch]
        batch = padded(chosen[hand[0] :: hand[1]])
        loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trainable, workload.MAX_GRAD_NORM)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        ticks.losses.append(float(loss.detach()))
        ticks.end()


def padded(rows: list[dict[str, list[int]]]) -> dict[str, Any]:
    """Rows to tensors [B, T]; the padding is neither seen nor learnt."""
    import torch

    longest = max(len(row["input_ids"]) for row in rows)

    def filled(key: str, filler: int) -> Any:
        return torch.tensor([row[key] + [filler] * (longest - len(row[key])) for row in rows])

    seen = [[1] * len(row["labels"]) + [0] * (longest - len(row["labels"])) for row in rows]
    return {
        "input_ids": filled("input_ids", 2),
        "labels": filled("labels", -100),
        "attention_mask": torch.tensor(seen),
    }


def trl_defaults(job: Job, ticks: Ticks) -> None:
    """SFTTrainer as it comes: padding, gradient checkpointing, fp32 where nothing is quantised."""
    more = {"peft_config": lora(), "quantization_config": nf4()}
    trl(job, ticks, str(job.folder / "model"), {}, more)


def trl_bf16(job: Job, ticks: Ticks) -> None:
    """The same on a model that was loaded in bf16."""
    trl(job, ticks, base(job), {}, {"peft_config": lora()})


def trl_tuned(job: Job, ticks: Ticks) -> None:
    """SFTTrainer at its best: bf16, no padding, nothing recomputed."""
    settings = {"gradient_checkpointing": False, "padding_free": True, "max_length": None}
    trl(job, ticks, base(job), settings, {"peft_config": lora()})


def unsloth(job: Job, ticks: Ticks) -> None:
    """Unsloth's own model and adapters in the plain loop; without a GPU as far as it goes.

    Its Triton kernels, its pinned checkpoints and TRL's loss beside Triton need a GPU; what is
    left are its compiled modules and its own loss.
    """
    os.environ.setdefault("UNSLOTH_ALLOW_CPU", "1")
    import torch
    from unsloth import FastModel

    if not torch.cuda.is_available():
        answer_for_gpu()
    model, _ = FastModel.from_pretrained(
        str(job.folder / "model"),
        max_seq_length=workload.MAX_LENGTH,
        dtype=torch.bfloat16,
        load_in_4bit=True,
        device_map={"": "cpu"},
        use_gradient_checkpointing=True,
    )
    model = FastModel.get_peft_model(
        model,
        r=workload.RANK,
        lora_alpha=workload.ALPHA,
        lora_dropout=0.0,
        finetune_vision_layers=False,
        use_gradient_checkpointing=True,
    )
    if not any("4bit" in type(module).__name__ for module in model.modules()):
        raise SystemExit("Unsloth did not load in 4 bits")
    loop(job, ticks, model)


def answer_for_gpu() -> None:
    """What Unsloth asks of a GPU before it loads: its name, its memory, bf16, bitsandbytes."""
    from types import SimpleNamespace

    import torch
    from unsloth.models import _utils, loader

    facts = SimpleNamespace(
        name="cpu", total_memory=2**34, major=8, minor=0, multi_processor_count=2
    )
    torch.cuda.get_device_properties = lambda *_: facts  # type: ignore[assignment]
    torch.cuda.mem_get_info = lambda *_: (2**34, 2**34)  # type: ignore[assignment]
    _utils.SUPPORTS_BFLOAT16 = loader.ALLOW_BITSANDBYTES = True


def trl(
    job: Job, ticks: Ticks, model: Any, settings: dict[str, Any], adapter: dict[str, Any]
) -> None:
    """TRL's trainer around a model; its data come tokenised, in their order."""
    from datasets import Dataset
    from transformers import AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    class Watch(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            ticks.begin()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            ticks.end()

        def on_log(self, *_: Any, logs: dict[str, float], **__: Any) -> None:
            if "loss" in logs:
                ticks.losses.append(float(logs["loss"]))

    rows = workload.read_rows(job.folder)[: job.steps * job.size.batch]
    with tempfile.TemporaryDirectory() as output:
        config = SFTConfig(
            output_dir=output,
            per_device_train_batch_size=job.size.batch,
            max_steps=job.steps,
            learning_rate=workload.LEARNING_RATE,
            lr_scheduler_type="constant",
            max_grad_norm=workload.MAX_GRAD_NORM,
            optim="adamw_8bit",
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            train_sampling_strategy="sequential",
            disable_tqdm=True,
            **{"max_length": workload.MAX_LENGTH, **settings},
        )
        trainer = SFTTrainer(
            model=model,
            args=config,
            train_dataset=Dataset.from_list(rows),
            processing_class=AutoTokenizer.from_pretrained(job.folder / "model"),
            callbacks=[Watch()],
            **adapter,
        )
        start_equal(trainer.model, job)
        trainer.train()


def base(job: Job) -> Any:
    """transformers' own NF4 load, the rest in bf16."""
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(
        job.folder / "model",
        dtype=torch.bfloat16,
        quantization_config=nf4(),
        device_map={"": "cpu"},
    )


def nf4() -> Any:
    """NF4 with double quantisation and products in bf16, as transformers calls it."""
    import torch
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def lora() -> Any:
    """The adapter of all contestants, as PEFT calls it."""
    from peft import LoraConfig

    return LoraConfig(
        r=workload.RANK,
        lora_alpha=workload.ALPHA,
        lora_dropout=0.0,
        target_modules=list(workload.TARGETS),
        task_type="CAUSAL_LM",
    )


def start_equal(model: Any, job: Job) -> None:
    """Give every A the values that qtune starts from."""
    import torch

    start = workload.read_start(job.folder)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            module, found, _ = name.partition(".lora_A.")
            if found:
                parameter.copy_(start.pop(module))
    if start:
        raise SystemExit(f"no adapter at {next(iter(start))}")


def matmul(job: Job, ticks: Ticks) -> None:
    """No training: the products of a step with frozen 16-bit weights, forward and to the input.

    What any method must compute, 4N floating-point operations a token, at this machine's speed.
    """
    import torch

    torch.manual_seed(0)
    weights = [
        torch.randn(shape, dtype=torch.bfloat16)
        for _ in range(job.size.layers)
        for shape in job.size.linears().values()
    ]
    lengths = [len(row["input_ids"]) for row in workload.read_rows(job.folder)]
    ticks.begin()
    for step in range(job.steps):
        tokens = sum(lengths[step * job.size.batch : (step + 1) * job.size.batch])
        widths = {number for shape in job.size.linears().values() for number in shape}
        values = {width: torch.randn(tokens, width, dtype=torch.bfloat16) for width in widths}
        for weight in weights:
            torch.mm(values[weight.shape[1]], weight.t())
        for weight in reversed(weights):
            torch.mm(values[weight.shape[0]], weight)
        ticks.end()


CONTESTANTS: dict[str, Callable[[Job, Ticks], None]] = {
    "matmul": matmul,
    "qtune": qtune,
    "qtune-plain": qtune_plain,
    "plain": plain,
    "plain-ddp": plain_ddp,
    "trl": trl_defaults,
    "trl-bf16": trl_bf16,
    "trl-tuned": trl_tuned,
    "unsloth": unsloth,
}


def versions() -> dict[str, str]:
    """Versions of the packages that are installed."""
    found = {}
    for name in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def main() -> None:
    """Run the contestant that is named."""
    name, path = sys.argv[1:]
    asked = json.loads(Path(path).read_text())
    size = workload.SIZES[asked["size"]]
    job = Job(Path(asked["folder"]), size, asked["steps"], tuple(asked["overrides"]))
    # what libraries print must not stand among the result
    output, sys.stdout = sys.stdout, sys.stderr
    ticks, begun = Ticks(), time.perf_counter()
    CONTESTANTS[name](job, ticks)
    result = {
        "seconds": [round(value, 4) for value in ticks.seconds],
        "cpu_seconds": [round(value, 4) for value in ticks.cpu_seconds],
        "losses": [round(value, 5) for value in ticks.losses],
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "training_peak_bytes": peak_since(),
        "whole_seconds": round(time.perf_counter() - begun, 2),
        "versions": versions(),
    }
    print(json.dumps(result), file=output)


if __name__ == "__main__":
    main()
