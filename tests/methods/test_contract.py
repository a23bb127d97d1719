"""What every method promises, on an NF4 base and on a plain one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import torch

from qtune import models, plan
from qtune.errors import QtuneError
from qtune.methods import METHODS, create, read, save
from qtune.methods.base import CannotMerge, Method
from qtune.methods.peft_format import CONFIG_FILE
from qtune.methods.table import ROWS
from qtune.plan.adapters import trainable_tensors
from qtune.recipe.inputs import DataSection, ModelSection, SourceSection
from qtune.recipe.methods import parts_of
from qtune.recipe.sections import Recipe
from qtune.run.shapes import shape_for
from tests.methods.bases import (
    CASES,
    KINDS,
    RATES,
    attached,
    batch,
    dense_model,
    dense_state,
    frozen_bytes,
    load,
    logits,
    randomise,
    train,
)

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from qtune.models import Base
    from qtune.recipe.methods import MethodConfig


FUSED = ("lora", "dora", "patterns", "saved", "lora_fa", "dylora", "delta_lora")
"""Cases that are tried on fused blocks, too."""


def _works(case: str, kind: str) -> bool:
    if kind == "part" or (case, kind) == ("last-layer", "nf4"):
        return (case, kind) == ("last-layer", "part")
    return kind != "nf4" or ROWS[CASES[case].name].four_bit


@dataclass
class Trained:
    """A method after 15 steps, and what was seen on the way."""

    base: Base
    method: Method
    config: MethodConfig
    kind: str
    folder: Path
    plain_logits: Tensor
    start_logits: Tensor
    dense: dict[str, Tensor]
    untouched: bool
    losses: list[float]
    logits: Tensor


@pytest.fixture(
    scope="module",
    params=[
        *((case, kind, "plain") for case in CASES for kind in KINDS if _works(case, kind)),
        *((case, "nf4", "auto") for case in FUSED),
    ],
    ids=lambda param: "-".join(param),
)
def trained(request: pytest.FixtureRequest, tiny_folder: Path) -> Trained:
    case, kind, kernels = request.param
    base = load(tiny_folder, kind, activations="layer")
    plain, dense = logits(base.model), dense_state(base.model)
    method = attached(base.model, CASES[case])
    models.fuse(base.model, kernels, "layer")
    start, before = logits(base.model), frozen_bytes(base.model, method)
    losses = train(base.model, method, rate=RATES.get(case, 1e-2))
    return Trained(
        base=base,
        method=method,
        config=CASES[case],
        kind=kind,
        folder=tiny_folder,
        plain_logits=plain,
        start_logits=start,
        dense=dense,
        untouched=frozen_bytes(base.model, method) == before,
        losses=losses,
        logits=logits(base.model),
    )


def test_every_method_is_here() -> None:
    assert {config.name for config in CASES.values()} == set(METHODS)


def test_the_table_says_what_it_is(trained: Trained, tmp_path: Path) -> None:
    row, config = ROWS[trained.config.name], trained.config
    assert trained.method.name == config.name
    kind = getattr(config, "type", row.peft_type)  # the bridge has one for each tuner
    assert trained.method.peft_type == kind
    save(tmp_path / "a", trained.method, base_model="tiny", base_fingerprint="0123")
    assert json.loads((tmp_path / "a" / CONFIG_FILE).read_text())["peft_type"] == kind
    shape = plan.shape_of(json.loads((trained.folder / "config.json").read_text()))
    own = type(config)()  # the defaults: what keys add is not of the method
    for tensor in trainable_tensors(own, shape):
        assert tensor.part.rstrip("s") in row.trains


def test_what_does_not_work_on_4_bits_is_refused_there(tiny_folder: Path) -> None:
    for config in CASES.values():
        if not ROWS[config.name].four_bit:  # the others are trained on it by the tests above
            with pytest.raises(QtuneError):
                attached(load(tiny_folder, "nf4").model, config)


def test_it_starts_as_the_base_or_says_so(trained: Trained) -> None:
    same = torch.equal(trained.start_logits, trained.plain_logits)
    if any(getattr(part, "use_dora", False) for part in parts_of(trained.config)):
        # g = m / ||W|| is 1 up to rounding.
        same = torch.allclose(trained.start_logits, trained.plain_logits, atol=1e-6)
    assert same == trained.method.identity_at_start


def test_the_base_keeps_its_bytes(trained: Trained) -> None:
    assert trained.untouched


def test_the_loss_falls(trained: Trained) -> None:
    assert trained.losses[-1] < 0.98 * trained.losses[0]
    assert not torch.equal(trained.logits, trained.start_logits)


def test_it_trains_what_the_plan_counts(trained: Trained) -> None:
    asked = Recipe(
        model=ModelSection(name_or_path=str(trained.folder)),
        data=DataSection(train=(SourceSection(path="-"),)),
        method=trained.config,
    )
    shape = shape_for(asked)
    own = trained.method.parameters()
    count = sum(parameter.numel() for parameter in own.values())
    assert count == plan.trainable_parameters(trained.config, shape)
    open_ones = {id(tensor) for tensor in trained.base.model.parameters() if tensor.requires_grad}
    assert open_ones == {id(parameter) for parameter in own.values()}
    assert all(parameter.dtype == torch.float32 for parameter in own.values())


def test_gradients_are_finite_and_everywhere(trained: Trained) -> None:
    model = trained.base.model
    # newer versions of transformers renamed it
    new = hasattr(model, "is_activation_checkpointing")
    assert model.is_activation_checkpointing if new else model.is_gradient_checkpointing
    model.train()
    model(**batch()).loss.backward()
    for name, parameter in trained.method.parameters().items():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name
        parameter.grad = None


def test_each_parameter_is_in_one_group(trained: Trained) -> None:
    groups = trained.method.param_groups(learning_rate=1e-3, weight_decay=0.1)
    grouped = [id(tensor) for group in groups for tensor in group["params"]]
    assert sorted(grouped) == sorted(id(one) for one in trained.method.parameters().values())
    for group in groups:
        assert group["lr"] >= 1e-3
        assert group["params"]
        if group["weight_decay"]:
            assert all(tensor.ndim == 2 for tensor in group["params"])


def test_save_and_load_is_exact(trained: Trained, tmp_path: Path) -> None:
    save(tmp_path / "a", trained.method, base_model="tiny", base_fingerprint="0123")
    fresh = load(trained.folder, trained.kind)
    again = read(tmp_path / "a").attach(fresh.model, base_fingerprint="0123")
    assert torch.equal(logits(fresh.model), trained.logits)
    ours, theirs = trained.method.adapter_state(), again.adapter_state()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    # The file speaks of the same thing when it is written again.
    assert again.peft_config() == trained.method.peft_config()


def test_disabled_is_the_base(trained: Trained) -> None:
    with trained.method.disabled():
        assert torch.equal(logits(trained.base.model), trained.plain_logits)
        with trained.method.disabled():
            pass
        assert torch.equal(logits(trained.base.model), trained.plain_logits)
    assert torch.equal(logits(trained.base.model), trained.logits)


def test_swapping_adapters_and_back_is_exact(trained: Trained) -> None:
    own = trained.method.adapter_state()
    randomise(trained.method)
    other = trained.method.adapter_state()
    other_logits = logits(trained.base.model)
    trained.method.load_adapter(own)
    assert torch.equal(logits(trained.base.model), trained.logits)
    trained.method.load_adapter(other)
    assert torch.equal(logits(trained.base.model), other_logits)
    trained.method.load_adapter(own)


def test_detaching_gives_the_base_back(trained: Trained) -> None:
    model = trained.base.model
    before = trained.method.adapter_state()
    trained.method.detach()
    try:
        assert torch.equal(logits(model), trained.plain_logits)
        assert not any(tensor.requires_grad for tensor in model.parameters())
    finally:
        again = create(trained.config, seed=0)
        again.attach(model)
        again.load_adapter(before)
        trained.method = again
    assert torch.equal(logits(model), trained.logits)


def test_the_merged_model_is_the_attached_one(trained: Trained) -> None:
    tensors = trained.method.adapter_state()
    if not all(ROWS[part.name].merges for part in parts_of(trained.config)):
        with pytest.raises(CannotMerge) as refused:
            type(trained.method).merge_edits(trained.config, tensors)
        assert refused.value.faults[0].hint
        return
    edits = type(trained.method).merge_edits(trained.config, tensors)
    edits = {k: edit for k, edit in edits.items() if k in trained.dense or not edit.optional}
    merged = dict(trained.dense)
    for name, edit in edits.items():
        assert name in trained.dense or edit.may_create
        merged[name] = edit.apply(trained.dense.get(name) if edit.needs_base else None)
        assert merged[name].dtype == torch.float32
    config = json.loads((trained.folder / "config.json").read_text())
    told = type(trained.method).merged_config(trained.config, config)
    changed = {key: value for key, value in told.items() if value != config.get(key)}
    found = logits(dense_model(merged, **changed))
    assert (found - trained.logits).abs().max() <= 1e-5
    assert (found - trained.plain_logits).abs().max() > 1e-2
    assert set(edits) == {name for name in merged if not _same(merged, trained.dense, name)}


def _same(merged: dict[str, Tensor], dense: dict[str, Tensor], name: str) -> bool:
    return name in dense and torch.equal(merged[name], dense[name])


def test_the_start_depends_on_the_seed_alone(trained: Trained) -> None:
    states = []
    for seed, noise in ((7, 1), (7, 2), (8, 1)):
        torch.manual_seed(noise)
        fresh = load(trained.folder, trained.kind)
        states.append(attached(fresh.model, trained.config, seed=seed).adapter_state())
    first, same, other = states
    assert all(torch.equal(first[name], same[name]) for name in first)
    # which start at zero, at one, as the base, or by a key of their own
    if not all(part.name in ("bitfit", "peft", "selective") for part in parts_of(trained.config)):
        assert any(not torch.equal(first[name], other[name]) for name in first)
