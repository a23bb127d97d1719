"""What the plan advises when a recipe does not fit: each advice is taken and planned again."""

from __future__ import annotations

from typing import Any

import pytest

from qtune.errors import ExitCode, ResourceError
from qtune.plan import Machine, Plan, Remedy, human, make, shape_of
from qtune.recipe.sections import Recipe
from tests.plan.given import LLAMA_8B, LLAMA_65B, TINY, cpu, gpu, recipe


def refused(machine: Machine, config: dict[str, Any], asked: Recipe) -> tuple[Plan, str]:
    made = make(asked, machine, shape_of(config))
    assert not made.fits
    with pytest.raises(ResourceError) as caught:
        made.check()
    assert caught.value.code == ExitCode.RESOURCES
    return made, str(caught.value)


def taken(asked: Recipe, remedy: Remedy) -> Recipe:
    """The recipe with the advised settings, as a person would write them."""
    values = asked.model_dump()
    for setting in remedy.settings:
        key, text = setting.split("=")
        section, name = key.split(".")
        literal = {"true": True, "null": None, "[]": ()}.get(text, text)
        values[section][name] = int(text) if text.isdecimal() else literal
    return Recipe.model_validate(values)


def resident(*, memory: dict[str, Any] | None = None, **sections: Any) -> Recipe:
    """A recipe whose base must be on the device."""
    return recipe(memory={"base": "resident", **(memory or {})}, **sections)


CASES: dict[str, tuple[Machine, dict[str, Any], Recipe]] = {
    "just too large": (gpu(44.5), LLAMA_65B, resident(max_length=2048)),
    "states cannot page": (gpu(43), LLAMA_65B, resident(optim={"name": "adamw"})),
    "a high rank": (gpu(48), LLAMA_65B, resident(method={"name": "lora", "rank": 256})),
    "not quantised": (gpu(43), LLAMA_65B, resident(quantization={"bits": 16})),
    "no double quantisation": (
        gpu(41.3),
        LLAMA_65B,
        resident(quantization={"double_quant": False}, method={"name": "lora", "rank": 16}),
    ),
    "everything kept": (
        gpu(14),
        LLAMA_8B,
        resident(memory={"activations": "none", "micro_batch_size": 4}, max_length=1024),
    ),
    "eager and long": (
        gpu(16),
        LLAMA_8B,
        resident(model={"name_or_path": "x", "attn_implementation": "eager"}, max_length=8192),
    ),
    "a trained head": (
        gpu(12),
        LLAMA_8B,
        resident(method={"name": "lora", "modules_to_save": ["lm_head", "embed_tokens"]}),
    ),
    "fp32 on a CPU": (
        cpu(9),
        LLAMA_8B,
        resident(quantization={"compute_dtype": "float32"}, max_length=256),
    ),
    "far too large": (gpu(8), LLAMA_65B, resident()),
    "hopeless": (gpu(2), LLAMA_65B, resident()),
    "a small budget": (gpu(80), LLAMA_8B, resident(memory={"budget": "6GB"})),
    "bitfit": (gpu(35.5), LLAMA_65B, resident(method={"name": "bitfit"}, max_length=4096)),
}


@pytest.mark.parametrize("case", CASES)
def test_every_remedy_keeps_its_word(case: str) -> None:
    machine, config, asked = CASES[case]
    made, _ = refused(machine, config, asked)
    assert made.remedies
    for remedy in made.remedies:
        again = make(taken(asked, remedy), machine, shape_of(config))
        assert again.fits == remedy.fits, remedy
        assert remedy.saving == made.device_bytes - remedy.device_bytes
        if not again.fits:
            assert again.device_bytes == remedy.device_bytes


@pytest.mark.parametrize("case", CASES)
def test_a_combination_holds_nothing_that_is_not_needed(case: str) -> None:
    machine, config, asked = CASES[case]
    made, _ = refused(machine, config, asked)
    for remedy in made.remedies:
        if len(remedy.settings) < 2 or not remedy.fits:
            continue
        for left_out in remedy.settings:
            fewer = tuple(each for each in remedy.settings if each != left_out)
            partial = taken(asked, Remedy(fewer, 0, 0, False))
            assert not make(partial, machine, shape_of(config)).fits


def settings_of(case: str, *, fits: bool = True) -> list[tuple[str, ...]]:
    machine, config, asked = CASES[case]
    made, _ = refused(machine, config, asked)
    return [remedy.settings for remedy in made.remedies if remedy.fits == fits]


def test_advice_is_for_this_recipe() -> None:
    assert settings_of("just too large") == [
        ("method.dtype=bfloat16",),
        ("method.rank=32",),
        ("data.max_length=1024",),
        ("memory.base=stream",),
    ]
    assert ("memory.budget=null",) in settings_of("a small budget")
    assert ("memory.activations=layer",) in settings_of("everything kept")
    assert ("model.attn_implementation=sdpa",) in settings_of("eager and long")
    assert ("method.modules_to_save=[]",) in settings_of("a trained head")
    assert ("quantization.double_quant=true",) in settings_of("no double quantisation")
    assert ("quantization.bits=4", "method.dtype=bfloat16") in settings_of("not quantised")
    together = ("optim.name=paged_adamw_8bit", "method.dtype=bfloat16")
    assert together in settings_of("states cannot page")
    assert settings_of("far too large") == [("method.rank=4", "memory.base=stream")]
    assert settings_of("hopeless") == []


def test_the_mildest_value_that_is_enough_is_advised() -> None:
    machine, config, asked = CASES["just too large"]
    doubled = resident(max_length=2048, method={"name": "lora", "rank": 48})
    assert make(doubled, machine, shape_of(config)).fits
    assert not make(asked, machine, shape_of(config)).fits
    assert ("method.rank=32",) in settings_of("just too large")


def test_the_refusal_says_how_much_and_what_to_do() -> None:
    _, text = refused(*CASES["just too large"])
    assert "needs 44.6 GB, and 44.5 GB are there (GPU)" in text
    assert "any one of these makes it fit: method.dtype=bfloat16 (saves 3.39 GB)" in text
    _, text = refused(*CASES["states cannot page"])
    assert "or together optim.name=paged_adamw_8bit method.dtype=bfloat16" in text
    _, text = refused(*CASES["not quantised"])
    assert "no one setting is enough; together these fit" in text
    made, text = refused(*CASES["hopeless"])
    smallest = min(remedy.device_bytes for remedy in made.remedies)
    assert f"leaves {human(smallest)}; take a smaller model" in text


@pytest.mark.parametrize(
    ("machine", "asked", "advised"),
    [
        (cpu(1), "adamw_8bit", set()),
        (cpu(1), "paged_adamw_32bit", {"adamw_8bit"}),
        (gpu(2), "adamw_8bit", {"paged_adamw_8bit"}),
        (gpu(2), "lion_8bit", {"paged_lion_8bit"}),
        (gpu(2), "adamw", {"paged_adamw_8bit"}),
        # the states of small matrices never page: 8-bit ones still save
        (gpu(2), "paged_adamw_32bit", {"paged_adamw_8bit"}),
        (gpu(2), "paged_lion_8bit", set()),
    ],
)
def test_a_lighter_optimizer_is_one_that_this_machine_has(
    machine: Machine, asked: str, advised: set[str]
) -> None:
    made, _ = refused(machine, LLAMA_8B, recipe(optim={"name": asked}))
    settings = {setting for remedy in made.remedies for setting in remedy.settings}
    assert {each.split("=")[1] for each in settings if each.startswith("optim.name")} == advised


def test_a_plan_that_fits_has_nothing_to_say() -> None:
    made = make(recipe(), gpu(20), shape_of(TINY))
    made.check()
    assert made.remedies == ()


def test_a_recipe_at_its_smallest_is_told_so() -> None:
    asked = recipe(
        max_length=128,
        method={"name": "prompt"},
        optim={"name": "sgd"},
        memory={"loss_chunk_size": 64, "micro_batch_size": 1},
    )
    _, text = refused(gpu(1), LLAMA_8B, asked)
    assert "no setting of the recipe lowers it" in text
