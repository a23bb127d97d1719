"""Which switches are named when memory runs out."""

from __future__ import annotations

import pytest

from qtune.plan.plan import Switch
from qtune.run.exhausted import MOST, cheapest


def _switch(key: str, value: str, saves: int, seconds: float) -> Switch:
    return Switch(key=key, value=value, saves_bytes=saves, adds_seconds=seconds, fits=True)


SWITCHES = (
    _switch("memory.activations", "selective", 100, 0.2),
    _switch("memory.activations", "layer", 300, 1.0),
    _switch("memory.micro_batch_size", "2", 150, 0.1),
    _switch("memory.micro_batch_size", "8", -300, -0.1),
    _switch("memory.loss_chunk_size", "256", 20, 0.01),
    _switch("optim.name", "adamw_8bit", 40, 0.0),
    _switch("method.dtype", "float32", -80, 0.0),
)


@pytest.mark.parametrize(
    ("needed", "named"),
    [
        (0, ["optim.name=adamw_8bit", "memory.loss_chunk_size=256", "memory.micro_batch_size=2"]),
        (
            90,
            ["memory.micro_batch_size=2", "memory.activations=selective", "optim.name=adamw_8bit"],
        ),
        (200, ["memory.activations=layer", "optim.name=adamw_8bit", "memory.loss_chunk_size=256"]),
    ],
)
def test_what_saves_enough_comes_first_and_then_what_costs_least(
    needed: int, named: list[str]
) -> None:
    found = cheapest(SWITCHES, needed=needed)
    assert [f"{one.key}={one.value}" for one in found] == named
    assert len(found) <= MOST


def test_what_takes_more_memory_is_never_named() -> None:
    assert cheapest([one for one in SWITCHES if one.saves_bytes < 0], needed=1) == []
