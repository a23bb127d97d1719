"""Several runs or adapters of one base, combined into one LoRA."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qtune import models
from qtune.errors import ModelError
from qtune.merging.staging import check_target, staged
from qtune.methods import combining
from qtune.run.subject import refuse_overrides, resolve

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from qtune.methods import AdapterFile
    from qtune.recipe.results import Combination
    from qtune.run.subject import Subject


@dataclass(frozen=True)
class Asked:
    """With which others an adapter is combined, and how, as the command line says it."""

    others: tuple[str, ...]
    how: Combination = "cat"
    weights: tuple[float, ...] = ()
    """One for each adapter; equal shares of 1 without them."""
    density: float | None = None
    seed: int = 0

    @property
    def shares(self) -> tuple[float, ...]:
        """The weight of each adapter, the first included."""
        count = 1 + len(self.others)
        return self.weights or (1.0 / count,) * count


def together(
    thing: str, asked: Asked, *, base: str | None, overrides: Sequence[str]
) -> tuple[Subject, AdapterFile]:
    """The first subject, and all adapters as one; `ModelError` unless their base is the same."""
    things = (thing, *asked.others)
    subjects = [resolve(each, base=base, overrides=overrides) for each in things]
    for subject in subjects:
        refuse_overrides(subject, overrides)
    first, *others = subjects
    adapters = [subject.read_adapter() for subject in subjects]
    fingerprint = models.fingerprint(models.resolve(first.model))
    for adapter in adapters:
        adapter.require_base(fingerprint)
    for other in others:
        if other.quantization != first.quantization:
            raise ModelError(
                f"{other.name} was trained on another quantisation of the base than {first.name}",
                hint="only adapters of one base can be combined",
            )
    combined = combining.combine(
        adapters,
        asked.shares,
        how=asked.how,
        density=asked.density,
        seed=asked.seed,
    )
    return first, combined


def write_adapter(
    thing: str,
    target: Path,
    asked: Asked,
    *,
    base: str | None = None,
    overrides: Sequence[str] = (),
) -> dict[str, Any]:
    """Write the combined adapter, and no merged model, to the new folder `target`."""
    first, adapter = together(thing, asked, base=base, overrides=overrides)
    read = [each for each in (first.run, first.adapter) if each is not None]
    check_target(target, protected=read)
    with staged(target) as staging:
        combining.save(adapter, staging)
    return {
        "output": str(target),
        "adapters": [thing, *asked.others],
        "combine": asked.how,
        "weights": list(asked.shares),
        "rank": adapter.raw["r"],
        "tensors": len(adapter.tensors),
        "bytes": sum(path.stat().st_size for path in target.iterdir()),
    }
