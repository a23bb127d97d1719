"""Fused blocks train as plain ones do: every family, policy and form of adapter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from qtune import methods, models
from qtune.errors import UsageError
from qtune.models.fuse import fuse, unfuse
from qtune.recipe.inputs import ModelSection, QuantizationSection
from qtune.recipe.methods import LoraConfig
from tests.tiny import SIZES, save_tiny

if TYPE_CHECKING:
    from pathlib import Path

FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"attention_bias": True, "mlp_bias": True},
    "mistral": {"sliding_window": 16, "head_dim": 16},
    "qwen2": {},
    "qwen3": {"head_dim": 16},
    "phi3": {"pad_token_id": 2, "bos_token_id": 0, "eos_token_id": 1},
    "gemma": {"head_dim": 16},
    "gemma2": {"head_dim": 16, "sliding_window": 8},
    "gpt2": {"n_embd": 64, "n_layer": 2, "n_head": 4},
}
FORMS: dict[str, dict[str, Any]] = {
    "dropout": {"dropout": 0.3},
    "dora": {"use_dora": True, "dropout": 0.0},
    "rslora": {"use_rslora": True, "dropout": 0.0, "rank_pattern": {"down_proj": 2}},
    "some": {"target_modules": ("q_proj", "v_proj", "up_proj"), "dropout": 0.0},
}
POLICIES = ("none", "selective", "layer", "offload")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuse")
    for name, config in FAMILIES.items():
        torch.manual_seed(1)
        sizes = {"vocab_size": 320} if name == "gpt2" else SIZES
        made = AutoConfig.for_model(name, **(sizes | config))
        attention = "eager" if name == "gemma2" else "sdpa"
        network = AutoModelForCausalLM.from_config(made, attn_implementation=attention)
        for parameter in network.parameters():  # biases and norms away from 0 and 1
            parameter.data.add_(0.02 * torch.randn(parameter.shape))
        save_tiny(folder / name, network)
    return folder


def learner(
    folder: Path,
    family: str,
    *,
    kernels: str,
    policy: str = "none",
    bits: int = 4,
    dtype: str = "float32",
    **form: Any,
) -> tuple[Any, Any, str]:
    """A model in train mode with a moved adapter, the method, and what was said of its kernels."""
    attention = "eager" if family == "gemma2" else "sdpa"
    base = models.load(
        ModelSection(name_or_path=str(folder / family), attn_implementation=attention),
        QuantizationSection(bits=bits, compute_dtype=dtype),
        device=torch.device("cpu"),
        activations=policy,
    )
    method = methods.create(LoraConfig(rank=4, alpha=8.0, **form), seed=0)
    method.attach(base.model)
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in method.parameters().values():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=draw))
    names = list(base.model.state_dict())
    said = fuse(base.model, kernels, policy).line()
    assert list(base.model.state_dict()) == names
    base.model.train()
    return base.model, method, said


def packed(lengths: tuple[int, ...] = (17, 1, 23)) -> dict[str, torch.Tensor]:
    ids = torch.randint(3, 300, (1, sum(lengths)), generator=torch.Generator().manual_seed(4))
    positions = torch.cat([torch.arange(length) for length in lengths])[None]
    return {"input_ids": ids, "position_ids": positions, "labels": ids}


def padded() -> dict[str, torch.Tensor]:
    ids = torch.randint(3, 300, (2, 19), generator=torch.Generator().manual_seed(4))
    mask = torch.ones_like(ids)
    mask[1, 11:] = 0
    labels = ids.masked_fill(mask == 0, -100)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def gradients(model: Any, method: Any, inputs: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    """The loss and every gradient."""
    torch.manual_seed(6)
    loss = model(**inputs, use_cache=False).loss
    loss.backward()
    return [loss.detach(), *(parameter.grad for parameter in method.parameters().values())]


def worst(found: list[torch.Tensor], expected: list[torch.Tensor]) -> float:
    return max(
        float((one.double() - other.double()).norm() / other.double().norm().clamp_min(1e-30))
        for one, other in zip(found, expected, strict=True)
    )


CASES = [
    *((family, "dropout") for family in FAMILIES if family != "gpt2"),
    *(("llama", form) for form in FORMS if form != "dropout"),
]


@pytest.mark.parametrize(("family", "form"), CASES)
def test_every_policy_gives_the_plain_gradients(folder: Path, family: str, form: str) -> None:
    for inputs in (packed(), padded()):
        plain = learner(folder, family, kernels="plain", **FORMS[form])[:2]
        expected = gradients(*plain, inputs)
        for policy in POLICIES:
            model, method, said = learner(
                folder, family, kernels="fused", policy=policy, **FORMS[form]
            )
            assert said.startswith("fused: 2 ")
            assert worst(gradients(model, method, inputs), expected) < 3e-6, policy


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.filterwarnings("ignore:MatMul8bitLt")
def test_other_bases(folder: Path, bits: int) -> None:
    plain = gradients(*learner(folder, "llama", kernels="plain", bits=bits)[:2], packed())
    fused = gradients(*learner(folder, "llama", kernels="fused", bits=bits)[:2], packed())
    assert worst(fused, plain) < 3e-6


def test_one_token(folder: Path) -> None:
    plain = gradients(*learner(folder, "llama", kernels="plain")[:2], packed((2, 1)))
    fused = gradients(*learner(folder, "llama", kernels="fused")[:2], packed((2, 1)))
    assert worst(fused, plain) < 3e-6


def test_bf16_rounds_no_worse_than_plain(folder: Path) -> None:
    settings: dict[str, Any] = {"dropout": 0.0, "bits": 16}
    truth = gradients(*learner(folder, "llama", kernels="plain", **settings)[:2], packed())
    model, method, _ = learner(folder, "llama", kernels="plain", dtype="bfloat16", **settings)
    plain = gradients(model, method, packed())
    model, method, _ = learner(folder, "llama", kernels="fused", dtype="bfloat16", **settings)
    fused = gradients(model, method, packed())
    ours, theirs = (
        sum(worst([one], [other]) for one, other in zip(found, truth, strict=True))
        for found in (fused, plain)
    )
    assert ours <= 1.05 * theirs


def test_fifty_steps_give_the_same_losses(folder: Path) -> None:
    curves = []
    for kernels in ("plain", "fused"):
        model, method, _ = learner(folder, "llama", kernels=kernels, dropout=0.1)
        optimizer = torch.optim.AdamW(method.parameters().values(), lr=3e-3)
        torch.manual_seed(0)
        curve = []
        for _ in range(50):
            loss = model(**packed(), use_cache=False).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            curve.append(float(loss.detach()))
        curves.append(curve)
    plain, fused = curves
    assert plain[-1] < 0.85 * plain[0]
    assert fused == pytest.approx(plain, rel=1e-4)


def test_evaluation_and_a_cache_take_the_plain_way(folder: Path) -> None:
    plain, _, _ = learner(folder, "llama", kernels="plain")
    fused, _, _ = learner(folder, "llama", kernels="fused")
    ids = packed()["input_ids"]
    with torch.no_grad():
        assert torch.equal(plain.eval()(ids).logits, fused.eval()(ids).logits)
        settings: dict[str, Any] = {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 2}
        assert torch.equal(plain.generate(ids, **settings), fused.generate(ids, **settings))
    with_cache = fused(ids, use_cache=True)
    assert with_cache.past_key_values.get_seq_length() == ids.shape[1]


def test_it_is_undone(folder: Path) -> None:
    model, _, _ = learner(folder, "llama", kernels="fused")
    kinds = {type(module).__name__ for module in model.modules()}
    assert {"FusedLlamaMLP", "FusedLlamaAttention"} <= kinds
    unfuse(model)
    assert not any("Fused" in type(module).__name__ for module in model.modules())


def test_plain_stays_plain(folder: Path) -> None:
    model, _, said = learner(folder, "llama", kernels="plain")
    assert not any("Fused" in type(module).__name__ for module in model.modules())
    assert "plain" in said


def test_an_unlisted_family_stays_plain_and_says_so(folder: Path) -> None:
    settings: dict[str, Any] = {"target_modules": ("c_attn",)}
    _, _, said = learner(folder, "gpt2", kernels="auto", **settings)
    assert said == "kernels: plain (GPT2LMHeadModel is no family whose blocks qtune fuses)"
    with pytest.raises(UsageError, match="GPT2LMHeadModel") as refused:
        learner(folder, "gpt2", kernels="fused", **settings)
    assert refused.value.faults[0].place == "memory.kernels"


def test_a_module_trained_whole_leaves_its_block_plain(folder: Path) -> None:
    settings: dict[str, Any] = {"modules_to_save": ("up_proj",), "bits": 16, "dropout": 0.0}
    plain = gradients(*learner(folder, "llama", kernels="plain", **settings)[:2], packed())
    model, method, said = learner(folder, "llama", kernels="fused", **settings)
    assert said == (
        "fused: 2 LlamaAttention, 5 LlamaRMSNorm; 2 LlamaMLP plain "
        "(SavedModule is no linear layer with a low-rank adapter)"
    )
    assert worst(gradients(model, method, packed()), plain) < 3e-6


def test_hooks_leave_a_block_plain(folder: Path) -> None:
    model, _, _ = learner(folder, "llama", kernels="plain")
    model.model.layers[0].mlp.up_proj.register_forward_hook(lambda *_: None)
    said = fuse(model, "auto", "none").line()
    assert "1 LlamaMLP plain (hooks on LoraLinear)" in said


def test_a_subclass_that_computes_otherwise_is_left_plain(folder: Path) -> None:
    model, _, _ = learner(folder, "llama", kernels="plain")
    layer = model.model.layers[0].mlp.up_proj
    layer.__class__ = type("Other", (type(layer),), {"update": lambda _, x: x})
    assert "Other computes something else" in fuse(model, "auto", "none").line()


def test_selective_leaves_no_layer_half_fused(folder: Path) -> None:
    settings: dict[str, Any] = {"modules_to_save": ("up_proj",), "bits": 16, "dropout": 0.0}
    model, _, said = learner(folder, "llama", kernels="auto", policy="selective", **settings)
    assert "2 LlamaAttention plain" in said
    assert not any("Fused" in type(module).__name__ for module in model.model.layers.modules())
    assert all(layer.gradient_checkpointing for layer in model.model.layers)


def _kept(model: Any) -> int:
    """Bytes that the forward pass leaves for the backward one, each memory once."""
    own = {tensor.untyped_storage().data_ptr() for tensor in model.state_dict().values()}
    sizes: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        kept = model(**packed(), use_cache=False).loss
    assert kept.requires_grad
    return sum(sizes.values())


def test_fused_keeps_less(folder: Path) -> None:
    settings: dict[str, Any] = {"dtype": "bfloat16", "dropout": 0.0}
    plain = _kept(learner(folder, "llama", kernels="plain", **settings)[0])
    fused = _kept(learner(folder, "llama", kernels="fused", **settings)[0])
    again = _kept(learner(folder, "llama", kernels="fused", policy="selective", **settings)[0])
    assert fused < 0.6 * plain
    assert again < 0.85 * fused
