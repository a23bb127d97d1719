"""Four policies, one gradient; and each keeps what it says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoConfig, AutoModelForCausalLM

from qtune import methods, models
from qtune.models import activations
from qtune.recipe.inputs import ModelSection, QuantizationSection
from qtune.recipe.methods import LoraConfig
from tests.tiny import save_tiny, tiny_llama

if TYPE_CHECKING:
    from pathlib import Path

    from qtune.recipe.steps import ActivationPolicy

LAYERS = 3
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama"},
    "qwen3": {"model_type": "qwen3", "head_dim": 16},
    "gemma2": {"model_type": "gemma2", "head_dim": 16},
    "gpt2": {"model_type": "gpt2", "n_embd": 64, "n_layer": LAYERS, "n_head": 4},
    "gpt_neox": {"model_type": "gpt_neox"},
    "phi3": {"model_type": "phi3", "pad_token_id": 2},
}
SIZES = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 320,
    "max_position_embeddings": 128,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("activations")
    save_tiny(folder / "llama", tiny_llama(num_hidden_layers=LAYERS))
    for name, config in FAMILIES.items():
        torch.manual_seed(1)
        sizes = {} if name == "gpt2" else SIZES
        made = AutoConfig.for_model(**(sizes | {"vocab_size": 320} | config))
        attention = "eager" if name == "gemma2" else "sdpa"
        network = AutoModelForCausalLM.from_config(made, attn_implementation=attention)
        save_tiny(folder / name, network)
    return folder


def _model(
    folder: Path, family: str, policy: ActivationPolicy, *, bits: int = 4, dtype: str = "float32"
) -> tuple[Any, Any]:
    base = models.load(
        ModelSection(
            name_or_path=str(folder / family),
            attn_implementation="eager" if family == "gemma2" else "sdpa",
        ),
        QuantizationSection(bits=bits, compute_dtype=dtype),
        device=torch.device("cpu"),
        activations="none",
    )
    method = methods.create(LoraConfig(rank=4, alpha=8.0, dropout=0.2), seed=0)
    method.attach(base.model)
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in method.parameters().values():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=draw))
    activations.use(base.model, policy)
    base.model.train()
    return base.model, method


def _gradients(model: Any, method: Any) -> tuple[float, dict[str, torch.Tensor]]:
    ids = torch.randint(3, 300, (2, 24), generator=torch.Generator().manual_seed(4))
    torch.manual_seed(6)
    loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    return float(loss.detach()), {name: p.grad for name, p in method.parameters().items()}


@pytest.mark.parametrize("policy", ["selective", "layer", "offload"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_policy_gives_the_gradient_of_keeping_all(
    folder: Path, family: str, policy: ActivationPolicy
) -> None:
    loss, plain = _gradients(*_model(folder, family, "none"))
    other, found = _gradients(*_model(folder, family, policy))
    assert other == loss
    assert [name for name in plain if not torch.equal(plain[name], found[name])] == []
    assert any(bool(gradient.any()) for gradient in plain.values())


@pytest.mark.parametrize("policy", ["selective", "layer", "offload"])
@pytest.mark.parametrize(("bits", "dtype"), [(4, "bfloat16"), (16, "float32"), (8, "bfloat16")])
def test_so_it_is_for_other_bases(
    folder: Path, policy: ActivationPolicy, bits: int, dtype: str
) -> None:
    _, plain = _gradients(*_model(folder, "llama", "none", bits=bits, dtype=dtype))
    _, found = _gradients(*_model(folder, "llama", policy, bits=bits, dtype=dtype))
    assert [name for name in plain if not torch.equal(plain[name], found[name])] == []


class _Counting(TorchDispatchMode):
    """Counts operators by name, and knows the memory that their results hold."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: dict[str, int] = {}
        self.storages: WeakSet[Any] = WeakSet()

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: Any = (), keywords: Any = None
    ) -> Any:
        del types
        name = function.name().partition(".")[0]
        self.counts[name] = self.counts.get(name, 0) + 1
        result = function(*arguments, **(keywords or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self.storages.add(tensor.untyped_storage())
        return result

    def alive(self) -> int:
        """Bytes of the results that something still holds."""
        return sum({storage.data_ptr(): storage.nbytes() for storage in self.storages}.values())


def _counts(folder: Path, policy: ActivationPolicy) -> dict[str, int]:
    model, method = _model(folder, "llama", policy)
    with _Counting() as mode:
        _gradients(model, method)
    return mode.counts


def test_selective_multiplies_no_matrix_twice_and_layer_each(folder: Path) -> None:
    none, selective, layer = (_counts(folder, name) for name in ("none", "selective", "layer"))
    forward = "bitsandbytes::gemm_4bit"
    assert selective[forward] == none[forward] == 7 * LAYERS
    assert layer[forward] == 2 * none[forward]
    # only the adapters' B is made again, but for a layer's last, whose product nothing needs
    assert selective["aten::mm"] == none["aten::mm"] + 6 * LAYERS
    assert layer["aten::mm"] == none["aten::mm"] + 13 * LAYERS
    assert selective["aten::silu"] == layer["aten::silu"] == 2 * none["aten::silu"]
    attention = "aten::_scaled_dot_product_flash_attention_for_cpu"
    assert (none[attention], selective[attention], layer[attention]) == (LAYERS, LAYERS, 2 * LAYERS)


def _alive(folder: Path, policy: ActivationPolicy) -> int:
    """Bytes that the forward pass has left when the backward is about to begin."""
    model, _ = _model(folder, "llama", policy)
    ids = torch.randint(3, 300, (2, 96), generator=torch.Generator().manual_seed(4))
    with _Counting() as mode:
        loss = model(input_ids=ids).logits.float().mean()
    assert loss.requires_grad
    return mode.alive()


def test_the_policies_keep_less_and_less(folder: Path) -> None:
    none, selective, layer = (_alive(folder, name) for name in ("none", "selective", "layer"))
    assert layer < 0.35 * none
    assert layer < selective < 0.8 * none


def test_no_policy_leaves_the_model_as_it_is(folder: Path) -> None:
    model, _ = _model(folder, "llama", "none")
    assert not any(getattr(m, "gradient_checkpointing", False) for m in model.modules())
