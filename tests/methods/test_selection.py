"""Names of modules: chosen, refused, and written for PEFT."""

from __future__ import annotations

from typing import Any

import pytest

from qtune.errors import ModelError, UsageError
from qtune.methods.selection import chosen_linears, file_targets, saved_names
from qtune.recipe.methods import BitfitConfig, LoraConfig
from tests.methods.bases import attached
from tests.tiny import tiny_llama


def model() -> Any:
    return tiny_llama().requires_grad_(False)


def test_all_linear_leaves_the_head() -> None:
    chosen = chosen_linears(model(), LoraConfig())
    assert len(chosen) == 14
    assert "lm_head" not in chosen


def test_a_module_trained_whole_carries_no_adapter() -> None:
    base = model()
    config = LoraConfig(modules_to_save=("layers.0.mlp", "v_proj"))
    saved = saved_names(base, config.modules_to_save)
    assert "model.layers.1.self_attn.v_proj" in saved
    chosen = chosen_linears(base, config, saved=saved)
    assert len(chosen) == 14 - 3 - 2


@pytest.mark.parametrize(
    ("changes", "key", "hint"),
    [
        ({"target_modules": ("c_attn",)}, "target_modules", "q_proj"),
        ({"target_modules": r".*\.nothing"}, "target_modules", "down_proj"),
        ({"exclude_modules": ("q_prj",)}, "exclude_modules", "did you mean q_proj"),
        ({"modules_to_save": ("lm_haed",)}, "modules_to_save", "did you mean lm_head"),
        ({"rank_pattern": {"o_prj": 2}}, "rank_pattern", "o_proj"),
        ({"target_modules": ("q_proj",), "alpha_pattern": {"o_proj": 2}}, "alpha_pattern", "q"),
        ({"layers_to_transform": (5,)}, "layers_to_transform", "0 to 1"),
    ],
)
def test_a_name_that_fits_nothing_is_an_error(changes: dict[str, Any], key: str, hint: str) -> None:
    base = model()
    with pytest.raises(UsageError) as refused:
        attached(base, LoraConfig(**changes))
    fault = refused.value.faults[0]
    assert key in fault.place
    assert hint in fault.hint
    assert not any(tensor.requires_grad for tensor in base.parameters())


def test_the_file_has_short_names_where_they_are_enough() -> None:
    base = model()
    config = LoraConfig(layers_to_transform=(1,), exclude_modules=("q_proj",))
    chosen = chosen_linears(base, config)
    assert file_targets(base, chosen, config) == {
        "target_modules": ["down_proj", "gate_proj", "k_proj", "o_proj", "up_proj", "v_proj"],
        "layers_to_transform": [1],
    }


def test_the_file_has_full_names_where_short_ones_reach_too_far() -> None:
    base = model()
    config = BitfitConfig(target_modules=("layers.0.mlp.up_proj",))
    assert file_targets(base, chosen_linears(base, config), config) == {
        "target_modules": ["model.layers.0.mlp.up_proj"],
        "layers_to_transform": None,
    }


def test_one_method_at_a_time() -> None:
    base = model()
    attached(base, LoraConfig())
    with pytest.raises(ModelError, match="already has an adapter"):
        attached(base, BitfitConfig())
