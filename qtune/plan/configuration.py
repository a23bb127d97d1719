"""From a model's name to its configuration, and from that to its shape."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtune import hub
from qtune.artefacts import read_object
from qtune.errors import ModelError
from qtune.plan import encoders, families, vision
from qtune.plan.fields import ConfigFields
from qtune.plan.published import published_config
from qtune.plan.shape import ModelShape, StoredQuantization
from qtune.registry import nearest

if TYPE_CHECKING:
    from qtune.recipe.inputs import ModelSection


class UnknownFamilyError(ModelError):
    """A model type that the plan has no formula for."""


def shape_of_model(model: ModelSection) -> ModelShape:
    """The shape of a recipe's model; only its config.json is read."""
    if model.offline:
        hub.go_offline()
    config = read_config(model.name_or_path, model.revision)
    place = f"{model.name_or_path}/config.json"
    return for_task(shape_of(config, place=place), model)


def shape_before_download(model: ModelSection) -> tuple[ModelShape, str]:
    """The shape of a recipe's model, and a note where it is not read from its own config.json:
    of a well-known model that is not here yet the published sizes are enough."""
    name, revision = model.name_or_path, model.revision
    if revision is None and hub.local_folder(name) is None and not _is_cached(name):
        sizes = published_config(name)
        if sizes is not None:
            note = f"sizes of {name} as published: its config.json is not in the local cache"
            return for_task(shape_of(sizes, place=f"{name}/config.json"), model), note
    return shape_of_model(model), ""


def for_task(shape: ModelShape, model: ModelSection) -> ModelShape:
    """The shape with the head of the recipe's task; `ModelError` for an encoder without one."""
    if model.task == "classification":
        if shape.image_tokens and model.labels:
            return vision.with_classes(shape, len(model.labels))
        return encoders.with_classes(shape, len(model.labels))
    if shape.encoder:
        raise ModelError(
            f"{shape.family} sees images: it has no next token to learn"
            if shape.image_tokens
            else f"{shape.family} is an encoder: it has no next token to learn",
            place="model.name_or_path",
            hint="set task: classification",
        )
    return shape


def shape_of(config: Mapping[str, Any], *, place: str = "config.json") -> ModelShape:
    """The shape of a known family; `UnknownFamilyError`, or `ModelError` for a faulty value."""
    fields = ConfigFields(config, place=place)
    family = config.get("model_type")
    if not isinstance(family, str):
        raise fields.fault("model_type", "is missing" if family is None else f"is {family!r}")
    if "text_config" in config or "vision_config" in config:
        raise ModelError(
            f"{family} reads images or sound as well as text; qtune trains models of either",
            place=place,
            hint=f"use a text-only checkpoint; known: {', '.join(sorted(families.BUILDERS))}",
        )
    if family in encoders.ENCODERS:
        return replace(encoders.build(family, fields), stored=stored_quantization(config))
    if family in vision.FAMILIES:
        return replace(vision.build(family, fields), stored=stored_quantization(config))
    if family not in families.BUILDERS:
        raise UnknownFamilyError(
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
        _ask_once(repository, revision)
        return Path(hf_hub_download(repository, "config.json", revision=revision))


def _ask_once(repository: str, revision: str | None) -> None:
    """Raise what the hub answers, at once where it cannot be reached: a download tries six times,
    and says so each time."""
    from huggingface_hub import errors, get_hf_file_metadata, hf_hub_url

    address = hf_hub_url(repository, "config.json", revision=revision)
    try:
        get_hf_file_metadata(address, timeout=5)
    except (errors.HfHubHTTPError, errors.HFValidationError, errors.OfflineModeIsEnabled):
        raise
    except Exception as error:  # the hub's HTTP library changes from version to version
        raise errors.LocalEntryNotFoundError(f"no answer: {error}") from error


def _is_cached(repository: str) -> bool:
    """Whether a hub id's config.json is in the local cache; without the hub's library."""
    places = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    home = (
        os.environ.get("HF_HOME") or f"{os.environ.get('XDG_CACHE_HOME', '~/.cache')}/huggingface"
    )
    root = Path(places or f"{home}/hub").expanduser()
    folder = root / f"models--{repository.replace('/', '--')}"
    return any(folder.glob("snapshots/*/config.json"))
