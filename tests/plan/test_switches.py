"""What each switch is said to save is what planning with it gives."""

from __future__ import annotations

from typing import Any

import pytest

from qtune.plan import Machine, Plan, make, shape_of
from qtune.recipe.sections import Recipe
from tests.plan.given import LLAMA_8B, LLAMA_65B, TINY, cpu, gpu, recipe

CASES: dict[str, tuple[Machine, dict[str, Any]]] = {
    "8B on 24 GB": (gpu(24), LLAMA_8B),
    "65B streamed": (gpu(24), LLAMA_65B),
    "tiny on a CPU": (cpu(8), TINY),
}


def fixed(asked: Recipe, made: Plan) -> dict[str, Any]:
    """The recipe with every decision of the plan written into it."""
    values = asked.model_dump()
    for key in ("micro_batch_size", "activations", "base", "dequantized_layers"):
        values["memory"][key] = getattr(made, key)
    values["memory"]["loss_chunk_size"] = made.loss_chunk_size
    return values


@pytest.mark.parametrize("case", CASES)
def test_a_switch_saves_what_planning_with_it_gives(case: str) -> None:
    machine, config = CASES[case]
    asked, shape = recipe(), shape_of(config)
    made = make(asked, machine, shape)
    assert len(made.switches) >= 4
    # paged states would hide the difference
    roomy = Machine(machine.device, machine.name, 10**13, 0, machine.cores)
    before = make(Recipe.model_validate(fixed(asked, made)), roomy, shape)
    for switch in made.switches:
        values = fixed(asked, made)
        section, key = switch.key.split(".")
        values[section][key] = int(switch.value) if switch.value.isdecimal() else switch.value
        if switch.value == "stream":
            values["memory"]["dequantized_layers"] = 0
        after = make(Recipe.model_validate(values), roomy, shape)
        assert before.device_bytes - after.device_bytes == switch.saves_bytes, switch


def test_fixing_every_decision_changes_nothing() -> None:
    asked, shape = recipe(), shape_of(LLAMA_8B)
    made = make(asked, gpu(24), shape)
    again = make(Recipe.model_validate(fixed(asked, made)), gpu(24), shape)
    assert again.memory == made.memory
    assert again.estimate == made.estimate


def test_no_single_switch_that_fits_is_much_faster() -> None:
    """Each of them was weighed; only what the recipe itself says is left to gain."""
    for machine, config in CASES.values():
        made = make(recipe(), machine, shape_of(config))
        for switch in made.switches:
            if switch.fits and switch.key.startswith("memory.") and switch.key != "memory.base":
                offloads = switch.value == "offload"
                assert offloads or switch.adds_seconds > -0.03 * made.seconds_per_step, switch


def test_the_next_best_is_another_way_that_is_not_faster() -> None:
    made = make(recipe(), gpu(24), shape_of(LLAMA_8B))
    assert made.next_best
    assert not made.next_best.startswith(
        f"micro_batch_size {made.micro_batch_size}, activations {made.activations}:"
    )
    alone = {"micro_batch_size": 1, "activations": "layer", "base": "resident"}
    assert make(recipe(memory=alone), gpu(24), shape_of(LLAMA_8B)).next_best == ""
