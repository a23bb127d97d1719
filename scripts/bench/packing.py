"""Packed against padded steps on one core: the quickstart's model, forward and backward.

    python scripts/bench/packing.py

The same rows in three shapes: padded, packed as training does, and packed into the fewest sequences
of max_length, which is what packing usually means. Attention costs a sequence's length squared, so
the fewest sequences are the slowest here. Seconds are of the processor, the least of some rounds in
which the shapes take turns; a busy machine shares those out, but does not change them much.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from qtune import data, methods, models, recipe
from qtune.data.batch import collate_packed
from qtune.data.feed import Feed, make_feed
from qtune.data.packing import pack_evenly

if TYPE_CHECKING:
    from qtune.data import Rows
    from qtune.data.batch import Batch
    from qtune.recipe.sections import Recipe

RESULT = Path(__file__).with_name("packing.json")
STEPS = 3
ROUNDS = 5
LENGTHS = (256, 2048)


@dataclass(frozen=True)
class Fewest:
    """The fewest sequences of a capacity."""

    feed: Feed
    capacity: int

    def batches(self) -> list[Batch]:
        """The first steps."""
        made = []
        for chosen in self.feed.chosen(STEPS):
            rows, lengths = self.feed.rows.take(chosen), self.feed.order.lengths[chosen].tolist()
            sequences = pack_evenly(lengths, self.capacity)
            made.append(collate_packed([[rows[n] for n in one] for one in sequences], pad_id=0))
        return made


def feed(asked: Recipe, rows: Rows, *, packing: bool, max_length: int) -> Feed:
    """The quickstart's steps, all rows in one pass."""
    section = asked.data.model_copy(update={"packing": packing, "max_length": max_length})
    own = asked.model_copy(update={"data": section})
    return make_feed(own, rows, micro_batch_size=asked.train.batch_size, pad_id=0)


def taken(model: Any, batches: list[Batch]) -> float:
    """Processor seconds of the batches, forward and backward."""
    started = time.process_time()
    for batch in batches:
        logits = model(**batch.inputs(), use_cache=False).logits
        labels = batch.labels[:, 1:].flatten()
        functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels).backward()
    return time.process_time() - started


def main() -> None:
    """Let the shapes take turns and write what was found."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--output", type=Path, default=RESULT)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    asked = recipe.load("quickstart", []).recipe
    tokenizer = models.load_tokenizer(asked.model)
    rows = data.prepare(asked, tokenizer).train
    device = torch.device("cpu")
    base = models.load(asked.model, asked.quantization, device=device, activations="none")
    methods.create(asked.method, seed=0).attach(base.model, tokenizer=tokenizer)
    base.model.train()
    shapes = {
        "padded": [
            b
            for step in feed(asked, rows, packing=False, max_length=256).steps(STEPS)
            for b in step
        ]
    }
    for length in LENGTHS:
        packed = feed(asked, rows, packing=True, max_length=length)
        shapes[f"packed, max_length {length}"] = [b for step in packed.steps(STEPS) for b in step]
        shapes[f"fewest sequences, max_length {length}"] = Fewest(packed, length).batches()
    rounds = [{name: taken(base.model, one) for name, one in shapes.items()} for _ in range(ROUNDS)]
    least = {name: min(one[name] for one in rounds) for name in shapes}
    result = {
        name: {
            "first_shape": list(batches[0].input_ids.shape),
            "fill": round(sum(b.tokens for b in batches) / sum(b.computed for b in batches), 4),
            "tokens_per_cpu_second": round(sum(b.tokens for b in batches) / least[name]),
            "speed_to_padded": round(least["padded"] / least[name], 3),
        }
        for name, batches in shapes.items()
    }
    arguments.output.write_text(json.dumps(result, indent=2) + "\n")
    print(arguments.output.read_text(), end="")


if __name__ == "__main__":
    main()
