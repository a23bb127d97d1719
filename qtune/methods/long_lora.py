"""LongLoRA (Chen et al. 2023): longer rows by shifted sparse attention while training, LoRA, and
trained norms and input embeddings.

Evaluation and generation attend to everything. The file is that of a LoRA with modules_to_save;
the factor of the positions stands in qtune's own facts, as PEFT's config has no key for it.
"""

from __future__ import annotations

from contextlib import contextmanager
from math import ceil
from typing import TYPE_CHECKING, Any, ClassVar

from qtune.errors import UsageError
from qtune.methods import attention_interface, peft_format
from qtune.methods.attention_interface import attention_modules
from qtune.methods.lora_linear import LoraLinear
from qtune.methods.low_rank import LowRank
from qtune.methods.rope_scale import RopeScale, scaled_config
from qtune.methods.selective import places
from qtune.methods.shifted_attention import (
    CHILD,
    IMPLEMENTATION,
    Shifted,
    attention,
    put_in,
)
from qtune.plan.selective import modules_of
from qtune.recipe.methods import LongLoraConfig

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

    from qtune.recipe.methods import LoraConfig

OWN = ("group_share", "rope_factor", "train_norms", "train_embeddings")


class LongLora(LowRank):
    """LoRA for longer rows."""

    name: ClassVar[str] = "long_lora"
    config: LongLoraConfig

    def __init__(self, config: LongLoraConfig, *, seed: int) -> None:
        super().__init__(config, seed=seed)
        self.identity_at_start = config.rope_factor in (None, 1.0)  # type: ignore[misc]
        self._rope: RopeScale | None = None

    def attach(self, model: nn.Module, *, tokenizer: Any = None) -> None:
        """As LoRA, with norms and embeddings; `UsageError` for an attention of another kind."""
        attention_interface.refuse_other_bases(model, "shifted attention")
        if not attention_modules(model):
            family = model.config.model_type  # type: ignore[union-attr]
            raise UsageError(f"long_lora does not know the attention of {family}")
        rope = None
        if self.config.rope_factor is not None:
            rope = RopeScale(model, self.config.rope_factor)
        whole = [*self.config.modules_to_save, *modules_of(self.config, places(model))]
        update = {"modules_to_save": tuple(dict.fromkeys(whole))}
        self.config = self.config.model_copy(update=update)
        super().attach(model, tokenizer=tokenizer)
        self._rope = rope
        self._bend()

    def put_over(self) -> None:
        """As every stand-in's, and the attention again."""
        super().put_over()
        self._bend()

    def detach(self) -> None:
        """Give attention, positions and modules back."""
        for module in attention_modules(self._model):
            delattr(module, CHILD)
        attention_interface.take_out(self._model)
        if self._rope is not None:
            self._rope.off()
        super().detach()

    def _bend(self) -> None:
        self.adapters |= put_in(attention_modules(self._model), self.config.group_share)
        attention_interface.put_in(self._model, IMPLEMENTATION, attention)
        if self._rope is not None:
            self._rope.on()

    def will_train(self, total_steps: int, *, longest_row: int) -> None:  # noqa: ARG002
        """Groups of as many tokens for every row, however long what stands beside it is."""
        for child in self.adapters.values():
            if isinstance(child, Shifted):
                child.group = ceil(longest_row * self.config.group_share)

    def kind(self) -> type[LoraLinear]:
        """A LoRA layer."""
        return LoraLinear

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """The plain base, with its own positions."""
        scaled = self._rope if self._rope is not None and self._rope.is_on else None
        with super().disabled():
            if scaled is not None:
                scaled.off()
            try:
                yield
            finally:
                if scaled is not None:
                    scaled.on()

    def own_facts(self) -> dict[str, Any]:
        """What PEFT's config has no key for."""
        return {key: getattr(self.config, key) for key in OWN}

    @classmethod
    def config_with_facts(cls, config: LoraConfig, facts: dict[str, Any]) -> LongLoraConfig:
        """The section of a file that long_lora wrote."""
        shared = set(LongLoraConfig.model_fields) & set(type(config).model_fields) - {"name"}
        values = {key: getattr(config, key) for key in shared}
        own = {key: facts[key] for key in OWN if key in facts}
        return peft_format.section(LongLoraConfig, {**values, **own})

    @classmethod
    def merged_config(cls, config: LongLoraConfig, base: dict[str, Any]) -> dict[str, Any]:
        """With positions interpolated."""
        return base if config.rope_factor is None else scaled_config(base, config.rope_factor)
