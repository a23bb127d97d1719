"""Positions closer together, so that longer rows stay in the range that the model has learnt.

Linear position interpolation (Chen et al. 2023): position / factor, as transformers' rope_type
linear computes it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtune.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor, nn

_PLAIN = ("default", "linear")
KEYS = ("inv_freq", "original_inv_freq")


class RopeScale:
    """The frequencies of a model over a factor, while it is on."""

    def __init__(self, model: nn.Module, factor: float) -> None:
        self.factor = factor
        self._modules: list[Any] = [each for each in model.modules() if hasattr(each, "inv_freq")]
        kinds = {getattr(each, "rope_type", "unknown") for each in self._modules}
        if not self._modules or not kinds <= set(_PLAIN):
            what = ", ".join(map(str, sorted(map(str, kinds)))) or "none"
            raise UsageError(
                f"positions of this model cannot be interpolated (rope type: {what})",
                place="method.rope_factor",
                hint="leave rope_factor out",
            )
        self._kept: list[tuple[Any, str, Tensor]] = []

    def on(self) -> None:
        """Divide every frequency."""
        assert not self._kept, "scaled already"
        for module in self._modules:
            for key in KEYS:
                if hasattr(module, key):
                    old = getattr(module, key)
                    self._kept.append((module, key, old))
                    setattr(module, key, old / self.factor)

    def off(self) -> None:
        """Put the model's own frequencies back."""
        for module, key, old in self._kept:
            setattr(module, key, old)
        self._kept = []

    @property
    def is_on(self) -> bool:
        """Whether positions are interpolated now."""
        return bool(self._kept)


def scaled_config(config: dict[str, Any], factor: float) -> dict[str, Any]:
    """config.json of a model whose positions stand closer together."""
    if isinstance(text := config.get("text_config"), dict):
        return {**config, "text_config": scaled_config(text, factor)}
    key = "rope_parameters" if isinstance(config.get("rope_parameters"), dict) else "rope_scaling"
    old = config.get(key) or {}
    scaled = {**old, "rope_type": "linear", "factor": factor * float(old.get("factor") or 1.0)}
    changed = {**config, key: scaled}
    if isinstance(known := config.get("max_position_embeddings"), int):
        changed["max_position_embeddings"] = int(known * factor)
    return changed
