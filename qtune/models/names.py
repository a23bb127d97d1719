"""Which checkpoint tensor belongs to which parameter: strict, settled before any is read."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qtune.errors import Fault, ModelError, first_few
from qtune.models.heads import is_head
from qtune.ops.linears import class_heads
from qtune.registry import nearest

if TYPE_CHECKING:
    from collections.abc import Mapping

SHOWN = 3
# Buffers that older checkpoints saved and newer model classes compute.
OBSOLETE = {
    "rotary_emb.inv_freq": r"rotary_emb\.inv_freq$",
    "position_ids": r"(^|\.)position_ids$",
}


@dataclass(frozen=True)
class Match:
    """`names`: stored name -> model name; `missing`: names to be tied; `fused`: convert first;
    `new`: names of a classifier's heads that nothing is stored for."""

    names: dict[str, str]
    missing: set[str]
    fused: bool
    new: frozenset[str] = frozenset()


def match(network: Any, stored: Mapping[str, tuple[int, ...]]) -> Match:
    """Pair the stored names with the model's as transformers would; `ModelError` for leftovers.

    A classifier's heads may be missing, or stored for other labels, and other heads than its own
    may be stored: then its heads are new. `stored` gives the shapes.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    expected = set(shapes)
    rename = _renamer(network, expected)
    pairs = {name: rename(name) for name in stored}
    if any(fused for _, fused in pairs.values()):
        return Match({}, set(), fused=True)
    names = {name: target for name, (target, _) in pairs.items() if target in expected}
    classifies = bool(class_heads(network))
    for name, target in list(names.items()):
        if classifies and is_head(network, target) and stored[name] != shapes[target]:
            del names[name]
    new = {name for name in expected - set(names.values()) if classifies and is_head(network, name)}
    missing = expected - set(names.values()) - new
    unknown = [name for name in pairs if name not in names and not _obsolete(network, name)]
    if classifies:
        base = f"{network.base_model_prefix}."
        ours = (name for name in unknown if pairs[name][0].startswith(base))
        unused = f"{base}pooler."  # of a base whose classifier has none
        ours = (name for name in ours if not pairs[name][0].startswith(unused))
        unknown = [name for name in ours if not is_head(network, pairs[name][0])]
    faults = _missing_faults(missing - _tied(network, set(names.values())), unknown)
    if unknown:
        message = (
            f"{first_few(sorted(unknown))} in the checkpoint, but not in {type(network).__name__}"
        )
        faults.append(Fault(message=message, hint="wrong config.json, or a model of another kind"))
    if faults:
        raise ModelError.of(faults)
    return Match(names, missing, fused=False, new=frozenset(new))


def check_shapes(
    network: Any, names: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]]
) -> None:
    """`ModelError` listing each stored tensor whose shape is not the parameter's."""
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    wrong = [
        f"{name} is {shapes[name]}, the model wants {expected[target]}"
        for name, target in names.items()
        if name in shapes and shapes[name] != expected[target]
    ]
    if wrong:
        more = f" (and {len(wrong) - SHOWN} more)" if len(wrong) > SHOWN else ""
        raise ModelError(
            f"{'; '.join(wrong[:SHOWN])}{more}", hint="config.json does not belong to these weights"
        )


def _renamer(network: Any, expected: set[str]) -> Any:
    """name -> (name in the model, whether it must be converted), by transformers' own rules."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

    rules = get_model_conversion_mapping(network)
    renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
    converters = [rule for rule in rules if isinstance(rule, WeightConverter)]
    known = dict.fromkeys(expected, True)

    def rename(name: str) -> tuple[str, bool]:
        prefix = network.base_model_prefix
        target, pattern = rename_source_key(name, renamings, converters, prefix, known)
        if target not in expected and name in expected:
            return name, False
        return target, pattern is not None and target in expected

    return rename


def _tied(network: Any, loaded: set[str]) -> set[str]:
    """Names that get their value from another one that was loaded."""
    groups: dict[str, set[str]] = {}
    for target, source in network.all_tied_weights_keys.items():
        groups.setdefault(source, {source}).add(target)
    return {name for group in groups.values() if group & loaded for name in group}


def _obsolete(network: Any, name: str) -> bool:
    """Whether the model class knows that it may be left out."""
    patterns = list(network._keys_to_ignore_on_load_unexpected or ())
    buffers = [buffer for buffer, _ in network.named_buffers()]
    patterns += [
        pattern
        for ending, pattern in OBSOLETE.items()
        if any(buffer.endswith(ending) for buffer in buffers)
    ]
    return any(re.search(pattern, name) for pattern in patterns)


def _missing_faults(missing: set[str], unknown: list[str]) -> list[Fault]:
    if not missing:
        return []
    hint = "the checkpoint is not whole, or config.json belongs to another"
    if unknown:
        hint = f"for {min(missing)} {nearest(min(missing), unknown[:SHOWN])}"
    return [Fault(message=f"missing in the checkpoint: {first_few(sorted(missing))}", hint=hint)]
