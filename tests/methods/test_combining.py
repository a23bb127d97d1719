"""Adapters combined: equal to PEFT's add_weighted_adapter, and refused where they do not belong."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import peft
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from qtune import methods
from qtune.errors import ModelError, UsageError
from qtune.methods.combining import combine, save
from tests.tiny import tiny_llama

if TYPE_CHECKING:
    from pathlib import Path

# PEFT asks transformers by a name that it gives up
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
PREFIX = "base_model.model."
WEIGHTS = [0.7, -0.4]


def write_adapters(folder: Path, *settings: dict[str, Any]) -> list[Path]:
    """Random LoRAs of the tiny Llama, as PEFT writes them."""
    places = []
    for number, setting in enumerate(settings):
        torch.manual_seed(number + 1)
        keys = {"r": 4, "lora_alpha": 8.0, "target_modules": ["q_proj"]} | setting
        model = get_peft_model(tiny_llama(), LoraConfig(**keys))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_" in name:
                    parameter.copy_(torch.randn_like(parameter))
        places.append(folder / f"adapter-{number}")
        model.save_pretrained(places[-1])
    return places


def deltas_by_peft(places: list[Path], how: str, **options: Any) -> dict[str, torch.Tensor]:
    """What PEFT's combination adds to each weight."""
    model = PeftModel.from_pretrained(tiny_llama(), places[0], adapter_name="a0")
    for number, place in enumerate(places[1:], start=1):
        model.load_adapter(place, adapter_name=f"a{number}")
    names = [f"a{number}" for number in range(len(places))]
    model.add_weighted_adapter(names, WEIGHTS, adapter_name="sum", combination_type=how, **options)
    return {
        name.removeprefix(PREFIX): module.get_delta_weight("sum").detach()
        for name, module in model.named_modules()
        if isinstance(module, peft.tuners.lora.Linear) and "sum" in module.lora_A
    }


def deltas(adapter: methods.AdapterFile) -> dict[str, torch.Tensor]:
    """What an adapter adds to each weight, by its edits on zeros."""
    found = {}
    for name, edit in adapter.merge_edits().items():
        assert edit.shape is not None
        found[name.removesuffix(".weight")] = edit.apply(torch.zeros(edit.shape))
    return found


@pytest.mark.parametrize(
    ("how", "theirs", "options"),
    [
        ("linear", "linear", {}),
        ("cat", "cat", {}),
        ("svd", "svd", {}),
        ("ties", "ties", {"density": 0.5}),
        ("dare", "dare_linear", {"density": 0.5}),
    ],
)
def test_as_peft(
    tmp_path: Path,
    how: Any,
    theirs: str,
    options: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = {"layers_to_transform": [0]}  # one module: DARE draws in its order
    places = write_adapters(tmp_path, settings, settings | {"lora_alpha": 2.0})
    found = deltas(combine([methods.read(each) for each in places], WEIGHTS, how=how, **options))
    random, plain = torch.Generator().manual_seed(0), torch.bernoulli
    monkeypatch.setattr(torch, "bernoulli", lambda share: plain(share, generator=random))
    wanted = deltas_by_peft(places, theirs, **options)
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert value.abs().max() > 0.1
        assert torch.allclose(found[name], value, atol=2e-5), name


@pytest.mark.parametrize("how", ["cat", "svd"])
def test_unequal_ranks_and_modules_as_peft(tmp_path: Path, how: Any) -> None:
    places = write_adapters(
        tmp_path,
        {"target_modules": ["q_proj", "up_proj"], "use_rslora": True},
        {"target_modules": ["q_proj", "o_proj"], "r": 2, "rank_pattern": {"o_proj": 3}},
    )
    combined = combine([methods.read(each) for each in places], WEIGHTS, how=how)
    found = deltas(combined)
    plain = [deltas(methods.read(each)) for each in places]
    assert found.keys() == plain[0].keys() | plain[1].keys()
    for name, value in found.items():
        wanted = sum(w * own[name] for w, own in zip(WEIGHTS, plain, strict=True) if name in own)
        assert isinstance(wanted, torch.Tensor)
        if how == "svd":  # rank 4 of at most 6
            outer, values, inner = torch.linalg.svd(wanted)
            wanted = outer[:, :4] * values[:4] @ inner[:4]
        assert torch.allclose(value, wanted, atol=5e-5), name


def test_the_file_is_one_that_peft_and_qtune_read(tmp_path: Path) -> None:
    places = write_adapters(tmp_path, {}, {"r": 2})
    combined = combine([methods.read(each) for each in places], WEIGHTS, how="cat")
    (tmp_path / "out").mkdir()
    save(combined, tmp_path / "out")
    again = methods.read(tmp_path / "out")
    assert again.facts["combined"]["weights"] == WEIGHTS
    assert deltas(again).keys() == deltas(combined).keys()
    ids = torch.arange(3, 20).reshape(1, 17)
    ours = PeftModel.from_pretrained(tiny_llama(), tmp_path / "out")
    model = PeftModel.from_pretrained(tiny_llama(), places[0], adapter_name="a0")
    model.load_adapter(places[1], adapter_name="a1")
    model.add_weighted_adapter(["a0", "a1"], WEIGHTS, "sum", combination_type="cat")
    model.set_adapter("sum")
    with torch.no_grad():
        assert torch.allclose(ours(ids).logits, model(ids).logits, atol=1e-5)


def test_what_cannot_be_combined_is_refused(tmp_path: Path) -> None:
    places = write_adapters(
        tmp_path, {}, {"r": 2}, {"use_dora": True}, {"modules_to_save": ["lm_head"]}
    )
    first, narrow, dora, saved = [methods.read(each) for each in places]
    with pytest.raises(UsageError, match="adds matrices of one rank, these are of 4, 2"):
        combine([first, narrow], WEIGHTS, how="linear")
    with pytest.raises(ModelError, match="DoRA"):
        combine([first, dora], WEIGHTS, how="cat")
    with pytest.raises(ModelError, match="whole trained tensors"):
        combine([first, saved], WEIGHTS, how="cat")
    with pytest.raises(UsageError, match="1 weights for 2 adapters"):
        combine([first, narrow], [1.0], how="cat")
    with pytest.raises(UsageError, match="keeps a share"):
        combine([first, first], WEIGHTS, how="ties")
    with pytest.raises(UsageError, match="keeps all values"):
        combine([first, first], WEIGHTS, how="cat", density=0.5)
    with pytest.raises(UsageError, match="no way to combine"):
        combine([first, first], WEIGHTS, how="mean")  # type: ignore[arg-type]
    one, other = replace(first, base_model="one"), replace(first, base_model="other")
    with pytest.raises(ModelError, match="another base"):
        combine([one, other], WEIGHTS, how="cat")
    other = replace(first, base_fingerprint="b")
    with pytest.raises(ModelError, match="another base"):
        combine([replace(first, base_fingerprint="a"), other], WEIGHTS, how="cat")
