"""The share of real tokens in the tensors, by way of filling them, on real lengths.

    python scripts/bench/fill.py

Rows of ../shared/real/data (instructions, mathematics, conversation trees) are encoded as for
training, with GPT-2's tokenizer and the template of vicuna. For 512 and 2,048 tokens: best-fit over
all rows, and the first epoch as training makes its passes, padded, grouped by length and packed,
for steps of 16 and 64 rows.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import AutoTokenizer, GPT2Config

from qtune import data, models
from qtune.data.packing import pack
from qtune.recipe.inputs import DataSection, ModelSection, SourceSection
from qtune.recipe.sections import Recipe
from qtune.recipe.steps import TrainSection
from qtune.run.data_statistics import fills

if TYPE_CHECKING:
    from qtune.data import Rows

RESULT = Path(__file__).with_name("fill.json")
REAL = Path(__file__).parents[3] / "shared" / "real"
FILES = {
    "rasbt": "rasbt_instruction_1100.json",
    "gsm8k": "gsm8k_test.jsonl",
    "oasst": "oasst_en_100_tree.jsonl",
}
CAPACITIES = (512, 2048)
STEPS = (16, 64)
MICRO_BATCHES = (1, 4, 16)


def recipe(name: str, capacity: int, folder: Path) -> Recipe:
    """One file, no row longer than so many tokens."""
    source = SourceSection(path=str(REAL / "data" / FILES[name]))
    rows = DataSection(train=(source,), max_length=capacity, cache_dir=str(folder / "cache"))
    model = ModelSection(name_or_path=str(folder), chat_template="vicuna")
    return Recipe(model=model, data=rows)


def best_fit(rows: Rows, capacity: int) -> dict[str, float]:
    """All rows at once into sequences of a capacity; the last holds what is left over."""
    lengths = rows.lengths.tolist()
    filled = sorted(sum(lengths[row] for row in one) for one in pack(lengths, capacity))
    return {
        "sequences": len(filled),
        "fill": round(sum(filled) / (capacity * len(filled)), 4),
        "fill_without_the_emptiest": round(sum(filled[1:]) / (capacity * len(filled[1:])), 4),
    }


def steps(asked: Recipe, rows: Rows) -> dict[str, dict[str, float]]:
    """What training computes, by rows of a step and of a micro-batch."""
    found = {}
    for batch in STEPS:
        train = TrainSection(batch_size=batch)
        for size in MICRO_BATCHES:
            one = asked.model_copy(update={"train": train})
            shares = fills(rows, one, micro_batch_size=size, pad_id=0)
            del shares["packed_whole"]
            found[f"{batch} rows a step, {size} sequences a pass"] = shares
    return found


def measure(name: str, capacity: int, folder: Path) -> dict[str, Any]:
    """One file at one length."""
    asked = recipe(name, capacity, folder)
    rows = data.prepare(asked, models.load_tokenizer(asked.model)).train
    return {
        "rows": len(rows),
        "tokens": int(rows.lengths.sum()),
        "longest": int(rows.lengths.max()),
        "best_fit": best_fit(rows, capacity),
        "training": steps(asked, rows),
    }


def main() -> None:
    """Measure every file and write what was found."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--output", type=Path, default=RESULT)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        tokenizer = AutoTokenizer.from_pretrained(REAL / "tokenizers" / "gpt2")
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(len(tokenizer) - 1)  # it names none
        tokenizer.save_pretrained(folder)
        GPT2Config().save_pretrained(folder)
        result = {
            f"{name}, {capacity}": measure(name, capacity, folder)
            for name in FILES
            for capacity in CAPACITIES
        }
    arguments.output.write_text(json.dumps(result, indent=2) + "\n")
    print(arguments.output.read_text(), end="")


if __name__ == "__main__":
    main()
