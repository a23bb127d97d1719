"""What the loader makes of a base: its empty network, its files, and which goes where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from qtune.methods.base import CannotMerge
from qtune.models.loading import Checkpoint
from qtune.models.names import check_shapes, match
from qtune.models.prequantized import Packed, check_config
from qtune.models.shards import DTYPES
from qtune.models.skeleton import build, exchange, quantizable
from qtune.models.writing import TensorSpec
from qtune.plan import read_config

if TYPE_CHECKING:
    from pathlib import Path

    from qtune.recipe.inputs import ModelSection, QuantizationSection

BIAS_SWITCHES = ("attention_bias", "mlp_bias")


@dataclass(frozen=True)
class Blueprint:
    """A base model without its weights."""

    network: Any
    """The loader's network on the meta device, quantised layers in place."""
    config: dict[str, Any]
    checkpoint: Checkpoint
    packed: Packed
    """Weights that the checkpoint itself stores quantised."""
    shapes: dict[str, tuple[int, ...]]
    """Dense shapes by the checkpoint's names."""
    stored: dict[str, str]
    """The model's name -> the checkpoint's, as the tensors lie in the files."""
    parameters: frozenset[str]
    """The model's names of its parameters, tied ones too; buffers are copied as they are."""
    new: dict[str, tuple[int, ...]]
    """A classifier's heads that nothing is stored for."""
    tied: dict[str, str]
    """Tied parameter -> the one that holds its values."""

    def spec(self, name: str, *, dense: torch.dtype) -> TensorSpec:
        """Shape and dtype of a stored tensor; `dense` is the dtype of a packed one."""
        origin = self.stored[name]
        shape = self.shapes[origin]
        if origin in self.packed.weights:
            return TensorSpec(name, shape, dense)
        return TensorSpec(name, shape, DTYPES[self.checkpoint.table[origin]["dtype"]])


def blueprint(folder: Path, section: ModelSection, quantization: QuantizationSection) -> Blueprint:
    """Take the loader's own steps up to the first weight."""
    config = read_config(folder)
    checkpoint = Checkpoint(folder)
    packed = checkpoint.packed(expected=check_config(config, quantization))
    network = build(folder, section, dtype=getattr(torch, quantization.compute_dtype))
    parameters = frozenset(_shapes(network))
    pairs = match(network, checkpoint.weights(packed))
    if pairs.fused:
        raise CannotMerge(
            f"{type(network).__name__} stores some weights in pieces that are fused when loaded",
            hint="keep the adapter beside the base",
        )
    shapes = checkpoint.dense_shapes(packed)
    check_shapes(network, pairs.names, shapes)
    names = [pairs.names[weight].removesuffix(".weight") for weight in packed.weights]
    exchange(network, names or quantizable(network, quantization), quantization)
    return Blueprint(
        network=network,
        config=config,
        checkpoint=checkpoint,
        packed=packed,
        shapes=shapes,
        stored={
            pairs.names[name]: name
            for _, names in checkpoint.in_order(pairs.names)
            for name in names
        },
        parameters=parameters,
        new={name: shape for name, shape in _shapes(network).items() if name in pairs.new},
        tied={
            name: source
            for name, source in network.all_tied_weights_keys.items()
            if name in parameters
        },
    )


def with_biases(
    folder: Path, known: Blueprint, wanted: set[str]
) -> tuple[dict[str, bool], dict[str, tuple[int, ...]]]:
    """Config switches that give the model the `wanted` biases, and every bias they bring."""
    switches: dict[str, bool] = {}
    brought: dict[str, tuple[int, ...]] = {}
    for switch in BIAS_SWITCHES:
        added = _added_by(folder, known, switch)
        if wanted & added.keys():
            switches[switch] = True
            brought |= added
    return switches, brought


def _added_by(folder: Path, known: Blueprint, switch: str) -> dict[str, tuple[int, ...]]:
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    if getattr(config, switch, None) is not False:
        return {}
    setattr(config, switch, True)
    with torch.device("meta"):
        # every family and machine has eager attention, and shapes do not depend on it
        larger = AutoModelForCausalLM.from_config(
            config, attn_implementation="eager", trust_remote_code=False
        )
    return {name: shape for name, shape in _shapes(larger).items() if name not in known.parameters}


def _shapes(model: Any) -> dict[str, tuple[int, ...]]:
    """Every parameter with every name it has, tied ones too."""
    return {
        name: tuple(parameter.shape)
        for name, parameter in model.named_parameters(remove_duplicate=False)
    }
