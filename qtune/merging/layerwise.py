"""The trained and the merged model, each computed layer by layer: verified without being whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from qtune.errors import UsageError
from qtune.merging.bases import OriginalBase, Rows, TrainedBase
from qtune.merging.blueprint import blueprint
from qtune.merging.folding import Folding
from qtune.merging.merge import base_of
from qtune.merging.streamed import names_of, stream
from qtune.methods.adapter import Adapter
from qtune.methods.saved_module import SavedModule
from qtune.models.preparation import freeze
from qtune.models.skeleton import build
from qtune.ops.linears import class_heads
from qtune.recipe.inputs import QuantizationSection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from qtune.merging.bases import Base
    from qtune.merging.blueprint import Blueprint
    from qtune.merging.merge import Merge
    from qtune.methods import AdapterFile
    from qtune.recipe.inputs import ModelSection


class NeedsWhole(Exception):  # noqa: N818 - the name is the statement
    """An adapter that looks at whole weights when it is attached."""


AREA = 1024  # positions, padding included, that are computed at a time
DENSE = QuantizationSection(bits=16, compute_dtype="float32")


def trained(
    folder: Path,
    section: ModelSection,
    quantization: QuantizationSection,
    adapter: AdapterFile,
) -> nn.Module:
    """The quantised base with its adapter live, which alone is in memory; `NeedsWhole` where that
    is more than parameters."""
    network: nn.Module = build(folder, section, dtype=torch.float32)
    freeze(network)
    names = names_of(network)
    method = adapter.attach(network, base_fingerprint=None)
    values = {id(p): adapter.tensors[name] for name, p in method.file_parameters().items()}
    for module in network.modules():
        if isinstance(module, SavedModule):
            module.dtype = module.base_dtype = torch.float32
        for leaf, parameter in list(module._parameters.items()):
            if id(parameter) in values:
                value = values[id(parameter)].float()
                module._parameters[leaf] = nn.Parameter(value, requires_grad=False)
        if isinstance(module, Adapter) and any(b.is_meta for b in module.buffers(recurse=False)):
            raise NeedsWhole
    base = blueprint(folder, section, quantization)
    stream(network, names, _finder(base, TrainedBase(base, quantization)))
    return network


def merged(
    folder: Path, section: ModelSection, quantization: QuantizationSection = DENSE
) -> nn.Module:
    """A written model, strictly by the names and shapes of its class."""
    base = blueprint(folder, section, quantization)
    network: nn.Module = build(folder, section, dtype=torch.float32)
    freeze(network)
    dense = quantization.bits == 16
    finder = _finder(base, OriginalBase(base) if dense else TrainedBase(base, quantization))
    stream(network, names_of(network), finder)
    return network


def folded(work: Merge, section: ModelSection) -> nn.Module:
    """What a merge would write, before it does; `UsageError` where it makes new tensors."""
    made = [spec.name for spec in work.layout.specs if spec.name not in work.layout.origins]
    if set(made) - work.blueprint.new.keys():
        raise UsageError(f"{made[0]} is new: the bases cannot be compared", place="merge.base")
    network: nn.Module = build(work.folder, section, dtype=torch.float32)
    freeze(network)
    folding = Folding(work.blueprint, work.layout, work.edits, base=base_of(work))
    specs = {spec.name: spec for spec in work.layout.specs}

    def rows(name: str) -> Rows:
        return folding.rows(specs.get(name) or specs[work.blueprint.tied[name]])

    stream(network, names_of(network), rows)
    return network


def logits(network: Any, rows: Sequence[Sequence[int]]) -> list[Tensor]:
    """fp32 logits of each row, [T, V], or of a classifier [1, labels]."""
    found = dict(each_logits(network, rows))
    return [found[number] for number in range(len(rows))]


@torch.no_grad()
def each_logits(network: Any, rows: Sequence[Sequence[int]]) -> Iterator[tuple[int, Tensor]]:
    """(number, logits) of each row as it comes; rows of like length are computed together, padded
    at their ends."""
    classifies = bool(class_heads(network))
    fill = getattr(network.config, "pad_token_id", None) or 0
    for group in _groups(rows):
        width = max(len(rows[number]) for number in group)
        ids = torch.full((len(group), width), fill)
        mask = torch.zeros_like(ids)
        for at, number in enumerate(group):
            ids[at, : len(rows[number])] = torch.tensor(list(rows[number]))
            mask[at, : len(rows[number])] = 1
        options = {} if classifies else {"use_cache": False}
        values = network(input_ids=ids, attention_mask=mask, **options).logits.float()
        for at, number in enumerate(group):
            own = values[at : at + 1] if classifies else values[at, : len(rows[number])]
            yield number, own.clone()
        del values


def _groups(rows: Sequence[Sequence[int]]) -> list[list[int]]:
    """Numbers of rows that are computed together, the longest first."""
    groups: list[list[int]] = []
    for number in sorted(range(len(rows)), key=lambda number: -len(rows[number])):
        width = len(rows[groups[-1][0]]) if groups else 0
        if not groups or (len(groups[-1]) + 1) * width > AREA:
            groups.append([])
        groups[-1].append(number)
    return groups


def _finder(known: Blueprint, base: Base) -> Callable[[str], Rows]:
    """The rows of a parameter or a buffer by the model's name, tied ones and new heads too."""

    def rows(name: str) -> Rows:
        if name in known.new:  # every adapter of a classifier holds its heads
            shape = known.new[name]
            return Rows(shape, lambda start, stop: torch.zeros(stop - start, *shape[1:]))
        stored = name if name in known.stored else known.tied[name]
        return base.rows(stored)

    return rows
