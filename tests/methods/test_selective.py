"""Selective tuning: what changes is what was chosen, exactly; on a quantised base, too."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch

from qtune import plan
from qtune.errors import UsageError
from qtune.methods import create
from qtune.plan.adapters import trainable_tensors
from qtune.recipe.inputs import DataSection, ModelSection, QuantizationSection, SourceSection
from qtune.recipe.methods import SelectiveConfig
from qtune.recipe.sections import Recipe
from qtune.run.left_dense import with_skipped
from tests.methods.bases import attached, load, logits, randomise
from tests.tiny import tiny_llama

if TYPE_CHECKING:
    from pathlib import Path

NAMES = {name for name, _ in tiny_llama(attention_bias=True).named_parameters()}
CASES: dict[str, tuple[dict[str, Any], str]] = {
    "norms": ({"parts": ("norm",)}, r".*norm\.weight"),
    "attention": ({"parts": ("attention",)}, r".*self_attn.*"),
    "biases": ({"parts": ("attention", "mlp"), "types": ("bias",)}, r".*bias"),
    "weights": ({"parts": ("attention",), "types": ("weight",)}, r".*self_attn.*weight"),
    "first": (
        {"parts": ("mlp", "norm"), "layers_to_transform": "first:1"},
        r".*layers\.0\.(mlp.*|.*norm.*)",
    ),
    "last": (
        {"parts": ("norm",), "layers_to_transform": "last:1"},
        r".*layers\.1\..*norm.*",
    ),
    "listed": ({"parts": ("mlp",), "layers_to_transform": (0,)}, r".*layers\.0\.mlp.*"),
    "ends": ({"parts": ("embedding", "head")}, r"model\.embed_tokens.*|lm_head.*"),
    "pattern": (
        {"parts": ("attention",), "pattern": r".*\.[qv]_proj", "types": ("weight",)},
        r".*[qv]_proj\.weight",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_changes_is_what_was_chosen(case: str) -> None:
    import re

    keys, expected = CASES[case]
    model = tiny_llama(attention_bias=True).requires_grad_(False)
    config = SelectiveConfig(**keys)
    method = attached(model, config)
    wanted = {name for name in NAMES if re.fullmatch(expected, name)}
    assert wanted
    named = {name.removeprefix("base_model.model.") for name in method.parameters()}
    assert named == wanted
    assert set(type(method).merge_edits(config, method.adapter_state())) == wanted
    shape = plan.shape_of(json.loads(model.config.to_json_string()))
    planned = sum(tensor.elements for tensor in trainable_tensors(config, shape))
    assert planned == sum(parameter.numel() for parameter in method.parameters().values())


@pytest.mark.parametrize("case", CASES)
def test_the_trained_model_is_the_base_with_those_values(case: str) -> None:
    model = tiny_llama(attention_bias=True).requires_grad_(False)
    plain = {name: parameter.clone() for name, parameter in model.named_parameters()}
    method = attached(model, SelectiveConfig(**CASES[case][0]))
    randomise(method)
    other = tiny_llama(attention_bias=True)
    trained = {k.removeprefix("base_model.model."): v for k, v in method.adapter_state().items()}
    other.load_state_dict({**plain, **trained})
    assert torch.allclose(logits(model), logits(other), atol=1e-6)


def test_a_bias_trains_beside_a_quantised_matrix(tmp_path: Path) -> None:
    from tests.tiny import save_tiny

    folder = save_tiny(tmp_path / "biased", tiny_llama(attention_bias=True))
    base = load(folder, "nf4")
    plain = logits(base.model)
    method = attached(base.model, SelectiveConfig(parts=("attention",), types=("bias",)))
    assert torch.equal(logits(base.model), plain)
    randomise(method)
    assert not torch.equal(logits(base.model), plain)


def recipe_of(folder: Path, **method: Any) -> Recipe:
    return Recipe(
        model=ModelSection(name_or_path=str(folder)),
        data=DataSection(train=(SourceSection(path="-"),)),
        quantization=QuantizationSection(compute_dtype="float32"),
        method=SelectiveConfig(**method),
    )


def test_the_loader_leaves_what_trains_in_16_bits(tiny_folder: Path) -> None:
    asked = recipe_of(tiny_folder, parts=("mlp", "norm"), layers_to_transform="last:1")
    told = with_skipped(asked)
    assert told.quantization.skip_modules == tuple(
        f"model.layers.1.mlp.{end}_proj" for end in ("gate", "up", "down")
    )
    assert with_skipped(told) is told
    norms = recipe_of(tiny_folder)
    assert with_skipped(norms) is norms


def test_a_quantised_matrix_is_refused(tiny_folder: Path) -> None:
    asked = recipe_of(tiny_folder, parts=("mlp",))
    base = load(tiny_folder, "nf4")
    with pytest.raises(UsageError, match="cannot be trained"):
        create(asked.method, seed=0).attach(base.model)
    shape = plan.shape_of(json.loads((tiny_folder / "config.json").read_text()))
    with pytest.raises(UsageError, match="cannot be trained"):
        plan.make(asked, plan.Machine.gpu(10**10), shape)
    made = plan.make(with_skipped(asked), plan.Machine.gpu(10**10), shape)
    assert made.trainable_parameters == 2 * 3 * 64 * 128


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"layers_to_transform": "last:3"}, "no such layers"),
        ({"layers_to_transform": (5,)}, "no such layers"),
        ({"parts": ("mlp",), "types": ("bias",)}, "no parameter"),
        ({"pattern": "x"}, "no parameter"),
    ],
)
def test_what_is_not_there_is_told(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        attached(tiny_llama().requires_grad_(False), SelectiveConfig(**keys))
