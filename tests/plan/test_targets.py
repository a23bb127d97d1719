from __future__ import annotations

import pytest

from qtune.errors import UsageError
from qtune.plan.targets import layer_index, lookup, select_targets

NAMES = [
    f"model.layers.{layer}.{module}"
    for layer in range(12)
    for module in ("self_attn.q_proj", "self_attn.v_proj", "mlp.up_proj")
]


def select(**filters: object) -> list[str]:
    return select_targets(NAMES, **{"target_modules": "all-linear", **filters})  # type: ignore[arg-type]


def test_all_linear_is_everything_in_order() -> None:
    assert select() == NAMES


def test_a_list_means_names_and_last_parts() -> None:
    wanted = ["q_proj", "model.layers.3.mlp.up_proj"]
    expected = [
        name for name in NAMES if name.endswith(".q_proj") or name == "model.layers.3.mlp.up_proj"
    ]
    assert select(target_modules=wanted) == expected
    assert len(expected) == 13


def test_a_last_part_is_a_whole_part() -> None:
    with pytest.raises(UsageError, match="no linear module is named 'proj'"):
        select(target_modules=["proj"])


def test_a_text_is_an_expression_for_the_whole_name() -> None:
    assert select(target_modules=r".*\.1\..*_proj") == NAMES[3:6]
    with pytest.raises(UsageError, match="no module of the model is chosen") as caught:
        select(target_modules="q_proj")
    assert "q_proj, v_proj, up_proj" in caught.value.faults[0].hint


def test_a_broken_expression_is_the_users_fault() -> None:
    with pytest.raises(UsageError, match="not a regular expression"):
        select(target_modules="(")


def test_layers_are_numbers_not_digits() -> None:
    assert select(layers_to_transform=[1]) == NAMES[3:6]
    assert select(layers_to_transform=[11, 0]) == NAMES[:3] + NAMES[33:]


def test_a_layer_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(UsageError, match="no layer 12, 40") as caught:
        select(layers_to_transform=[0, 40, 12])
    assert "0 to 11" in caught.value.faults[0].hint


def test_exclusion_wins() -> None:
    assert select(target_modules=["q_proj", "up_proj"], exclude_modules=["q_proj"]) == NAMES[2::3]
    with pytest.raises(UsageError, match="no module"):
        select(target_modules=["q_proj"], exclude_modules=["q_proj"])


def test_a_misspelt_module_is_not_skipped() -> None:
    with pytest.raises(UsageError, match="'v_porj'") as caught:
        select(target_modules=["q_proj", "v_porj"])
    assert "v_proj" in caught.value.faults[0].hint


def test_a_misspelt_exclusion_is_told_before_a_weight_is_read() -> None:
    with pytest.raises(UsageError, match=r"method\.exclude_modules: no linear module"):
        select(target_modules="all-linear", exclude_modules=["v_porj"])


def test_the_first_number_is_the_layer() -> None:
    assert layer_index("model.layers.7.mlp.experts.3.up_proj") == 7
    assert layer_index("model.norm") is None


def test_patterns_fit_as_in_peft_and_the_first_wins() -> None:
    patterns = {"up_proj": 2, r"layers\.1\..*": 6, "model.layers.4.self_attn.q_proj": 9}
    assert lookup(patterns, "model.layers.1.mlp.up_proj", 64) == 2
    assert lookup(patterns, "model.layers.1.self_attn.q_proj", 64) == 6
    assert lookup(patterns, "model.layers.11.self_attn.q_proj", 64) == 64
    assert lookup(patterns, "model.layers.4.self_attn.q_proj", 64) == 9
    assert lookup(patterns, "model.layers.4.self_attn.xup_proj", 64) == 64
    assert lookup({"a|b": 1}, "x.b", 64) == 1
