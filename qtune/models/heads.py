"""The heads of a classifier: which class has them, how they are held, and how new ones begin."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from qtune.errors import ModelError
from qtune.ops.linears import class_heads
from qtune.plan import sees_images

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from torch import Tensor

log = logging.getLogger(__name__)
SEED = 0  # of new heads: a base without its adapter is the same base each time
_STD = 0.02  # of new weights, where the config names no initializer_range


def classifier_class(config: Any, *, place: str) -> Any:
    """transformers' own classifier of texts, or of images, for a config; `ModelError` where there
    is none."""
    from transformers import (
        MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING,
        MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    )

    of_texts = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING.get(type(config), None)
    found = of_texts or MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING.get(type(config), None)
    if found is None:
        raise ModelError(f"transformers has no classifier for {config.model_type}", place=place)
    return found[0] if isinstance(found, tuple) else found


def label(config: Any, labels: Sequence[str]) -> None:
    """Write the labels into a config, and the id that rows of tokens are padded with."""
    for key, value in facts(labels, pad_token_id=pad_id(config)).items():
        setattr(config, key, value)
    config.use_cache = False


def facts(labels: Sequence[str], *, pad_token_id: int | None) -> dict[str, Any]:
    """What config.json says of a classifier, as `transformers` reads it."""
    own = {
        "id2label": dict(enumerate(labels)),
        "label2id": {name: number for number, name in enumerate(labels)},
        "problem_type": "single_label_classification",
    }
    return own if pad_token_id is None else own | {"pad_token_id": pad_token_id}


def class_facts(network: Any) -> dict[str, Any]:
    """What the config.json of a classifier says beside that of its base; nothing of others."""
    if not class_heads(network):
        return {}
    config = network.config
    names = [config.id2label[number] for number in range(config.num_labels)]
    own = facts(names, pad_token_id=pad_id(config))
    return own | {"architectures": [type(network).__name__]}


def pad_id(config: Any) -> int | None:
    """The id that decoders look for to find a row's last token: the config's own, else that of the
    end of sequence; None where there are no tokens."""
    if sees_images(config.to_dict()):
        return None
    own = getattr(config, "pad_token_id", None)
    if own is not None and own >= 0:
        return int(own)
    end = getattr(config, "eos_token_id", None)
    end = end[0] if isinstance(end, list) else end
    return 0 if end is None else int(end)


def widen_heads(network: Any) -> None:
    """Hold a classifier's heads in fp32, whatever the dtype of what comes to them."""
    for name in class_heads(network):
        head = network.get_submodule(name)
        head.to(torch.float32)
        head.register_forward_pre_hook(_widened)


def _widened(head: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    first, *rest = arguments
    return (first.to(next(head.parameters()).dtype), *rest)


def is_head(network: Any, name: str) -> bool:
    """Whether a tensor belongs to a classifier's heads."""
    return name.startswith(tuple(f"{head}." for head in class_heads(network)))


def begin(network: Any, names: Collection[str], device: torch.device) -> None:
    """Draw the tensors of heads that no checkpoint holds, the same ones for each start."""
    random = torch.Generator().manual_seed(SEED)
    spread = float(getattr(network.config, "initializer_range", None) or _STD)
    for name in sorted(names):
        module, _, leaf = name.rpartition(".")
        owner = network.get_submodule(module)
        value = _drawn(owner._parameters[leaf], leaf, spread, random)
        owner._parameters[leaf] = nn.Parameter(value.to(device), requires_grad=False)
    if names:
        log.info("new, for no checkpoint holds them: %s", ", ".join(sorted(names)))


def _drawn(empty: Tensor, leaf: str, spread: float, random: torch.Generator) -> Tensor:
    """Matrices from N(0, spread), scales 1, biases 0."""
    if empty.ndim > 1:
        return spread * torch.randn(empty.shape, generator=random)
    return torch.full(empty.shape, float(leaf == "weight"))
