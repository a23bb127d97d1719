"""An adapter folder for others: as it is, of a lower rank, or as the plain LoRA that it is."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

from qtune.durable import write_json, write_parts
from qtune.errors import UsageError
from qtune.methods.adapter_file import WEIGHTS_FILE, digest
from qtune.methods.delta_lora import KEYS as DELTA_KEYS
from qtune.methods.delta_lora import as_lora
from qtune.methods.integrity import METADATA_KEY
from qtune.methods.lora_format import SAME
from qtune.methods.lora_merge import DOWN, UP
from qtune.methods.peft_format import CONFIG_FILE
from qtune.methods.safetensors_file import file_parts
from qtune.recipe.methods import CombinationConfig, DeltaLoraConfig, LoraConfig

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from qtune.methods.files import AdapterFile

CARD = "README.md"


def export(adapter: AdapterFile, folder: Path, *, rank: int | None = None) -> AdapterFile:
    """Write a checked adapter into an empty folder, and say what was written.

    With `rank` a DyLoRA is cut to its first ranks; a Delta-LoRA becomes a LoRA of twice its rank,
    which PEFT can read; all others are copied byte for byte.
    """
    changed = plain(adapter, rank=rank)
    if changed is adapter:
        _copy(adapter, folder)
    else:
        write_files(folder, changed)
    return replace(changed, folder=folder)


def plain(adapter: AdapterFile, *, rank: int | None = None) -> AdapterFile:
    """The adapter as others know it: cut to a rank, or a Delta-LoRA as a LoRA; else itself."""
    if rank is not None:
        return cut(adapter, rank)
    if isinstance(adapter.config, DeltaLoraConfig):
        return _plain(adapter, *as_lora(adapter.config, adapter.tensors))
    return adapter


def cut(adapter: AdapterFile, rank: int) -> AdapterFile:
    """The LoRA of a DyLoRA's first ranks, scaled as that rank was trained; layers of fewer stay.

    `UsageError` for other methods: no other leaves its first ranks useful.
    """
    config = adapter.config
    if adapter.facts.get("method") != "dylora" or not isinstance(config, LoraConfig):
        name = adapter.facts.get("method") or config.name
        raise UsageError(
            f"{name} has no rank to choose: only DyLoRA trains each rank to be used alone",
            place="--rank",
            hint="train with method: {name: dylora}, or export without --rank",
        )
    most = max(config.rank, *config.rank_pattern.values(), 1)
    if not 1 <= rank <= most:
        raise UsageError(f"{rank} is no rank from 1 to {most}", place="--rank")
    lower = {
        "rank": min(rank, config.rank),
        "rank_pattern": {name: min(rank, own) for name, own in config.rank_pattern.items()},
    }
    tensors = {name: _first(name, tensor, rank) for name, tensor in adapter.tensors.items()}
    return _plain(adapter, config.model_copy(update=lower), tensors)


def _first(name: str, tensor: Tensor, rank: int) -> Tensor:
    if name.endswith(DOWN):
        return tensor[:rank].contiguous()
    return tensor[:, :rank].contiguous() if name.endswith(UP) else tensor


def _plain(adapter: AdapterFile, config: LoraConfig, tensors: dict[str, Tensor]) -> AdapterFile:
    """The adapter as a LoRA of another config."""
    raw = {key: value for key, value in adapter.raw.items() if key not in DELTA_KEYS}
    raw |= {"peft_type": "LORA", **{theirs: getattr(config, own) for own, theirs in SAME.items()}}
    facts = {**adapter.facts, "method": "lora", "tensors": digest(tensors), "config": raw}
    return replace(adapter, config=config, tensors=tensors, raw=raw, facts=facts)


def write_files(folder: Path, adapter: AdapterFile) -> None:
    """An adapter that was made in memory, into an existing folder."""
    metadata = {"format": "pt", METADATA_KEY: json.dumps(adapter.facts, sort_keys=True)}
    write_parts(folder / WEIGHTS_FILE, file_parts(adapter.tensors, metadata))
    write_json(folder / CONFIG_FILE, dict(sorted(adapter.raw.items())))


def _copy(adapter: AdapterFile, folder: Path) -> None:
    """The files of an adapter, and those of its parts; nothing else that lies beside them."""
    inner = adapter.raw["parts"] if isinstance(adapter.config, CombinationConfig) else ()
    for part in ("", *inner):
        (folder / part).mkdir(exist_ok=True)
        for name in (WEIGHTS_FILE, CONFIG_FILE, CARD):
            if (adapter.folder / part / name).is_file():
                shutil.copyfile(adapter.folder / part / name, folder / part / name)
