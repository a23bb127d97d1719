"""`qtune export`: a run's adapter as a folder of its own, checked and complete."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtune import methods, recipe
from qtune.durable import write_text
from qtune.errors import ModelError, UsageError
from qtune.merging.staging import check_target, staged
from qtune.methods import exporting
from qtune.recipe.methods import DyloraConfig, parts_of
from qtune.run import cards
from qtune.run.cards import OWN_TYPES
from qtune.run.subject import ADAPTER, RECIPE, run_of

if TYPE_CHECKING:
    from qtune.methods import AdapterFile


def export(thing: str, target: Path, *, rank: int | None = None) -> dict[str, Any]:
    """Write the adapter of a run or of an adapter folder to the new folder `target`.

    What is written is read again and checked before it gets its name.
    """
    folder, run = _adapter_of(Path(thing).expanduser(), thing)
    adapter = methods.read(folder)
    if rank is not None and run is not None:
        refuse_untrained(run, rank)
    check_target(target, protected=[run or folder])
    with staged(target) as staging:
        exporting.export(adapter, staging, rank=rank)
        written = methods.read(staging)
        if not (staging / exporting.CARD).exists():
            write_text(staging / exporting.CARD, cards.of_adapter(written, thing))
        size = sum(path.stat().st_size for path in staging.rglob("*") if path.is_file())
    return {"thing": thing, "output": str(target), **_told(written), "bytes": size}


def _told(written: AdapterFile) -> dict[str, Any]:
    kind = written.raw["peft_type"]
    return {
        "method": written.facts.get("method") or written.config.name,
        "peft_type": kind,
        "for_peft": kind not in OWN_TYPES,
        "rank": getattr(written.config, "rank", None),
        "numbers": sum(tensor.numel() for tensor in written.tensors.values()),
        "tensors": len(written.tensors),
        "base": written.base_model,
    }


def _adapter_of(path: Path, thing: str) -> tuple[Path, Path | None]:
    """(the adapter's folder, its run's) of a run, its adapter, a checkpoint or a lone adapter."""
    if (path / RECIPE).is_file():
        if not (path / "adapter" / ADAPTER).is_file():
            raise ModelError(
                "the run has no finished adapter",
                place=thing,
                hint="train it first, or name one of its checkpoints",
            )
        return path / "adapter", path
    if (path / ADAPTER).is_file():
        return path, run_of(path.resolve())
    raise UsageError(f"neither a run ({RECIPE}) nor an adapter ({ADAPTER})", place=thing)


def refuse_untrained(run: Path, rank: int) -> None:
    """`UsageError` for a rank below those that the run drew."""
    for part in parts_of(recipe.load(run / RECIPE).recipe.method):
        if isinstance(part, DyloraConfig) and rank < part.min_rank:
            raise UsageError(
                f"{rank} is below method.min_rank, {part.min_rank}: never trained alone",
                place="--rank",
            )
