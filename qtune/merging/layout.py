"""What a merged checkpoint holds: names, shapes, dtypes and config, before any weight is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from qtune.errors import ModelError
from qtune.merging.blueprint import with_biases
from qtune.methods.base import CannotMerge
from qtune.models.heads import class_facts
from qtune.models.writing import TensorSpec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from qtune.merging.blueprint import Blueprint
    from qtune.methods.base import Edit

DTYPE_KEYS = ("dtype", "torch_dtype")


@dataclass(frozen=True)
class Layout:
    """The output before it exists."""

    specs: tuple[TensorSpec, ...]
    origins: dict[str, str]
    """Output name -> base name; a name that is missing here is new."""
    config: dict[str, Any]
    unties: bool

    @property
    def bytes(self) -> int:
        """Size of all weight files, but for their headers."""
        return sum(spec.bytes for spec in self.specs)

    @property
    def parameters(self) -> int:
        """Elements of all tensors."""
        return sum(spec.bytes // spec.dtype.itemsize for spec in self.specs)


def lay_out(
    folder: Path,
    base: Blueprint,
    edits: Mapping[str, Edit],
    *,
    dtype: torch.dtype | None,
) -> Layout:
    """Give every edit exactly one output tensor, or raise `ModelError`; None keeps each dtype."""
    origins = {name: name for name in base.stored}
    unties = _untie(origins, base, edits)
    switches, created = _create(folder, base, edits, origins)
    named = dtype or base_dtype(base)
    specs = []
    for name, origin in origins.items():
        found = base.spec(origin, dense=named)
        specs.append(TensorSpec(name, found.shape, _converted(found.dtype, dtype)))
    specs += [TensorSpec(name, shape, named) for name, shape in created.items()]
    _check_shapes(specs, edits)
    heads = dtype or torch.float32  # as they were trained
    specs += [TensorSpec(name, shape, heads) for name, shape in base.new.items()]
    config = _config(base.config, dtype=named) | class_facts(base.network)
    if unties:
        config = _without_ties(config)
    return Layout(tuple(specs), origins, config | switches, unties)


def base_dtype(base: Blueprint) -> torch.dtype:
    """The dtype that config.json names, or that of most stored bytes."""
    for key in DTYPE_KEYS:
        found = getattr(torch, str(base.config.get(key)).removeprefix("torch."), None)
        if isinstance(found, torch.dtype):
            return found
    sizes: dict[torch.dtype, int] = {}
    for name in base.stored:
        spec = base.spec(name, dense=torch.bfloat16)
        sizes[spec.dtype] = sizes.get(spec.dtype, 0) + spec.bytes
    return max(sizes, key=lambda dtype: sizes[dtype])


def _untie(origins: dict[str, str], base: Blueprint, edits: Mapping[str, Edit]) -> bool:
    """An edit of one end of a tie parts the two: each then has a tensor of its own."""
    touched = {
        name: source for name, source in base.tied.items() if name in edits or source in edits
    }
    for name, source in touched.items():
        origins.setdefault(name, source)
    return bool(touched)


def _create(
    folder: Path,
    base: Blueprint,
    edits: Mapping[str, Edit],
    origins: Mapping[str, str],
) -> tuple[dict[str, bool], dict[str, tuple[int, ...]]]:
    """Biases that the base has not and its family can have; all other homeless edits are faults."""
    homeless = {name for name in edits if name not in origins and name not in base.new}
    foreign = sorted(name for name in homeless if not edits[name].may_create)
    if foreign:
        raise ModelError(
            f"{len(foreign)} edits of the adapter have no tensor in the base: "
            f"{', '.join(foreign[:3])}",
            hint="the adapter belongs to another base model",
        )
    if not homeless:
        return {}, {}
    switches, created = with_biases(folder, base, homeless)
    rest = sorted(homeless - created.keys())
    if rest:
        raise CannotMerge(
            f"{base.config.get('model_type')} models have no {rest[0]}",
            hint="keep the adapter beside the base",
        )
    return switches, created


def _check_shapes(specs: Sequence[TensorSpec], edits: Mapping[str, Edit]) -> None:
    """`ModelError` where an edit is known to be of another shape than its tensor."""
    for spec in specs:
        edit = edits.get(spec.name)
        if edit is not None and edit.shape not in (None, spec.shape):
            raise ModelError(
                f"the adapter changes a {spec.name} of {list(edit.shape or ())}, the base has "
                f"{list(spec.shape)}",
                hint="it belongs to another base",
            )


def _config(config: dict[str, Any], *, dtype: torch.dtype) -> dict[str, Any]:
    """config.json of dense weights in their dtype."""
    stale = {"quantization_config", *DTYPE_KEYS}
    kept = {key: value for key, value in config.items() if key not in stale}
    return kept | {"dtype": str(dtype).removeprefix("torch.")}


def _converted(stored: torch.dtype, wanted: torch.dtype | None) -> torch.dtype:
    """Only floats are converted."""
    return wanted if wanted is not None and stored.is_floating_point else stored


def _without_ties(config: dict[str, Any]) -> dict[str, Any]:
    """tie_word_embeddings false, in the text part of a composite config too."""
    parted = config | {"tie_word_embeddings": False}
    if isinstance(text := config.get("text_config"), dict):
        parted["text_config"] = text | {"tie_word_embeddings": False}
    return parted
