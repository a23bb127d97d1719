"""Rows that are longer than the model was made for: they train, and are told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from qtune import plan
from qtune.data import Rows
from qtune.errors import Fault

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qtune.recipe.sections import Recipe


def too_long(asked: Recipe, *parts: Any) -> Iterator[Fault]:
    """One fault where rows have more tokens than the model has positions; what is no `Rows`, such
    as a stream, is passed over."""
    section = asked.model
    config = plan.read_config(section.name_or_path, section.revision)
    positions = plan.positions_of(config, asked.method)
    rows = [part.lengths for part in parts if isinstance(part, Rows) and part.pictures is None]
    if positions is None or not rows:
        return
    lengths = np.concatenate(rows)
    longer = lengths[lengths > positions]
    if len(longer):
        yield Fault(
            message=f"{len(longer):,} of {len(lengths):,} rows are longer than the {positions:,} "
            f"positions that the model was made for: up to {longer.max():,} tokens",
            place="data.max_length",
            hint=f"set data.max_length: {positions}",
        )
