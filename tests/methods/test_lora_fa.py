"""LoRA-FA: A stays, B's steps are those of the whole weight as far as A's rows reach."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from qtune.methods.lora_fa import FrozenDownLinear, LoraFa
from qtune.recipe.methods import LoraConfig, LoraFaConfig
from tests.methods.bases import attached, batch, train
from tests.tiny import tiny_llama

if TYPE_CHECKING:
    from torch import Tensor

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")
CONFIG = LoraFaConfig(rank=4, alpha=8.0, dropout=0.0, rank_pattern={"down_proj": 2})


def layer(method: Any, end: str) -> FrozenDownLinear:
    found = next(each for name, each in method.adapters.items() if name.endswith(end))
    assert isinstance(found, FrozenDownLinear)
    return found


def test_a_stays_and_b_learns() -> None:
    model = tiny_llama().requires_grad_(False)
    method = attached(model, CONFIG)
    before = method.adapter_state()
    losses = train(model, method, rate=1e-2)
    after = method.adapter_state()
    assert losses[-1] < losses[0]
    for name, tensor in before.items():
        assert torch.equal(tensor, after[name]) == name.endswith("lora_A.weight")


@pytest.mark.parametrize("end", ["q_proj", "down_proj"])
def test_a_step_is_the_weights_own_projected_on_the_rows_of_a(end: str) -> None:
    """s * G_corrected A = dL/dW A^T (A A^T)^-1 A, with dL/dW from a weight that trains."""
    model = tiny_llama().requires_grad_(False)
    method = attached(model, CONFIG)
    adapter = layer(method, end)
    weight = adapter.base.weight
    weight.requires_grad_(True)  # type: ignore[operator]
    model(**batch()).loss.backward()
    whole: Tensor = weight.grad  # type: ignore[assignment]
    method.after_backward(1)
    assert adapter.up.grad is not None
    found = adapter.scale * adapter.up.grad @ adapter.down
    down = adapter.down.double()
    projector = down.t() @ torch.linalg.inv(down @ down.t()) @ down
    assert torch.allclose(found.double(), whole.double() @ projector, rtol=1e-4, atol=1e-9)


def test_it_saves_no_input_for_the_backward() -> None:
    """With A frozen, x is not needed: only A x waits."""

    def kept(config: Any) -> int:
        base = nn.Linear(256, 64).requires_grad_(False)
        holder = nn.ModuleDict({"only": base})
        holder.config = None  # type: ignore[assignment]
        adapter = next(iter(attached(holder, config).adapters.values()))
        total = 0

        def pack(tensor: Tensor) -> Tensor:
            nonlocal total
            total += tensor.numel() if tensor.shape[0] == 10 else 0
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            adapter(torch.randn(10, 256))
        return total

    assert kept(LoraConfig(rank=4, dropout=0.0)) == 10 * 256 + 10 * 4
    assert kept(LoraFaConfig(rank=4, dropout=0.0)) == 10 * 4


def test_steps_are_those_of_pefts_optimizer(monkeypatch: pytest.MonkeyPatch) -> None:
    peft = pytest.importorskip("peft")
    # in bf16 the signs of small gradients, and so whole steps of Adam, would be others
    monkeypatch.setattr("peft.optimizers.lorafa.is_bf16_available", lambda: False)
    from peft.optimizers import create_lorafa_optimizer

    ours = tiny_llama().requires_grad_(False)
    method = attached(ours, LoraFaConfig(rank=4, alpha=8.0, dropout=0.0))
    settings = peft.LoraConfig(r=4, lora_alpha=8, lora_dropout=0.0, target_modules="all-linear")
    theirs = peft.get_peft_model(tiny_llama(), settings)
    state = {
        name.replace(".weight", ".default.weight"): tensor
        for name, tensor in method.adapter_state().items()
    }
    theirs.load_state_dict(state, strict=False)
    optimizer = create_lorafa_optimizer(theirs, r=4, lora_alpha=8, lr=1e-2, weight_decay=0.0)
    for group in optimizer.param_groups:
        group["eps"] = 1e-14  # theirs adds it before the bias correction, torch after it
    groups = method.param_groups(learning_rate=1e-2, weight_decay=0.0)
    adam = torch.optim.AdamW(groups, eps=1e-14)
    assert isinstance(method, LoraFa)
    for step in range(1, 6):
        for model, each in ((ours, adam), (theirs, optimizer)):
            loss = model(**batch()).loss
            loss.backward()
            if model is ours:
                method.after_backward(step)
            each.step()
            each.zero_grad()
    found = {name: value for name, value in theirs.named_parameters() if ".lora_B." in name}
    assert found
    for name, value in found.items():
        wanted = method.parameters()[name.replace(".default", "")]
        assert torch.allclose(wanted, value, rtol=1e-3, atol=1e-5), name
