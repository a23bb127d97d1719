"""`qtune methods`: what can be named as `method.name`, from the table alone. No torch."""

from __future__ import annotations

from typing import Any

from qtune.methods.table import ROWS
from qtune.plan import shape_of, trainable_parameters
from qtune.plan.published import published_config
from qtune.recipe.keys import METHODS

REFERENCE = "meta-llama/Meta-Llama-3-8B"
"""Whose sizes the numbers of parameters are counted for."""


def list_methods() -> dict[str, Any]:
    """Every method with its facts and what it trains, with its defaults, on the reference."""
    config = published_config(REFERENCE)
    assert config is not None, "the reference is shipped"
    shape = shape_of(config)
    return {
        "reference": REFERENCE,
        "methods": [
            {
                "name": name,
                "trains": row.trains,
                "parameters": _count(name, shape),
                "saves": row.peft_type,
                "merges": row.merges,
                "four_bit": row.four_bit,
                "paper": row.paper,
                "note": row.note,
            }
            for name, row in ROWS.items()
        ],
    }


def _count(name: str, shape: Any) -> int | None:
    """None where only the keys tell, such as the type of PEFT's tuner."""
    return trainable_parameters(METHODS[name](), shape) or None  # type: ignore[arg-type]
