"""What the speed benchmarks train: a random Llama, a tokenizer and rows of alpaca's lengths.

All of it is made in code and written to one folder, so every contestant reads the same files:
`model/` (bf16 weights, config, tokenizer), `rows.jsonl` (input_ids and labels) and
`start.safetensors` (the LoRA weights that all start from).
"""

from __future__ import annotations

import json
import math
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RANK = 16
MAX_LENGTH = 512
SEED = 1
LEARNING_RATE = 2e-4
MAX_GRAD_NORM = 1.0
ALPHA = 16
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
SPECIAL_TOKENS = ("<s>", "</s>", "<pad>")
PREAMBLE = (
    "Below is an instruction that describes a task. Write a response that appropriately completes "
    "the request.\n\n### Instruction:\n"
)
PREAMBLE_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further "
    "context. Write a response that appropriately completes the request.\n\n### Instruction:\n"
)


@dataclass(frozen=True)
class Size:
    """A Llama: MLP of 8/3 hidden rounded up to 256, heads of 64 (of 16 when tiny)."""

    hidden: int
    layers: int
    vocabulary: int
    batch: int
    heads: int

    @property
    def mlp(self) -> int:
        """Width of the MLP, as Llama 1 and 2 choose it."""
        step = 256 if self.hidden >= 1024 else 64
        return math.ceil(self.hidden * 8 / 3 / step) * step

    def linears(self) -> dict[str, tuple[int, int]]:
        """(outputs, inputs) of the linear layers of one block."""
        square = (self.hidden, self.hidden)
        names = dict.fromkeys(("q_proj", "k_proj", "v_proj", "o_proj"), square)
        wide = dict.fromkeys(("gate_proj", "up_proj"), (self.mlp, self.hidden))
        return {**names, **wide, "down_proj": (self.hidden, self.mlp)}

    @property
    def parameters(self) -> int:
        """Quantised parameters: the N of the 4N limit."""
        return self.layers * sum(n * m for n, m in self.linears().values())


SIZES = {
    "tiny": Size(hidden=64, layers=2, vocabulary=512, batch=2, heads=4),
    "S": Size(hidden=1024, layers=12, vocabulary=32_000, batch=8, heads=16),
    "M": Size(hidden=2048, layers=8, vocabulary=32_000, batch=8, heads=32),
}


def write(folder: Path, size: Size, *, rows: int, data: Path | None = None) -> None:
    """Model, tokenizer, rows and the adapter to start from, unless the folder holds them already.

    `data`: an alpaca file (json list or jsonl with instruction, input, output) in place of made-up
    texts.
    """
    if (folder / "done").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    texts = list(alpaca_file(data)) if data is not None else list(made_up(1200))
    tokenizer = write_tokenizer(folder / "model", texts, size.vocabulary)
    write_model(folder / "model", size)
    write_rows(folder / "rows.jsonl", texts, tokenizer, count=rows)
    write_start(folder, size)
    (folder / "done").touch()


def alpaca_file(path: Path) -> Iterator[tuple[str, str]]:
    """(prompt, answer) of each row of an alpaca file."""
    text = path.read_text()
    lines = text.splitlines()
    rows = json.loads(text) if text.lstrip().startswith("[") else map(json.loads, lines)
    for row in rows:
        given = row.get("input") or ""
        yield prompt_of(row["instruction"], given), row["output"]


def prompt_of(instruction: str, given: str) -> str:
    """Alpaca's two templates."""
    if given:
        return f"{PREAMBLE_INPUT}{instruction}\n\n### Input:\n{given}\n\n### Response:\n"
    return f"{PREAMBLE}{instruction}\n\n### Response:\n"


def made_up(count: int) -> Iterator[tuple[str, str]]:
    """Rows of made-up words with alpaca's lengths.

    Words of an instruction: log-normal around 11; of an input, which 40% have: around 14; of an
    answer: around 40, with a long tail. Words follow Zipf's law.
    """
    draw = random.Random(SEED)
    words = ["".join(draw.choices(_SYLLABLES, k=draw.randint(1, 4))) for _ in range(6000)]
    weights = [1 / rank for rank in range(1, len(words) + 1)]

    def text(middle: float, spread: float) -> str:
        length = max(1, round(draw.lognormvariate(math.log(middle), spread)))
        return " ".join(draw.choices(words, weights, k=length))

    for _ in range(count):
        given = text(14, 0.8) if draw.random() < 0.4 else ""
        yield prompt_of(text(11, 0.4), given), text(40, 0.95)


_SYLLABLES = [first + second for first in "bdfgklmnprstvz" for second in "aeiou"]


def write_tokenizer(folder: Path, texts: list[tuple[str, str]], vocabulary: int) -> Any:
    """A byte-level BPE learnt from the texts, filled up to the whole vocabulary."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((part for pair in texts for part in pair), trainer)
    spare = range(tokenizer.get_vocab_size(), vocabulary)
    tokenizer.add_tokens([f"<spare-{number}>" for number in spare])
    begin, end, pad = SPECIAL_TOKENS
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=begin, eos_token=end, pad_token=pad
    )
    fast.save_pretrained(folder)
    return fast


def write_model(folder: Path, size: Size) -> None:
    """A random Llama in bf16: normal weights of deviation 0.02, as Llamas begin."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=size.hidden,
        intermediate_size=size.mlp,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.heads,
        vocab_size=size.vocabulary,
        max_position_embeddings=2048,
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
    )
    torch.manual_seed(SEED)
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)


def write_rows(path: Path, texts: list[tuple[str, str]], tokenizer: Any, *, count: int) -> None:
    """The first rows that fit MAX_LENGTH, as ids and labels: prompts are not learnt."""
    lines = []
    for prompt, answer in texts:
        asked = [tokenizer.bos_token_id, *tokenizer.encode(prompt, add_special_tokens=False)]
        learnt = [*tokenizer.encode(answer, add_special_tokens=False), tokenizer.eos_token_id]
        if len(asked) + len(learnt) > MAX_LENGTH:
            continue
        row = {"input_ids": asked + learnt, "labels": [-100] * len(asked) + learnt}
        lines.append(json.dumps(row))
        if len(lines) == count:
            break
    if len(lines) < count:
        raise SystemExit(f"{len(lines)} rows of at most {MAX_LENGTH} tokens, {count} are needed")
    path.write_text("\n".join(lines) + "\n")


def write_start(folder: Path, size: Size) -> None:
    """The A matrices that qtune's seed draws, by module; every B starts at zero."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM

    from qtune import methods
    from qtune.recipe.methods import LoraConfig

    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.bfloat16)
    model.requires_grad_(False)
    method = methods.create(LoraConfig(rank=RANK, alpha=ALPHA, dropout=0.0), seed=SEED)
    method.attach(model)
    suffix = ".lora_A.weight"
    tensors = {
        name.removesuffix(suffix): parameter.detach().clone()
        for name, parameter in method.parameters().items()
        if name.endswith(suffix)
    }
    if len(tensors) != size.layers * len(TARGETS):
        raise SystemExit(f"{len(tensors)} adapters, {size.layers * len(TARGETS)} are needed")
    save_file(tensors, folder / "start.safetensors")


def read_rows(folder: Path) -> list[dict[str, list[int]]]:
    """The rows in their order."""
    return [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]


def read_start(folder: Path) -> dict[str, Any]:
    """The A matrices to start from, by the name of their module."""
    from safetensors.torch import load_file

    return dict(load_file(folder / "start.safetensors"))


def recipe(folder: Path, size: Size, *, steps: int) -> str:
    """The recipe of qtune's runs: its defaults but for what all contestants share."""
    return json.dumps(
        {
            "model": {"name_or_path": str(folder / "model")},
            "data": {
                "train": [{"path": str(folder / "rows.jsonl"), "format": "tokens"}],
                "max_length": MAX_LENGTH,
                "packing": True,
                "shuffle": False,
                "cache_dir": str(folder / "cache"),
            },
            "method": {"name": "lora", "rank": RANK, "alpha": ALPHA, "dropout": 0.0},
            "optim": {
                "name": "adamw_8bit",
                "learning_rate": LEARNING_RATE,
                "max_grad_norm": MAX_GRAD_NORM,
                "warmup_steps": 0,
            },
            "train": {"batch_size": size.batch, "max_steps": steps, "seed": SEED},
        },
        indent=2,
    )
