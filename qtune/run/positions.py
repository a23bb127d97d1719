"""Rows that are longer than the model was made for: told, and refused where it has no more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from qtune import plan
from qtune.data import Rows
from qtune.errors import DataError, Fault

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qtune.recipe.sections import Recipe

LEARNED = {"gpt2", "gpt_bigcode", "gpt_neo", "opt"}
"""Model types whose positions are rows of a table: one behind its end is no number at all."""


def too_long(asked: Recipe, *parts: Any) -> Iterator[Fault]:
    """One fault where rows have more tokens than the model has positions, `DataError` where these
    are a table; what is no `Rows`, such as a stream, is passed over."""
    section = asked.model
    config = plan.read_config(section.name_or_path, section.revision)
    positions = plan.positions_of(config, asked.method)
    rows = [part.lengths for part in parts if isinstance(part, Rows) and part.pictures is None]
    if positions is None or not rows:
        return
    lengths = np.concatenate(rows)
    longer = lengths[lengths > positions]
    if len(longer):
        fault = Fault(
            message=f"{len(longer):,} of {len(lengths):,} rows are longer than the {positions:,} "
            f"positions that the model has for them: up to {longer.max():,} tokens",
            place="data.max_length",
            hint=f"set data.max_length: {positions}"
            if positions > 0
            else "lower method.num_virtual_tokens",
        )
        if config.get("model_type") in LEARNED:
            raise DataError.of([fault])
        yield fault
