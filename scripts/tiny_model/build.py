"""Build the quickstart's tiny model and data set from nothing but a seed.

    python scripts/tiny_model/build.py --output recipes/quickstart

The data and the tokenizer are the same on every machine. The weights are the same on one machine
and nearly the same on another, because processors round sums differently.
"""

import argparse
import json
import os
import time
from pathlib import Path
from random import Random

# Read when torch is loaded: on busy cores, threads that spin while they wait cost five times more.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from cafe_orders import as_json_lines, make_rows
from pretrain import make_model, pretrain
from tiny_tokenizer import train_tokenizer
from transformers import GenerationConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SEED = 20
STEPS = 1200
TRAIN_ROWS = 2400
TEST_ROWS = 200


def data_files(seed: int) -> dict[str, str]:
    """Return the text of the two data files by file name."""
    train = make_rows(TRAIN_ROWS, Random(seed + 1), reserved=False)
    test = make_rows(TEST_ROWS, Random(seed + 2), reserved=True)
    return {"train.jsonl": as_json_lines(train), "test.jsonl": as_json_lines(test)}


def save_model(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write the Hugging Face folder, the weights in bfloat16 to halve its size."""
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        do_sample=False,
        max_new_tokens=100,
    )
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder, save_jinja_files=False)
    settings_file = folder / "tokenizer_config.json"
    settings = json.loads(settings_file.read_text())
    # transformers 5 writes its own new name here; this one is known to version 4 as well.
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    settings_file.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n")


def read_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True, help="folder to write into")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--steps", type=int, default=STEPS, help="pretraining steps")
    parser.add_argument(
        "--float32", action="store_true", help="for a processor without bfloat16 instructions"
    )
    parser.add_argument("--data-only", action="store_true", help="leave the model as it is")
    return parser.parse_args()


def main() -> None:
    """Write the data files, train the tokenizer and the model, and save them."""
    options, start = read_options(), time.monotonic()
    options.output.mkdir(parents=True, exist_ok=True)
    for name, text in data_files(options.seed).items():
        (options.output / name).write_text(text, encoding="utf-8")
    if options.data_only:
        return
    tokenizer = train_tokenizer(seed=options.seed)
    model = make_model(tokenizer, seed=options.seed)
    dtype = torch.float32 if options.float32 else torch.bfloat16
    loss = pretrain(model, tokenizer, steps=options.steps, seed=options.seed, dtype=dtype)
    save_model(model, tokenizer, options.output / "model")
    print(f"last loss {loss:.4f}, {time.monotonic() - start:.0f} s in all")


if __name__ == "__main__":
    main()
