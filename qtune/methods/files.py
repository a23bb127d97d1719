"""Adapter folders in PEFT's format: adapter_model.safetensors and adapter_config.json.

What PEFT has no key for stands in the metadata of the safetensors file under "qtune": version,
dtype, the base's fingerprint, sha256 of the tensors and a copy of what adapter_config.json said.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import qtune
from qtune.durable import write_json, write_parts
from qtune.errors import ModelError, OutputError, UsageError
from qtune.methods.adapter_file import WEIGHTS_FILE, digest, read_config, read_tensors
from qtune.methods.integrity import METADATA_KEY, check_facts, check_tensors
from qtune.methods.peft_format import CONFIG_FILE, section
from qtune.methods.safetensors_file import file_parts
from qtune.methods.table import BY_PEFT_TYPE, COMBINATION, METHODS
from qtune.recipe.methods import CombinationConfig
from qtune.recipe.paths import portable

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

    from qtune.methods.base import Edit, Method
    from qtune.recipe.methods import MethodConfig


@dataclass(frozen=True, kw_only=True)
class AdapterFile:
    """A checked adapter folder in memory; `facts` is empty when another tool wrote it."""

    folder: Path
    config: MethodConfig
    tensors: dict[str, Tensor]
    base_model: str
    base_fingerprint: str | None
    raw: dict[str, Any]
    facts: dict[str, Any]

    def require_base(self, fingerprint: str) -> None:
        """`ModelError` if the adapter was trained on another base; silent when it does not say."""
        if self.base_fingerprint not in (None, fingerprint):
            raise ModelError(
                f"the adapter was trained on another base model ({self.base_model or 'unnamed'})",
                place=str(self.folder),
                hint="load it with the base it was trained on",
            )

    def attach(self, model: nn.Module, *, base_fingerprint: str | None) -> Method:
        """The adapter on a frozen base, ready to use; `ModelError` if it does not belong there."""
        if base_fingerprint is not None:
            self.require_base(base_fingerprint)
        method: Method = METHODS[self.config.name](self.config, seed=0)
        try:
            method.attach(model)
        except UsageError as error:  # its recipe is the file's, not the user's
            raise ModelError(
                f"the adapter does not fit this model: {error}", place=str(self.folder)
            ) from error
        try:
            method.load_adapter(self.tensors)
        except ModelError:
            method.detach()
            raise
        return method

    def digest(self) -> str:
        """sha256 of the tensors, whoever wrote the file."""
        return digest(self.tensors)

    def merge_edits(self) -> dict[str, Edit]:
        """What a merge does to the base's parameters, as they are stored; `CannotMerge`."""
        edits: dict[str, Edit] = METHODS[self.config.name].merge_edits(
            self.config, self.tensors, fan_in_fan_out=bool(self.raw.get("fan_in_fan_out"))
        )
        return edits

    def merged_config(self, base: dict[str, Any]) -> dict[str, Any]:
        """config.json of the merged model, of its base's."""
        changed: dict[str, Any] = METHODS[self.config.name].merged_config(self.config, base)
        return changed


def save(
    folder: Path,
    method: Method,
    *,
    base_model: str,
    base_fingerprint: str,
    recipe_note: dict[str, Any] | None = None,
    replace: bool = False,
) -> None:
    """Write an attached method's adapter; `OutputError` if one is there and `replace` is off.

    Each file appears whole or not at all. The weights come first: should the power fail between the
    two, their copy of the config does not fit the old config and `read` refuses the pair.
    """
    config = {**method.peft_config(), "base_model_name_or_path": portable(base_model)}
    _refuse_existing(folder, replace=replace)
    for key, part in method.parts().items():
        save(
            folder / key,
            part,
            base_model=base_model,
            base_fingerprint=base_fingerprint,
            recipe_note=recipe_note,
            replace=replace,
        )
    if method.parts():
        write_json(folder / CONFIG_FILE, dict(sorted(config.items())))
        return
    tensors = method.adapter_state()
    facts = {
        "version": qtune.__version__,
        "method": method.name,
        "own": method.own_facts(),
        "dtype": getattr(method.config, "dtype", "float32"),
        "base_model": portable(base_model),
        "base_fingerprint": base_fingerprint,
        "tensors": digest(tensors),
        "config": config,
        "recipe": portable(recipe_note or {}),
    }
    folder.mkdir(parents=True, exist_ok=True)
    metadata = {"format": "pt", METADATA_KEY: json.dumps(facts, sort_keys=True)}
    write_parts(folder / WEIGHTS_FILE, file_parts(tensors, metadata))
    write_json(folder / CONFIG_FILE, dict(sorted(config.items())))


def read(folder: Path) -> AdapterFile:
    """An adapter folder by qtune or PEFT; `ModelError` for anything not whole and sound."""
    raw = read_config(folder)
    kind = raw.get("peft_type")
    if kind == COMBINATION:
        return _read_parts(folder, raw)
    if not isinstance(kind, str) or kind not in BY_PEFT_TYPE:
        raise ModelError(
            f"peft_type {kind!r} is not one that qtune computes ({', '.join(BY_PEFT_TYPE)})",
            place=str(folder / CONFIG_FILE),
        )
    tensors, metadata = read_tensors(folder)
    check_tensors(tensors, peft_type=kind, place=str(folder / WEIGHTS_FILE))
    facts = check_facts(metadata, raw, tensors, place=str(folder))
    tensors = METHODS[BY_PEFT_TYPE[kind]].tensors_from_file(raw, tensors)
    config: MethodConfig = METHODS[BY_PEFT_TYPE[kind]].config_from_file(raw, tensors.keys())
    if "dtype" in facts and "dtype" in type(config).model_fields:
        config = config.model_copy(update={"dtype": facts["dtype"]})
    if isinstance(facts.get("own"), dict) and facts.get("method") in METHODS:
        config = METHODS[facts["method"]].config_with_facts(config, facts["own"])
    return AdapterFile(
        folder=folder,
        config=config,
        tensors=tensors,
        base_model=raw.get("base_model_name_or_path") or "",
        base_fingerprint=facts.get("base_fingerprint"),
        raw=raw,
        facts=facts,
    )


def _read_parts(folder: Path, raw: dict[str, Any]) -> AdapterFile:
    """The folders of a combination as one; a fault names the part's folder."""
    keys = raw.get("parts")
    if not keys or keys != [f"part-{number}" for number in range(len(keys))]:
        raise ModelError("parts is no list of folders", place=str(folder / CONFIG_FILE))
    parts = {key: read(folder / key) for key in keys}
    first, *others = parts.values()
    for part in others:
        part.require_base(first.base_fingerprint or part.base_fingerprint or "")
    return AdapterFile(
        folder=folder,
        config=section(CombinationConfig, {"parts": [part.config for part in parts.values()]}),
        tensors={f"{k}/{name}": t for k, part in parts.items() for name, t in part.tensors.items()},
        base_model=first.base_model,
        base_fingerprint=first.base_fingerprint,
        raw={**raw, "fan_in_fan_out": any(p.raw.get("fan_in_fan_out") for p in parts.values())},
        facts=first.facts,
    )


def _refuse_existing(folder: Path, *, replace: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise OutputError("is a file, not a folder", place=str(folder))
    there = [name for name in (WEIGHTS_FILE, CONFIG_FILE) if (folder / name).exists()]
    if there and not replace:
        raise OutputError(
            f"holds an adapter already ({', '.join(there)})",
            place=str(folder),
            hint="choose another folder",
        )
