"""Fold an adapter's edits into full weights, one tensor in memory at a time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from qtune.durable import write_text
from qtune.errors import UsageError
from qtune.merging import companions
from qtune.merging.bases import OriginalBase, TrainedBase
from qtune.merging.blueprint import blueprint
from qtune.merging.folding import Folding
from qtune.merging.layout import lay_out
from qtune.merging.staging import check_space, check_target, staged
from qtune.models import writing
from qtune.ops.linears import class_heads

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import torch

    from qtune.merging.blueprint import Blueprint
    from qtune.merging.fidelity import Fidelity
    from qtune.merging.layout import Layout
    from qtune.methods.base import Edit
    from qtune.recipe.inputs import ModelSection, QuantizationSection

HEADER_BYTES = 512  # of a safetensors header, for each tensor


@dataclass(frozen=True)
class MergeReport:
    """What a merge wrote; `rounding` is what the output dtype cost, as a share of the change."""

    base: str
    dtype: str
    tensors: int
    edits: int
    parameters: int
    bytes: int
    files: int
    unties: bool
    rounding: float
    model_class: str = "AutoModelForCausalLM"
    """transformers' class that loads it."""
    fidelity: Fidelity | None = None

    def to_dict(self) -> dict[str, Any]:
        """The figures, for JSON."""
        return {
            "base": self.base,
            "dtype": self.dtype,
            "tensors": self.tensors,
            "edits": self.edits,
            "parameters": self.parameters,
            "bytes": self.bytes,
            "files": self.files,
            "unties_embeddings": self.unties,
            "rounding": self.rounding,
            "verification": self.fidelity.to_dict() if self.fidelity else None,
        }


@dataclass(frozen=True)
class Merge:
    """A merge that was checked as far as it can be without reading a weight."""

    folder: Path
    tokenizer_folder: Path
    base: str
    quantization: QuantizationSection
    blueprint: Blueprint
    layout: Layout
    edits: Mapping[str, Edit]
    chat: companions.Chat | None = None

    @property
    def parameters(self) -> int:
        """Elements of the merged model."""
        return self.layout.parameters


def prepare(
    folder: Path,
    section: ModelSection,
    quantization: QuantizationSection,
    edits: Mapping[str, Edit],
    *,
    base: str,
    dtype: torch.dtype | None,
    tokenizer_folder: Path,
) -> Merge:
    """Find a place for every edit, or raise `ModelError`; `dtype` None keeps that of the base."""
    plan = blueprint(folder, section, quantization)
    if base == "original" and plan.packed.weights:
        raise UsageError(
            "the base is stored quantised: there are no original weights to merge into",
            hint="merge with --base dequantized",
        )
    edits = {k: edit for k, edit in edits.items() if k in plan.stored or not edit.optional}
    layout = lay_out(folder, plan, edits, dtype=dtype)
    return Merge(folder, tokenizer_folder, base, quantization, plan, layout, edits)


def preflight(work: Merge, target: Path, *, protected: list[Path]) -> None:
    """Raise `OutputError` or `ResourceError` if the result has no place to go."""
    check_target(target, protected=[work.folder, *protected])
    check_space(target, needed=work.layout.bytes + HEADER_BYTES * len(work.layout.specs))


def write(
    work: Merge,
    target: Path,
    *,
    max_shard_bytes: int,
    verify: Callable[[Path], Fidelity | None],
    card: Callable[[MergeReport], str],
    on_progress: Callable[[int, int], None] | None = None,
) -> MergeReport:
    """Write the merged model beside `target`, verify it there, and only then name it `target`.

    Whatever is raised on the way (by `verify` too) leaves nothing behind.
    """
    folding = Folding(work.blueprint, work.layout, work.edits, base=_base(work))
    files = writing.split(work.layout.specs, max_bytes=max_shard_bytes)
    with staged(target) as staging:
        writing.write(staging, files, folding.tensor, on_progress=on_progress)
        folding.check()
        companions.write(
            staging,
            config=work.layout.config,
            base=work.folder,
            tokenizer=work.tokenizer_folder,
            chat=work.chat,
        )
        report = _report(work, folding, files=len(files))
        report = replace(report, fidelity=verify(staging))
        write_text(staging / "README.md", card(report))
    return report


def auto_class(network: Any) -> str:
    """transformers' class that loads such a model."""
    return f"AutoModelFor{'SequenceClassification' if class_heads(network) else 'CausalLM'}"


def _base(work: Merge) -> OriginalBase | TrainedBase:
    if work.base == "original":
        return OriginalBase(work.blueprint)
    return TrainedBase(work.blueprint, work.quantization)


def _report(work: Merge, folding: Folding, *, files: int) -> MergeReport:
    return MergeReport(
        base=work.base,
        dtype=str(work.layout.config["dtype"]),
        tensors=len(work.layout.specs),
        edits=len(work.edits),
        parameters=work.layout.parameters,
        bytes=work.layout.bytes,
        files=files,
        unties=work.layout.unties,
        rounding=folding.rounding,
        model_class=auto_class(work.blueprint.network),
    )
