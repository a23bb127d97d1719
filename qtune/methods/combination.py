"""Several methods on one model: each trains, saves and folds as it does alone.

Stand-ins are stacked from the inside out: what changes a weight, what is added to a linear's
output, what stands around a block. Each part is made on the plain base, so its start is the one it
has alone. A part's tensors are named part-0/name, as its folder is.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from qtune.errors import ModelError
from qtune.methods import peft_format
from qtune.methods.adapter import refuse_attached
from qtune.methods.base import Edit, Method
from qtune.methods.standins import StandinMethod
from qtune.methods.table import METHODS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from torch import Tensor, nn

    from qtune.ranks import Ranks
    from qtune.recipe.methods import CombinationConfig, SingleMethod

_OUTSIDE = ("bitfit", "bottleneck")
"""Stand-ins that go over those of other methods, in this order."""


class Combination(Method):
    """The parts, as one method."""

    name: ClassVar[str] = "combination"
    peft_type: ClassVar[str] = "COMBINATION"
    config: CombinationConfig

    def __init__(self, config: CombinationConfig, *, seed: int) -> None:
        super().__init__(config, seed=seed)
        keys = part_keys(config.parts)
        self._parts: dict[str, Method] = {
            # two parts of one kind must not start alike
            key: METHODS[part.name](part, seed=seed + number)
            for number, (key, part) in enumerate(zip(keys, config.parts, strict=True))
        }
        starts = (part.identity_at_start for part in self._parts.values())
        self.identity_at_start = all(starts)  # type: ignore[misc]

    def attach(self, model: nn.Module, *, tokenizer: Any = None) -> None:
        """Attach every part; the model is the plain base again if one cannot be."""
        refuse_attached(model)
        stacked, others = self._by_kind()
        for standing in stacked:
            standing.attach(model, tokenizer=tokenizer)
            standing.detach()
        for part in others:
            part.attach(model, tokenizer=tokenizer)
        for standing in stacked:
            standing.put_over()
        self._attached: list[Method] = [*others, *stacked]
        self._gather()

    def detach(self) -> None:
        """Take the parts out, the last one first."""
        for part in reversed(self._attached):
            part.detach()
        self._gather()

    def _gather(self) -> None:
        self.adapters = {
            f"{key}/{name}": adapter
            for key, part in self._parts.items()
            for name, adapter in part.adapters.items()
        }

    def _by_kind(self) -> tuple[list[StandinMethod], list[Method]]:
        parts = list(self._parts.values())
        stacked = [part for part in parts if isinstance(part, StandinMethod)]
        return sorted(stacked, key=_depth), [p for p in parts if not isinstance(p, StandinMethod)]

    def parts(self) -> dict[str, Method]:
        """The parts by their keys."""
        return dict(self._parts)

    def parameters(self) -> dict[str, nn.Parameter]:
        """Those of every part, part/name."""
        return self._joined(lambda part: part.parameters())

    def file_parameters(self) -> dict[str, nn.Parameter]:
        """Those of every part, part/name."""
        return self._joined(lambda part: part.file_parameters())

    def adapter_state(self) -> dict[str, Tensor]:
        """Those of every part, part/name."""
        return self._joined(lambda part: part.adapter_state())

    def load_adapter(self, tensors: Mapping[str, Tensor]) -> None:
        """Give each part its own."""
        for key, own in split(tensors, self._parts).items():
            self._parts[key].load_adapter(own)

    def _joined(self, of: Callable[[Method], Mapping[str, Any]]) -> dict[str, Any]:
        return {
            f"{key}/{name}": value
            for key, part in self._parts.items()
            for name, value in of(part).items()
        }

    def param_groups(self, *, learning_rate: float, weight_decay: float) -> list[dict[str, Any]]:
        """Each part's own groups, at its own rate."""
        rates = self.config.rates or (1.0,) * len(self._parts)
        return [
            group
            for part, rate in zip(self._parts.values(), rates, strict=True)
            for group in part.param_groups(
                learning_rate=learning_rate * rate, weight_decay=weight_decay
            )
        ]

    def will_train(self, total_steps: int, *, longest_row: int) -> None:
        """Tell every part."""
        for part in self._parts.values():
            part.will_train(total_steps, longest_row=longest_row)

    def join(self, ranks: Ranks) -> None:
        """Tell every part."""
        for part in self._parts.values():
            part.join(ranks)

    def before_step(self, step: int) -> None:
        """Tell every part."""
        for part in self._parts.values():
            part.before_step(step)

    def after_backward(self, step: int) -> None:
        """Tell every part."""
        for part in self._parts.values():
            part.after_backward(step)

    def after_step(self, step: int) -> None:
        """Tell every part."""
        for part in self._parts.values():
            part.after_step(step)

    def extra_loss(self) -> Tensor | None:
        """The sum of the parts' terms."""
        terms = [part.extra_loss() for part in self._parts.values()]
        found = [term for term in terms if term is not None]
        return sum(found[1:], found[0]) if found else None

    def state(self) -> dict[str, Tensor]:
        """Those of every part, part/name."""
        return self._joined(lambda part: part.state())

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Give each part its own."""
        for key, own in split(tensors, self._parts).items():
            self._parts[key].load_state(own)

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """Without every part."""
        with ExitStack() as stack:
            for part in self._parts.values():
                stack.enter_context(part.disabled())
            yield

    def peft_config(self) -> dict[str, Any]:
        """The list of the parts' folders; each holds its own files."""
        return {**peft_format.header(self.peft_type), "parts": list(self._parts)}

    @classmethod
    def config_from_peft(cls, config: dict[str, Any]) -> CombinationConfig:
        """Never by itself: the parts' folders say what they are."""
        raise ModelError(f"the parts {config.get('parts')} are read by their folders")

    @classmethod
    def merged_config(cls, config: CombinationConfig, base: dict[str, Any]) -> dict[str, Any]:
        """With what each part changes."""
        for part in config.parts:
            base = METHODS[part.name].merged_config(part, base)
        return base

    @classmethod
    def merge_edits(
        cls,
        config: CombinationConfig,
        tensors: Mapping[str, Tensor],
        *,
        fan_in_fan_out: bool = False,
    ) -> dict[str, Edit]:
        """The parts' edits, one after another; `CannotMerge` if one of them has none."""
        found: dict[str, Edit] = {}
        keys = part_keys(config.parts)
        by_part = split(tensors, keys)
        in_order = sorted(zip(keys, config.parts, strict=True), key=lambda pair: _depth(pair[1]))
        for key, part in in_order:
            edits: dict[str, Edit] = METHODS[part.name].merge_edits(
                part, by_part[key], fan_in_fan_out=fan_in_fan_out
            )
            for name, edit in edits.items():
                found[name] = _then(found[name], edit) if name in found else edit
        return found


def part_keys(parts: Sequence[SingleMethod]) -> list[str]:
    """What the parts are called: by place, as a file does not tell a DyLoRA from a LoRA."""
    return [f"part-{number}" for number in range(len(parts))]


def split(tensors: Mapping[str, Tensor], keys: Iterable[str]) -> dict[str, dict[str, Tensor]]:
    """Tensors by part, under their names there; `ModelError` for one of no part."""
    found: dict[str, dict[str, Tensor]] = {key: {} for key in keys}
    for name, tensor in tensors.items():
        key, _, own = name.partition("/")
        if key not in found:
            raise ModelError(f"{name} belongs to none of the parts {', '.join(found)}")
        found[key][own] = tensor
    return found


def _depth(part: Method | SingleMethod) -> int:
    return _OUTSIDE.index(part.name) + 1 if part.name in _OUTSIDE else 0


def _then(first: Edit, second: Edit) -> Edit:
    """One edit after another, of which neither replaces the tensor."""
    assert second.needs_base, "two parts replace one tensor"

    def apply(base: Tensor | None) -> Tensor:
        return second.apply(first.apply(base))

    def by_rows(base: Tensor | None, start: int, stop: int) -> Tensor:
        assert first.by_rows is not None
        assert second.by_rows is not None
        return second.by_rows(first.by_rows(base, start, stop), start, stop)

    return Edit(
        first.needs_base,
        apply,
        may_create=first.may_create,
        by_rows=by_rows if first.by_rows and second.by_rows else None,
        shape=first.shape or second.shape,
    )
