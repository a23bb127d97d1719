"""From a model's name to its configuration, and from that to its shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtune import hub
from qtune.artefacts import read_object
from qtune.errors import ModelError
from qtune.plan import families
from qtune.plan.fields import ConfigFields
from qtune.plan.shape import ModelShape, StoredQuantization
from qtune.registry import nearest

if TYPE_CHECKING:
    from qtune.recipe.sections import ModelSection


def shape_of_model(model: ModelSection) -> ModelShape:
    """The shape of a recipe's model; only its config.json is read."""
    if model.offline:
        hub.go_offline()
    config = read_config(model.name_or_path, model.revision)
    return shape_of(config, place=f"{model.name_or_path}/config.json")


def shape_of(config: Mapping[str, Any], *, place: str = "config.json") -> ModelShape:
    """The shape of a known family; `ModelError` for an unknown one or a faulty value."""
    fields = ConfigFields(config, place=place)
    family = config.get("model_type")
    if not isinstance(family, str):
        raise fields.fault("model_type", "is missing" if family is None else f"is {family!r}")
    if "text_config" in config or "vision_config" in config:
        raise ModelError(
            f"{family} reads images or sound as well as text; qtune trains text models",
            place=place,
            hint=f"use a text-only checkpoint; known: {', '.join(sorted(families.BUILDERS))}",
        )
    if family not in families.BUILDERS:
        raise ModelError(
            f"qtune does not know the model type {family!r}",
            place=place,
            hint=nearest(family, families.BUILDERS),
        )
    shape = families.build(family, fields)
    return replace(shape, stored=stored_quantization(config, place=place))


def stored_quantization(
    config: Mapping[str, Any], *, place: str = "config.json"
) -> StoredQuantization | None:
    """How the checkpoint is already quantised; `ModelError` if not by bitsandbytes."""
    stored = config.get("quantization_config")
    if not stored:
        return None
    method = stored.get("quant_method") if isinstance(stored, Mapping) else None
    if method not in (None, "bitsandbytes") or not isinstance(stored, Mapping):
        raise ModelError(
            f"the checkpoint is quantised with {method or repr(stored)}, "
            "which qtune cannot train on",
            place=place,
            hint="take the 16-bit model, or one quantised with bitsandbytes",
        )
    if stored.get("load_in_8bit"):
        return StoredQuantization(bits=8)
    return StoredQuantization(
        bits=4,
        quant_type="nf4" if stored.get("bnb_4bit_quant_type") == "nf4" else "fp4",
        double_quant=bool(stored.get("bnb_4bit_use_double_quant")),
        compute_dtype="float32"
        if stored.get("bnb_4bit_compute_dtype") == "float32"
        else "bfloat16",
    )


def read_config(name_or_path: str | Path, revision: str | None = None) -> dict[str, Any]:
    """The config.json of a local folder or of a hub id (its cache first, offline honoured)."""
    folder = hub.local_folder(name_or_path)
    if folder is not None:
        return read_object(_config_in(folder))
    return read_object(_config_from_hub(str(name_or_path), revision))


def _config_in(folder: Path) -> Path:
    config = folder / "config.json"
    if config.is_file():
        return config
    if (folder / "adapter_config.json").is_file():
        base = _base_of_adapter(folder / "adapter_config.json")
        what, hint = "is an adapter, not a model", f"its base model is {base}" if base else ""
    elif (folder / "recipe.yaml").is_file() or (folder / "plan.json").is_file():
        what, hint = "is a run folder, not a model", "name the base model the run was trained on"
    elif any(folder.glob("*.gguf")):
        what, hint = "holds GGUF files, not a model to train", hub.GGUF_HINT
    elif (folder / "params.json").is_file():
        what, hint = "is in the original layout", "convert it to the Hugging Face layout first"
    else:
        what, hint = "holds no config.json", "name the folder that holds config.json and weights"
    raise ModelError(f"the folder {what}", place=str(folder), hint=hint)


def _base_of_adapter(path: Path) -> str | None:
    try:
        base = read_object(path).get("base_model_name_or_path")
    except ModelError:
        return None
    return base if isinstance(base, str) else None


def _config_from_hub(repository: str, revision: str | None) -> Path:
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    with hub.refusals(repository, revision):
        # what is cached needs no network: a plan is quick, and the loader asks the hub anyway
        cached = try_to_load_from_cache(repository, "config.json", revision=revision)
        if isinstance(cached, str):
            return Path(cached)
        return Path(hf_hub_download(repository, "config.json", revision=revision))
