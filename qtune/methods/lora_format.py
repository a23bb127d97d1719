"""LoRA's section of the recipe to and from PEFT's LoraConfig."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from qtune.errors import ModelError
from qtune.methods import peft_format
from qtune.ops.nf4 import is_transposed
from qtune.recipe.methods import LoraConfig, LowRankConfig

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from torch import nn

Variant = TypeVar("Variant", bound=LowRankConfig)
# What PEFT calls the keys of the recipe; values of the same meaning.
SAME = {"rank": "r", "alpha": "lora_alpha", "dropout": "lora_dropout"}
SAME |= {key: key for key in ("use_rslora", "use_dora", "rank_pattern", "alpha_pattern")}
UNDERSTOOD = {
    *SAME.values(),
    "target_modules",
    "exclude_modules",
    "layers_to_transform",
    "modules_to_save",
    "fan_in_fan_out",
    "bias",
    "init_lora_weights",
    # Read only together with a switch that is refused, or with the names of the tensors.
    "corda_config",
    "eva_config",
    "layers_pattern",
    "loftq_config",
    "lora_ga_config",
    "megatron_core",
    "qalora_group_size",
}
REASONS = {
    "alora_invocation_tokens": "an adapter that acts after certain tokens only",
    "arrow_config": "a mixture of adapters",
    "ensure_weight_tying": "tied trained copies",
    "kasa_config": "another parametrisation",
    "layer_replication": "a base with repeated layers",
    "lora_bias": "a bias on B",
    "megatron_config": "layers of Megatron",
    "monteclora_config": "another parametrisation",
    "target_parameters": "adapters on bare parameters",
    "trainable_token_indices": "trained rows of the embedding",
    "use_bdlora": "block-diagonal factors",
    "use_qalora": "pooled inputs of the adapter",
    "velora_config": "compressed activations",
}
# Ways to start that leave the base alone; the others also changed the weights beside the adapter.
HARMLESS_STARTS = {"gaussian", "eva", "orthogonal"}


def facts(
    config: LoraConfig,
    targets: dict[str, Any],
    saved: Sequence[str],
    chosen: Iterable[nn.Module],
) -> dict[str, Any]:
    """adapter_config.json of an attached LoRA."""
    return {
        **peft_format.header("LORA"),
        **{theirs: getattr(config, ours) for ours, theirs in SAME.items()},
        **targets,
        "exclude_modules": None,
        # Full names: PEFT matches the ends of names without regard to dots.
        "modules_to_save": list(saved) or None,
        "fan_in_fan_out": any(is_transposed(module) for module in chosen),
        "bias": "none",
        "init_lora_weights": True,
    }


def read(config: dict[str, Any]) -> LoraConfig:
    """The recipe's section for a LoraConfig of PEFT; `ModelError` says what stands in the way."""
    peft_format.refuse_active(config, understood=UNDERSTOOD, reasons=REASONS)
    _refuse_bias(config)
    _refuse_start(config)
    values: dict[str, Any] = {
        ours: config[theirs] for ours, theirs in SAME.items() if config.get(theirs) is not None
    }
    if "rank" not in values or "alpha" not in values:
        raise ModelError("r or lora_alpha is missing", place=peft_format.CONFIG_FILE)
    values["target_modules"] = peft_format.targets(config.get("target_modules"))
    for key in ("exclude_modules", "modules_to_save"):
        values[key] = peft_format.names(config.get(key), key=key)
    values["layers_to_transform"] = peft_format.indices(config.get("layers_to_transform"))
    return peft_format.section(LoraConfig, values)


def read_variant(
    kind: type[Variant],
    config: dict[str, Any],
    names: Collection[str],
    *,
    keys: Collection[str],
) -> Variant:
    """The section of a method whose file is a LoRA's with `keys` of its own beside."""
    plain = resolve_saved(read({k: v for k, v in config.items() if k not in keys}), names)
    shared = LowRankConfig.model_fields.keys() & kind.model_fields.keys() - {"name"}
    own = {key: config[key] for key in keys if key in config}
    return peft_format.section(kind, {**{key: getattr(plain, key) for key in shared}, **own})


def resolve_saved(config: LoraConfig, names: Collection[str]) -> LoraConfig:
    """modules_to_save by full names: PEFT means every module whose name ends so, dots or not."""
    owners = {
        peft_format.module_of(name).rpartition(".")[0] for name in names if ".lora_" not in name
    }
    resolved: dict[str, None] = {}
    for entry in config.modules_to_save:
        found = [whole for owner in sorted(owners) if (whole := _ending(owner, entry))]
        resolved.update(dict.fromkeys(found or [entry]))
    return config.model_copy(update={"modules_to_save": tuple(resolved)})


def _ending(owner: str, entry: str) -> str:
    """The outermost module around (or of) `owner` whose name ends with `entry`, or nothing."""
    parts = owner.split(".")
    outer = (".".join(parts[:count]) for count in range(1, len(parts) + 1))
    return next((name for name in outer if name.endswith(entry)), "")


def _refuse_bias(config: dict[str, Any]) -> None:
    if config.get("bias") not in (None, "none"):
        raise ModelError(
            f"bias = {config['bias']!r}: the file holds trained biases of the base",
            place=peft_format.CONFIG_FILE,
            hint="use PEFT for this adapter",
        )


def _refuse_start(config: dict[str, Any]) -> None:
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start not in HARMLESS_STARTS:
        raise ModelError(
            f"init_lora_weights = {start!r}: its start changed the base weights too",
            place=peft_format.CONFIG_FILE,
            hint="convert it with PEFT's path_initial_model_for_weight_conversion",
        )
