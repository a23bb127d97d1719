"""adapter_config.json as PEFT writes it: what we understand, and what we must refuse."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError

from qtune.errors import Fault, ModelError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from qtune.recipe.section import Section

CONFIG_FILE = "adapter_config.json"
PREFIX = "base_model.model."
# Keys that say where an adapter comes from, not what it computes.
INFORMATION = frozenset(
    {
        "auto_mapping",
        "base_model_name_or_path",
        "inference_mode",
        "peft_type",
        "peft_version",
        "revision",
        "runtime_config",
        "task_type",
    }
)

SectionType = TypeVar("SectionType", bound="Section")


def header(peft_type: str) -> dict[str, Any]:
    """The keys that every adapter_config.json begins with."""
    return {
        "peft_type": peft_type,
        "task_type": "CAUSAL_LM",
        "auto_mapping": None,
        "base_model_name_or_path": None,
        "revision": None,
        "inference_mode": True,
    }


def own_file(peft_type: str, config: Section, keys: Collection[str]) -> dict[str, Any]:
    """adapter_config.json in PEFT's layout, of a type that only qtune knows."""
    return {**header(peft_type), **config.model_dump(mode="json", include=set(keys))}


def read_own(
    kind: type[SectionType], config: Mapping[str, Any], keys: Collection[str]
) -> SectionType:
    """The section of what `own_file` wrote."""
    refuse_active(config, understood=keys, reasons={})
    return section(kind, {key: config[key] for key in keys if key in config})


def refuse_active(
    config: Mapping[str, Any], *, understood: Collection[str], reasons: Mapping[str, str]
) -> None:
    """`ModelError` for every key beyond `understood` that is on: it may change the function."""
    faults = [
        Fault(
            message=f"{key} = {value!r}: {reasons.get(key, 'not known to this version of qtune')}",
            place=CONFIG_FILE,
            hint="use PEFT for this adapter",
        )
        for key, value in config.items()
        if value and key not in understood and key not in INFORMATION
    ]
    if faults:
        raise ModelError.of(faults)


def section(kind: type[SectionType], values: Mapping[str, Any]) -> SectionType:
    """A checked recipe section from an adapter's values; the first fault as a `ModelError`."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ModelError(f"{key}: {first['msg']}", place=CONFIG_FILE) from error


def names(value: Any, *, key: str) -> list[str]:
    """Sorted module names: null is none, one word is one name, a pattern cannot be a list."""
    if value is None:
        return []
    if isinstance(value, str):
        if not is_plain(value):
            raise ModelError(f"{key} = {value!r} is a pattern, not a list", place=CONFIG_FILE)
        return [value]
    return sorted(value)


def targets(value: Any) -> str | list[str]:
    """target_modules: all-linear, a regular expression, or names; one plain word is one name."""
    if not value:
        raise ModelError("target_modules is empty", place=CONFIG_FILE)
    if isinstance(value, str) and (value == "all-linear" or not is_plain(value)):
        return value
    return names(value, key="target_modules")


def indices(value: Any) -> list[int]:
    """layers_to_transform: null is empty, one number is one layer."""
    if value is None:
        return []
    return [value] if isinstance(value, int) else list(value)


def is_plain(word: str) -> bool:
    """Whether a text is a module name and not a regular expression."""
    return word.replace(".", "").replace("_", "").isalnum()


def module_of(name: str) -> str:
    """The module's name in the base for a tensor's name in the file."""
    return name.removeprefix(PREFIX)
