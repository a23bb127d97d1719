"""Any tuner of PEFT as a method: PEFT computes, names, saves and folds; the rest is qtune's.

The one file that imports PEFT, and only when a recipe or an adapter asks for it (qtune[peft]).
"""

from __future__ import annotations

import enum
import warnings
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from qtune.errors import ModelError, UsageError
from qtune.methods import peft_format
from qtune.methods.adapter import refuse_attached
from qtune.methods.base import CannotMerge, Edit, Method, groups_by_decay
from qtune.methods.peft_format import INFORMATION, module_of
from qtune.methods.strict import refuse_differences
from qtune.ops.nf4 import is_quantized
from qtune.recipe.methods import BridgeConfig
from qtune.recipe.peft_types import ONLY_16_BIT, UNMERGED

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

NAME = "default"  # of the adapter inside PEFT
_OURS = ("modules_to_save", "trainable_token_indices")
_SHARED = {"VERA": ("vera_A", "vera_B"), "PVERA": ("pvera_A", "pvera_B")}
"""Projections that all layers share: first [r, widest input], second [widest output, r]."""
_STARTS_ELSEWHERE = ("C3A", "DEFT", "FOURIERFT", "HRA", "OSF", "UNILORA", "VBLORA")


class _Holder(nn.Module):
    """Gives a tuner's tensors the names that PEFT's own wrapper gives them."""

    def __init__(self, tuner: nn.Module) -> None:
        super().__init__()
        self.base_model = tuner
        self.peft_config = tuner.peft_config


class Bridge(Method):
    """One tuner of PEFT, named by its type, with PEFT's keys."""

    name: ClassVar[str] = "peft"
    config: BridgeConfig

    def __init__(self, config: BridgeConfig, *, seed: int) -> None:
        super().__init__(config, seed=seed)
        self.peft_type = config.type  # type: ignore[misc]
        self.identity_at_start = config.type not in _STARTS_ELSEWHERE  # type: ignore[misc]
        self._off = 0

    def attach(self, model: nn.Module, *, tokenizer: Any = None) -> None:  # noqa: ARG002
        """Let PEFT put its layers in, drawn from the seed; they are in fp32."""
        refuse_attached(model)
        if any(is_quantized(module) for module in model.modules()):
            _refuse_quantized(self.config.type)
        self._model = model
        with torch.random.fork_rng(), _described(model):
            torch.manual_seed(self.seed)
            self._holder = _inject(model, self.config.type, self.config.config)
        for module in model.modules():
            if isinstance(module, _library().tuners.tuners_utils.BaseTunerLayer):
                module.register_forward_hook(_as_given)  # goes with the layer
            if isinstance(module, _library().tuners._buffer_dict.BufferDict):
                for key in list(module.keys()):
                    module[key] = module[key].float()  # as what trains beside it
        self._own: dict[str, nn.Parameter] = {}
        for name, parameter in self._holder.named_parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
                self._own[name.replace(f".{NAME}", "", 1)] = parameter

    def detach(self) -> None:
        """Let PEFT take its layers out."""
        self._holder.base_model.unload()  # type: ignore[operator]
        vars(self._model).pop("peft_config", None)
        self._own = {}

    def parameters(self) -> dict[str, nn.Parameter]:
        """What PEFT trains, by its names."""
        return dict(self._own)

    def param_groups(self, *, learning_rate: float, weight_decay: float) -> list[dict[str, Any]]:
        """Matrices with weight decay, scales and biases without, whatever their shape."""
        vectors = {id(each) for each in self._own.values() if each.squeeze().ndim < 2}
        groups = []
        for flat in (False, True):
            chosen = [each for each in self._own.values() if (id(each) in vectors) == flat]
            decay = 0.0 if flat else weight_decay
            groups += groups_by_decay(chosen, learning_rate=learning_rate, weight_decay=decay)
        return groups

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """Without PEFT's layers; what trains trains again afterwards."""
        tuner: Any = self._holder.base_model
        self._off += 1
        tuner.disable_adapter_layers()
        try:
            yield
        finally:
            self._off -= 1
            if not self._off:
                tuner.enable_adapter_layers()
                for parameter in self._own.values():
                    parameter.requires_grad_()

    def adapter_state(self) -> dict[str, Tensor]:
        """What PEFT's file holds; contiguous copies on the CPU."""
        # what layers share has the name of each of them, too
        found: dict[str, Tensor] = dict(self._holder.named_parameters(remove_duplicate=False))
        found |= dict(_saved_buffers(self._holder))
        chosen = _library().get_peft_model_state_dict(
            self._holder, state_dict=found, adapter_name=NAME, save_embedding_layers=False
        )
        return {
            name: tensor.detach().to("cpu", copy=True).contiguous()
            for name, tensor in chosen.items()
        }

    def load_adapter(self, tensors: Mapping[str, Tensor]) -> None:
        """Take other weights; `ModelError` lists foreign, missing and misshapen names."""
        refuse_differences(self.adapter_state(), tensors, what="adapter")
        _fill(self._holder, tensors)

    def peft_config(self) -> dict[str, Any]:
        """PEFT's own config, with what it resolved by itself."""
        given = self._holder.peft_config[NAME].to_dict()  # type: ignore[index, union-attr]
        values = {key: _json(value) for key, value in given.items()}
        return {**values, **peft_format.header(self.config.type)}

    @classmethod
    def config_from_peft(cls, config: dict[str, Any]) -> BridgeConfig:
        """The type and every key that is set; PEFT checks them."""
        values = {k: v for k, v in config.items() if k not in INFORMATION and v is not None}
        kind = config.get("peft_type")
        return peft_format.section(BridgeConfig, {"type": kind, "config": values})

    @classmethod
    def merge_edits(
        cls,
        config: BridgeConfig,
        tensors: Mapping[str, Tensor],
        *,
        fan_in_fan_out: bool = False,
    ) -> dict[str, Edit]:
        """PEFT's own fold of each layer, alone on its dense weight; `CannotMerge` and why."""
        kind = config.type
        if kind in UNMERGED or fan_in_fan_out:
            reason = UNMERGED.get(kind, "the base holds its weights transposed")
            raise CannotMerge(
                f"{kind} is not folded: {reason}",
                hint="keep the adapter folder beside the base; qtune eval and generate load both",
            )
        edits: dict[str, Edit] = {}
        for module, own in _by_module(kind, tensors).items():
            if kind == "LN_TUNING":
                for name, tensor in own.items():
                    end = name.rpartition(".")[2]
                    edits[f"{module}.{end}"] = Edit(False, partial(_instead, tensor))
                continue
            fold = partial(_folded, config, module, {**own, **_shared(kind, tensors)})
            edits[f"{module}.weight"] = Edit(True, fold)
            if kind in ("IA3", "ROAD"):
                edits |= _bias_edit(config, module, own)
        return edits


def _library() -> Any:
    """PEFT; `UsageError` where it is not installed."""
    try:
        import peft
    except ImportError as error:
        raise UsageError(
            "PEFT is not installed", place="method.name", hint="pip install 'qtune[peft]'"
        ) from error
    return peft


def _inject(model: nn.Module, kind: str, keys: Mapping[str, Any]) -> _Holder:
    """PEFT's layers in a model; `UsageError` with PEFT's words for keys that do not fit."""
    peft = _library()
    for key in _OURS:
        if keys.get(key):
            raise UsageError(
                f"{key} is not read by the bridge",
                place=f"method.config.{key}",
                hint="method lora trains whole modules",
            )
    try:
        config = peft.mapping.PEFT_TYPE_TO_CONFIG_MAPPING[kind](**keys)
        # PEFT resolves all-linear and its defaults for a family in the config it is given
        tuner = peft.mapping.PEFT_TYPE_TO_TUNER_MAPPING[kind](model, config, NAME)
    except (TypeError, ValueError, KeyError, AttributeError, RuntimeError) as error:
        said = " ".join(str(error).split())[:200]
        raise UsageError(f"PEFT's {kind} says: {said}", place="method.config") from error
    return _Holder(tuner)


def _as_given(_: nn.Module, given: tuple[Any, ...], output: Any) -> Any:
    """A layer's output in the dtype of its input, which fp32 factors lift in some tuners."""
    if isinstance(output, Tensor) and given and given[0].is_floating_point():
        return output.to(given[0].dtype)
    return output


@contextmanager
def _described(model: Any) -> Iterator[None]:
    """A model that tells PEFT how its linears are held, and PEFT without its warnings."""
    added = [
        key
        for key, kind in (
            ("is_loaded_in_4bit", "Linear4bit"),
            ("is_loaded_in_8bit", "Linear8bitLt"),
        )
        if not getattr(model, key, False)
        and any(type(module).__name__ == kind for module in model.modules())
    ]
    for key in added:
        setattr(model, key, True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for key in added:
            delattr(model, key)


def _fill(holder: _Holder, tensors: Mapping[str, Tensor]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = _library().set_peft_model_state_dict(holder, dict(tensors), adapter_name=NAME)
    left = [name for name in found.unexpected_keys if NAME in name]
    if left:
        raise ModelError(f"PEFT has no place for {left[0]}")


def _saved_buffers(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The buffers of a state dict, whose own making would pack every quantised weight."""
    for prefix, module in model.named_modules(remove_duplicate=False):
        for key, buffer in module._buffers.items():
            if buffer is not None and key not in module._non_persistent_buffers_set:
                yield f"{prefix}.{key}", buffer


def _refuse_quantized(kind: str) -> None:
    if kind in ONLY_16_BIT:
        raise UsageError(
            f"{kind} cannot be on a quantised base: {ONLY_16_BIT[kind]}",
            place="method.type",
            hint="set quantization.bits: 16",
        )


def _json(value: Any) -> Any:
    """As a JSON file gives it back: sets in order, names instead of enums."""
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, set | frozenset):
        return sorted(value)
    return list(value) if isinstance(value, tuple) else value


def _by_module(kind: str, tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Tensors by the module of the base that they are for; shared ones left out."""
    prefix = _library().mapping.PEFT_TYPE_TO_PREFIX_MAPPING[kind]
    found: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        module, dot, _ = name.partition(f".{prefix}")
        if dot and module.startswith(peft_format.PREFIX):
            found.setdefault(module_of(module), {})[name] = tensor
    return found


def _shared(kind: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    ends = (*_SHARED.get(kind, ()), "vblora_vector_bank")
    return {name: tensor for name, tensor in tensors.items() if name.endswith(ends)}


def _folded(
    config: BridgeConfig, module: str, tensors: Mapping[str, Tensor], base: Tensor | None
) -> Tensor:
    """The weight [n, m] that PEFT makes of a base's, of one layer alone."""
    assert base is not None
    layer = nn.Linear(base.shape[1], base.shape[0], bias=False)
    layer.weight = nn.Parameter(base.float().clone(), requires_grad=False)
    folded: Tensor = _fold(config, module, tensors, layer).weight.detach()
    return folded


def _bias_edit(config: BridgeConfig, module: str, own: Mapping[str, Tensor]) -> dict[str, Edit]:
    """How a bias changes with the outputs of its layer, where the base has one."""
    if config.type == "IA3" and next(iter(own.values())).shape[0] == 1:
        return {}  # the layer's inputs are scaled

    def apply(base: Tensor | None) -> Tensor:
        assert base is not None
        layer = nn.Linear(1 if config.type == "IA3" else len(base), len(base))
        layer.bias = nn.Parameter(base.float().clone(), requires_grad=False)
        folded: Tensor = _fold(config, module, own, layer).bias.detach()
        return folded

    return {f"{module}.bias": Edit(True, apply, optional=True)}


def _fold(
    config: BridgeConfig, module: str, tensors: Mapping[str, Tensor], layer: nn.Linear
) -> Any:
    """A layer with its adapter merged, in a model of nothing else."""
    model = nn.Module()
    parent = model
    *path, last = module.split(".")
    for step in path:
        parent.add_module(step, nn.Module())
        parent = parent.get_submodule(step)
    parent.add_module(last, layer)
    keys = {k: v for k, v in config.config.items() if k not in _PLACES}
    keys["target_modules"] = [module]
    if config.type == "IA3":
        inputs = next(iter(tensors.values())).shape[0] == 1
        keys["feedforward_modules"] = [module] if inputs else []
    if config.type in _SHARED:
        # the shared projections are as large as the largest layer
        first, second = (
            next(tensor for name, tensor in tensors.items() if name.endswith(end))
            for end in _SHARED[config.type]
        )
        model.add_module("largest", nn.Linear(first.shape[1], second.shape[0], bias=False))
        keys["target_modules"] = [module, "largest"]
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        holder = _inject(model, config.type, keys)
    _fill(holder, tensors)
    holder.base_model.merge_and_unload()  # type: ignore[operator]
    return model.get_submodule(module)


_PLACES = ("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern")


def _instead(tensor: Tensor, base: Tensor | None) -> Tensor:  # noqa: ARG001
    return tensor.float().clone()
