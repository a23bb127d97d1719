"""Frozen, checkpointed, and never repacked: gradients are what they should be."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from qtune.ops.nf4 import bits_of, library
from tests.models.workshop import adapt, gradients, load_folder, logits
from tests.tiny import save_tiny, tiny_llama

if TYPE_CHECKING:
    from pathlib import Path

    from qtune.recipe.steps import ActivationPolicy


def test_an_evaluation_changes_no_gradient_and_no_weight(whole: Path) -> None:
    # Without disarming, on a CPU with AVX512-BF16, the second gradients are off by most of
    # their norm, while the loss stays right.
    model = load_folder(whole, compute_dtype="bfloat16").model
    trainable = adapt(model)
    packed = [module.weight.data for module in model.modules() if bits_of(module) == 4]
    copies = [data.clone() for data in packed]
    before = gradients(model, trainable)
    logits(model)
    after = gradients(model, trainable)
    for old, new in zip(before, after, strict=True):
        assert torch.equal(old, new)
        assert new.norm() > 0
    found = [module.weight.data for module in model.modules() if bits_of(module) == 4]
    assert all(torch.equal(old, new) for old, new in zip(copies, found, strict=True))


def test_the_comparison_above_sees_the_fault_where_the_cpu_has_it(whole: Path) -> None:
    if not library().functional.has_avx512bf16():
        pytest.skip("this CPU never repacks")
    model = load_folder(whole, compute_dtype="bfloat16").model
    trainable = adapt(model)
    for module in model.modules():
        if bits_of(module) == 4:
            module.support_avx512bf16_for_cpu = True
    before = gradients(model, trainable)
    logits(model)
    with pytest.warns(UserWarning, match="autograd kernel was not registered"):
        after = gradients(model, trainable)
    lost = sum((new - old).norm() for old, new in zip(before, after, strict=True))
    assert lost > 0.2 * sum(old.norm() for old in before)


def test_every_4_bit_layer_is_disarmed(whole: Path) -> None:
    layers = [module for module in load_folder(whole).model.modules() if bits_of(module) == 4]
    assert len(layers) == 14
    assert not any(layer.support_avx512bf16_for_cpu for layer in layers)


def test_sizes_that_repacking_could_not_take_are_evaluated(tmp_path: Path) -> None:
    save_tiny(tmp_path, tiny_llama(intermediate_size=172))
    assert logits(load_folder(tmp_path).model).isfinite().all()


@pytest.mark.parametrize("bits", [4, 8, 16])
def test_checkpointing_changes_no_gradient(bits: int, whole: Path) -> None:
    plain = load_folder(whole, bits=bits).model
    wanted = gradients(plain, adapt(plain))
    model = load_folder(whole, bits=bits, activations="layer").model
    assert any(getattr(module, "gradient_checkpointing", False) for module in model.modules())
    found = gradients(model, adapt(model))
    for old, new in zip(wanted, found, strict=True):
        assert torch.equal(old, new)
        assert new.norm() > 0


def test_checkpointing_keeps_fewer_activations(whole: Path) -> None:
    def saved(policy: ActivationPolicy) -> int:
        model = load_folder(whole, activations=policy).model
        parameters, total = adapt(model), 0

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal total
            total += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            gradients(model, parameters)
        return total

    # Recomputed tensors pass through inner hooks of the checkpoint, not through ours.
    assert saved("layer") < saved("none") / 2


def test_checkpointing_turns_the_cache_off_for_training_only(whole: Path) -> None:
    model = load_folder(whole, activations="layer").model
    assert model.config.use_cache is False
    assert model.generation_config.use_cache
    assert not model.get_input_embeddings()._forward_hooks
    assert load_folder(whole).model.config.use_cache is True


def test_nothing_is_made_larger(whole: Path) -> None:
    base = load_folder(whole, compute_dtype="bfloat16", activations="layer")
    dense = [parameter for parameter in base.model.parameters() if parameter.is_floating_point()]
    assert {parameter.dtype for parameter in dense} == {torch.bfloat16}
    assert not any(parameter.requires_grad for parameter in base.model.parameters())
    assert base.model.training
