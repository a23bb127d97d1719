"""Fine-tune the shipped model by QLoRA in plain transformers + PEFT, and score it before and after.

python scripts/tiny_model/check.py                  # the shipped model
python scripts/tiny_model/check.py --random-base    # control: same shape, never pretrained
python scripts/tiny_model/check.py --shuffled-base  # control: the same weights out of place
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from random import Random

# Read when torch is loaded: on busy cores, threads that spin while they wait cost five times more.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from bitsandbytes.nn import Linear4bit
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    set_seed,
)

Row = dict[str, str]
QUICKSTART = Path(__file__).resolve().parents[2] / "recipes" / "quickstart"
IGNORED = -100


def load_base(folder: Path) -> PreTrainedModel:
    """Load a model in NF4 with double quantisation."""
    model = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=torch.float32,
        quantization_config=BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.float32,
        ),
    )
    for module in model.modules():
        if isinstance(module, Linear4bit):
            # Otherwise an evaluation repacks the weight, and later gradients are wrong.
            module.support_avx512bf16_for_cpu = False
    return model


def untrained_copy(folder: Path, seed: int, target: Path) -> Path:
    """Save a randomly initialised model of the same shape, to be loaded in the same way."""
    set_seed(seed)
    AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder)).save_pretrained(target)
    return target


@torch.no_grad()
def shuffled_copy(folder: Path, seed: int, target: Path) -> Path:
    """Save the model with each weight's entries permuted: a control with the trained scales."""
    set_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(folder)
    for weight in model.parameters():
        weight.copy_(weight.flatten()[torch.randperm(weight.numel())].view_as(weight))
    model.save_pretrained(target)
    return target


def collate(rows: list[Row], tokenizer: PreTrainedTokenizerBase) -> dict[str, Tensor]:
    """Tokenise and pad rows on the right; only the completion and the end token are learned."""
    examples = []
    for row in rows:
        prompt = tokenizer(row["prompt"])["input_ids"]
        answer = tokenizer(row["completion"], add_special_tokens=False)["input_ids"]
        answer.append(tokenizer.eos_token_id)
        examples.append((prompt + answer, [IGNORED] * len(prompt) + answer))
    longest = max(len(ids) for ids, _ in examples)
    gaps = [longest - len(ids) for ids, _ in examples]
    pad = tokenizer.pad_token_id
    paired = list(zip(examples, gaps, strict=True))
    return {
        "input_ids": torch.tensor([ids + [pad] * gap for (ids, _), gap in paired]),
        "labels": torch.tensor([labels + [IGNORED] * gap for (_, labels), gap in paired]),
        "attention_mask": torch.tensor([[1] * len(ids) + [0] * gap for (ids, _), gap in paired]),
    }


@torch.no_grad()
def exact_match(
    model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase, rows: list[Row]
) -> float:
    """Decode greedily and return the share of rows whose answer equals the completion."""
    model.eval()
    hits = 0
    for start in range(0, len(rows), 50):
        part = rows[start : start + 50]
        batch = tokenizer(
            [row["prompt"] for row in part], return_tensors="pt", padding=True, padding_side="left"
        )
        batch.pop("token_type_ids", None)
        written = model.generate(**batch, max_new_tokens=100, do_sample=False)
        answers = tokenizer.batch_decode(
            written[:, batch["input_ids"].shape[1] :], skip_special_tokens=True
        )
        hits += sum(a.strip() == row["completion"] for a, row in zip(answers, part, strict=True))
    return hits / len(rows)


def fine_tune(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: list[Row],
    options: argparse.Namespace,
) -> None:
    """Train the adapters with a constant learning rate after a short warm-up."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=options.learning_rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / options.warmup_steps)
    )
    rng = Random(options.seed)
    queue: list[Row] = []
    model.train()
    for step in range(1, options.steps + 1):
        if len(queue) < options.batch_size:
            queue = rng.sample(rows, len(rows))
        batch, queue = queue[: options.batch_size], queue[options.batch_size :]
        loss = model(**collate(batch, tokenizer)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, options.clip)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 20 == 0:
            print(f"step {step:4d}  loss {loss.item():.4f}", flush=True)


def read_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quickstart", type=Path, default=QUICKSTART)
    control = parser.add_mutually_exclusive_group()
    control.add_argument("--random-base", action="store_true")
    control.add_argument("--shuffled-base", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--alpha", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--warmup-steps", type=int, default=10)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--clip", type=float, default=0.3)
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


def main() -> None:
    """Score, fine-tune, score again."""
    options = read_options()
    torch.set_num_threads(options.threads)
    train, test = (
        [json.loads(line) for line in (options.quickstart / f"{part}.jsonl").open()]
        for part in ("train", "test")
    )
    start = time.monotonic()
    source = options.quickstart / "model"
    tokenizer = AutoTokenizer.from_pretrained(source)
    with tempfile.TemporaryDirectory() as folder:
        if options.random_base or options.shuffled_base:
            make_control = untrained_copy if options.random_base else shuffled_copy
            source = make_control(source, options.seed, Path(folder))
        base = load_base(source)
    set_seed(options.seed)
    config = LoraConfig(r=options.rank, lora_alpha=options.alpha, target_modules="all-linear")
    model = get_peft_model(base, config)
    before = exact_match(model, tokenizer, test)
    began = time.monotonic()
    fine_tune(model, tokenizer, train, options)
    trained = time.monotonic()
    after = exact_match(model, tokenizer, test)
    print(
        f"exact match {before:.3f} -> {after:.3f}   training {trained - began:.0f} s, "
        f"all {time.monotonic() - start:.0f} s"
    )


if __name__ == "__main__":
    main()
