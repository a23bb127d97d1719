"""Tiny bases, NF4 and plain, a batch to learn, and every method in its variants."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from qtune import models
from qtune.methods import create
from qtune.ops.linears import linear_modules
from qtune.ops.nf4 import weight_of
from qtune.recipe.inputs import ModelSection, QuantizationSection
from qtune.recipe.methods import (
    AdaloraConfig,
    BitfitConfig,
    BottleneckConfig,
    BridgeConfig,
    CombinationConfig,
    DeltaLoraConfig,
    DyloraConfig,
    LongLoraConfig,
    LoraConfig,
    LoraFaConfig,
    MethodConfig,
    PrefixConfig,
    PromptConfig,
    PTuningConfig,
    QuantumConfig,
    RosaConfig,
    SelectiveConfig,
)
from qtune.recipe.steps import ActivationPolicy
from tests.tiny import tiny_llama

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

    from qtune.methods.base import Method
    from qtune.models import Base

KINDS = {
    "nf4": QuantizationSection(compute_dtype="float32"),
    "fp32": QuantizationSection(bits=16, compute_dtype="float32"),
    "part": QuantizationSection(
        compute_dtype="float32",
        skip_modules=(
            *(f"layers.1.self_attn.{end}_proj" for end in "qkvo"),
            *(f"layers.1.mlp.{end}_proj" for end in ("gate", "up", "down")),
        ),
    ),
}
"""How the base is held; part: NF4 but for the last layer, as for what trains there."""
CASES: dict[str, MethodConfig] = {
    "lora": LoraConfig(rank=4, alpha=8.0, dropout=0.1),
    "rslora": LoraConfig(rank=4, alpha=8.0, dropout=0.0, use_rslora=True, loraplus_ratio=4.0),
    "dora": LoraConfig(rank=4, alpha=8.0, dropout=0.0, use_dora=True),
    "patterns": LoraConfig(
        rank=4,
        alpha=8.0,
        dropout=0.0,
        target_modules=("q_proj", "v_proj", "down_proj"),
        rank_pattern={"down_proj": 2, r"layers\.1\.self_attn\..*": 6},
        alpha_pattern={"v_proj": 3.0},
    ),
    "saved": LoraConfig(
        rank=4, alpha=8.0, dropout=0.0, modules_to_save=("lm_head", "embed_tokens", "model.norm")
    ),
    "one-layer": LoraConfig(
        rank=2,
        alpha=4.0,
        dropout=0.0,
        target_modules=r".*\.(q|o)_proj",
        exclude_modules=("q_proj",),
        layers_to_transform=(1,),
    ),
    "lora_fa": LoraFaConfig(rank=4, alpha=8.0, dropout=0.1),
    "dylora": DyloraConfig(rank=4, alpha=8.0, dropout=0.1, min_rank=2),
    "delta_lora": DeltaLoraConfig(rank=4, alpha=8.0, warmup_steps=3, use_rslora=True),
    "rosa": RosaConfig(
        rank=4,
        alpha=8.0,
        dropout=0.1,
        density=0.03,
        warmup_steps=3,
        sparse_lr_ratio=1.0,
        modules_to_save=("model.norm",),
    ),
    "adalora": AdaloraConfig(rank=6, target_rank=3, alpha=8.0, dropout=0.1),
    "bitfit": BitfitConfig(exclude_modules=("down_proj",)),
    "quantum": QuantumConfig(rank=4, circuit_layers=2),
    "taylor": QuantumConfig(rank=4, form="taylor", intrinsic_rank=3, exclude_modules=("k_proj",)),
    "prompt": PromptConfig(num_virtual_tokens=5),
    "p_tuning": PTuningConfig(num_virtual_tokens=5, encoder_width=32),
    "lstm": PTuningConfig(num_virtual_tokens=5, encoder="lstm", encoder_width=16),
    "prefix": PrefixConfig(num_virtual_tokens=5),
    "pfeiffer": BottleneckConfig(width=8),
    "houlsby": BottleneckConfig(placement="houlsby", width=4, activation="gelu"),
    "parallel": BottleneckConfig(placement="parallel", width=8, layers_to_transform=(1,)),
    "selective": SelectiveConfig(parts=("norm", "embedding", "head")),
    "last-layer": SelectiveConfig(
        parts=("attention", "mlp", "norm"), layers_to_transform="last:1", types=("weight",)
    ),
    "long_lora": LongLoraConfig(rank=4, alpha=8.0, dropout=0.0, group_share=0.5),
    "longer": LongLoraConfig(
        rank=4, alpha=8.0, dropout=0.0, rope_factor=2.0, train_embeddings=False
    ),
    "ia3": BridgeConfig(type="IA3"),
    "vera": BridgeConfig(type="VERA", config={"r": 8, "target_modules": ["q_proj", "down_proj"]}),
    "lora+bitfit": CombinationConfig(
        parts=(BitfitConfig(), LoraConfig(rank=4, alpha=8.0, dropout=0.0, use_dora=True))
    ),
    "lora+lora": CombinationConfig(
        parts=(
            LoraConfig(rank=4, alpha=8.0, dropout=0.0, modules_to_save=("model.norm",)),
            DyloraConfig(rank=2, alpha=8.0, dropout=0.0, target_modules=("q_proj",)),
        )
    ),
    "lora+prefix": CombinationConfig(
        parts=(
            LoraConfig(rank=4, alpha=8.0, dropout=0.1),
            PrefixConfig(num_virtual_tokens=3),
            BottleneckConfig(placement="houlsby", width=4),
        )
    ),
}
RATES = {
    "adalora": 3e-2,
    "one-layer": 5e-2,
    "bitfit": 3e-2,
    "ia3": 1e-1,
    "vera": 1e-1,
    "prompt": 2e-1,
    "selective": 2e-2,
    "last-layer": 1e-2,
    "p_tuning": 2e-2,
    "lstm": 2e-2,
    "prefix": 1e-1,
    "pfeiffer": 3e-2,
    "houlsby": 3e-2,
    "parallel": 3e-2,
}


def load(folder: Path, kind: str, *, activations: ActivationPolicy = "none") -> Base:
    """A fresh frozen base in train mode."""
    return models.load(
        ModelSection(name_or_path=str(folder)),
        KINDS[kind],
        device=torch.device("cpu"),
        activations=activations,
    )


def attached(model: Any, config: MethodConfig, *, seed: int = 0) -> Method:
    """The method on the model."""
    method = create(config, seed=seed)
    method.attach(model)
    return method


def batch() -> dict[str, Tensor]:
    """Three rows of different length, padded on the right."""
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(3, 320, (3, 12), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, 9:] = 0
    mask[2, 5:] = 0
    ids[mask == 0] = 2
    return {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, -100)}


def logits(model: nn.Module) -> Tensor:
    """Logits at the real tokens of the batch, in eval mode and without gradients."""
    model.eval()
    data = batch()
    with torch.no_grad():
        out = model(input_ids=data["input_ids"], attention_mask=data["attention_mask"]).logits
    assert out.shape[:2] == data["input_ids"].shape
    return out[data["attention_mask"] == 1]


def train(model: nn.Module, method: Method, *, rate: float, steps: int = 15) -> list[float]:
    """The losses of some steps on the batch, with AdamW over the method's own groups."""
    torch.manual_seed(0)
    optimizer = torch.optim.AdamW(method.param_groups(learning_rate=rate, weight_decay=0.0))
    return take_steps(model, method, optimizer, range(1, steps + 1))


def take_steps(
    model: nn.Module, method: Method, optimizer: torch.optim.Optimizer, numbers: range
) -> list[float]:
    """The losses of the steps of these numbers on the batch."""
    model.train()
    losses = []
    for step in numbers:
        method.before_step(step)
        loss = model(**batch()).loss
        loss.backward()
        method.after_backward(step)
        optimizer.step()
        method.after_step(step)
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def randomise(method: Method, *, seed: int = 5) -> None:
    """Another adapter of the same shape: every trained tensor moved by noise."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in method.parameters().values():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))


def frozen_bytes(model: nn.Module, method: Method) -> dict[int, bytes]:
    """The raw bytes of every frozen tensor, quantisation constants included, by identity."""
    kept = {}
    own = {id(parameter) for parameter in method.parameters().values()}  # which may train later
    for parameter in model.parameters():
        if not parameter.requires_grad and id(parameter) not in own:
            kept[id(parameter)] = _raw(parameter)
            state = getattr(parameter, "quant_state", None)
            if state is not None:
                kept[id(state)] = _raw(state.absmax) + _raw(state.state2.absmax)
    return kept


def _raw(tensor: Tensor) -> bytes:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def dense_state(model: nn.Module) -> dict[str, Tensor]:
    """The base as dense fp32 tensors [out, in], by parameter name; call it before attaching."""
    state = {name: tensor.detach() for name, tensor in model.named_parameters()}
    state |= {f"{name}.weight": weight_of(module) for name, module in linear_modules(model).items()}
    return {name: tensor.float().clone() for name, tensor in state.items()}


def dense_model(state: dict[str, Tensor], **changed: Any) -> nn.Module:
    """A plain model from a dense state; biases make the config that provides for them."""
    biased = any(name.endswith(".bias") for name in state)
    model = tiny_llama(attention_bias=biased, mlp_bias=biased, **changed)
    if biased:
        for name, parameter in model.named_parameters():
            if name.endswith(".bias") and name not in state:
                state = {**state, name: torch.zeros_like(parameter)}
    model.load_state_dict(state)
    return model
