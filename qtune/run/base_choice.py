"""`merge.base: auto`: which base the adapter does better on, by the loss of the held-out rows."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from qtune import data, models
from qtune.data.source import first_rows
from qtune.errors import UsageError
from qtune.merging import layerwise

if TYPE_CHECKING:
    from qtune.merging import Merge
    from qtune.run.display import Display
    from qtune.run.subject import Subject

BASES = ("dequantized", "original")
ROWS = 64
POSITIONS = 4096
PLACE = "merge.base"


def choose(subject: Subject, work: Merge, display: Display) -> tuple[Merge, dict[str, Any]]:
    """The merge onto the better base, and both losses (nats per trained token); where the base is
    stored quantised there is one only. `UsageError` without held-out rows."""
    if work.blueprint.packed.weights:
        return replace(work, base="dequantized"), {"base": "dequantized", "losses": {}}
    rows = _held_out(subject)
    losses = {}
    for base in BASES:
        network = layerwise.folded(replace(work, base=base), subject.model)
        losses[base] = _loss(network, rows)
        display.line(f"on the {base} base: held-out loss {losses[base]:.5f}")
    better = min(BASES, key=lambda base: losses[base])
    by = abs(losses["original"] - losses["dequantized"])
    display.line(f"merging onto the {better} base, better by {by:.5f}")
    return replace(work, base=better), {"base": better, "losses": losses, "better_by": by}


def _held_out(subject: Subject) -> list[tuple[list[int], list[int]]]:
    """(ids, labels) of the first held-out rows."""
    if subject.recipe is None or not subject.recipe.data.eval:
        raise UsageError(
            "auto compares both bases on held-out rows, and there are none",
            place=PLACE,
            hint="name a run with data.eval, or --base dequantized",
        )
    if subject.model.task != "causal":
        raise UsageError("auto compares language models only", place=PLACE)
    sources = first_rows(subject.recipe.data.eval, ROWS)
    rows = data.read_eval(sources, subject.recipe, models.load_tokenizer(subject.model))
    kept: list[tuple[list[int], list[int]]] = []
    room = POSITIONS
    for row in rows:
        if len(row.input_ids) <= room:
            kept.append((list(row.input_ids), list(row.labels)))
            room -= len(row.input_ids)
    return kept


@torch.no_grad()
def _loss(network: Any, rows: list[tuple[list[int], list[int]]]) -> float:
    """Mean cross-entropy of the trained tokens."""
    total, count = 0.0, 0
    measured = layerwise.each_logits(network, [ids for ids, _ in rows])
    for number, logits in measured:
        labels = torch.tensor(rows[number][1])[1:]
        trained = labels != -100
        total += float(
            functional.cross_entropy(
                logits[:-1][trained].double(), labels[trained], reduction="sum"
            )
        )
        count += int(trained.sum())
    return total / max(count, 1)
