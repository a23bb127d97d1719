"""Whether the parts of an adapter folder are sound and belong together."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, get_args

import torch

from qtune.errors import ModelError, first_few
from qtune.methods.adapter_file import digest
from qtune.methods.peft_format import CONFIG_FILE, INFORMATION, PREFIX
from qtune.recipe.peft_types import PeftType

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

METADATA_KEY = "qtune"
# Their one tensor belongs to no module of the base.
PROMPT_TYPES = ("PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING")
INDICES = {"ROSA": (".rosa_columns", ".rosa_row_pointers")}
"""Ends of the names of int32 tensors, by type; all others are floating point."""


def check_tensors(tensors: Mapping[str, Tensor], *, peft_type: str, place: str) -> None:
    """`ModelError` for no tensors, foreign names, values that are no finite numbers."""
    if not tensors:
        raise ModelError("holds no tensors", place=place)
    bridged = peft_type in get_args(PeftType)  # whose layers may share tensors, or hold indices
    prefix = PREFIX.partition(".")[0] if bridged else PREFIX
    foreign = [name for name in tensors if not name.startswith(prefix)]
    if foreign and peft_type not in PROMPT_TYPES:
        raise ModelError(
            f"{len(foreign)} names do not begin with {PREFIX!r}: {first_few(foreign)}",
            place=place,
            hint="save it again with qtune or with PEFT's save_pretrained",
        )
    indices = INDICES.get(peft_type, ())
    odd = [
        name
        for name, tensor in tensors.items()
        if not bridged
        and not (
            tensor.dtype == torch.int32 if name.endswith(indices) else tensor.is_floating_point()
        )
    ]
    if odd:
        raise ModelError(f"not floating point (indices: not int32): {first_few(odd)}", place=place)
    broken = [name for name, tensor in tensors.items() if not bool(tensor.isfinite().all())]
    if broken:
        raise ModelError(
            f"{len(broken)} tensors hold NaN or infinity: {first_few(broken)}",
            place=place,
            hint="the training diverged or the file is damaged",
        )


def check_facts(
    metadata: Mapping[str, str],
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    *,
    place: str,
) -> dict[str, Any]:
    """qtune's own facts, if any; `ModelError` when config or tensors were changed since."""
    if METADATA_KEY not in metadata:
        return {}
    try:
        facts: dict[str, Any] = json.loads(metadata[METADATA_KEY])
        written, sum_of_tensors = facts["config"], facts["tensors"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelError("the file's qtune metadata is damaged", place=place) from error
    changed = [
        f"{key} is {config.get(key)!r}, trained with {written.get(key)!r}"
        for key in sorted({*written, *config} - INFORMATION)
        if config.get(key) != written.get(key)
    ]
    if changed:
        raise ModelError(
            f"{CONFIG_FILE} does not belong to the weights: {first_few(changed)}",
            place=place,
            hint="put the written values back",
        )
    if digest(tensors) != sum_of_tensors:
        raise ModelError(
            "the tensors are not those that were written (sha256 differs)",
            place=place,
            hint="fetch or train the adapter again",
        )
    return facts
