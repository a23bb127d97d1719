"""Fold an adapter's edits into full weights, some rows of one tensor in memory at a time."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from math import prod
from typing import TYPE_CHECKING, Any

from qtune.durable import write_text
from qtune.errors import ResourceError, UsageError
from qtune.merging import companions, shard_file
from qtune.merging.account import Account, refuse_idle
from qtune.merging.bases import OriginalBase, TrainedBase
from qtune.merging.blueprint import blueprint
from qtune.merging.folding import AT_ONCE, Folding
from qtune.merging.layout import lay_out
from qtune.merging.progress import NAME as PROGRESS
from qtune.merging.progress import Progress, key_of
from qtune.merging.sheet import finished
from qtune.merging.staging import check_space, check_target, resumable
from qtune.models import writing
from qtune.ops.linears import class_heads
from qtune.plan import human, sees_images

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    import torch

    from qtune.merging.blueprint import Blueprint
    from qtune.merging.fidelity import Fidelity
    from qtune.merging.layout import Layout
    from qtune.merging.sheet import Block
    from qtune.methods.base import Edit
    from qtune.models.writing import TensorSpec
    from qtune.recipe.inputs import ModelSection, QuantizationSection

log = logging.getLogger(__name__)
BLOCK_BYTES = 24  # for each element of a block: base, result and change, in fp32 and as stored
WHOLE_BYTES = 40  # for each element of a tensor that is edited whole, with what its method makes
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
    quantized: Fidelity | None = None
    """Of a result that was quantised again: how far that is from the trained model."""

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
            "quantized": self.quantized.to_dict() if self.quantized else None,
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
    identity: Mapping[str, Any] = field(default_factory=dict)
    """What adapter and base are merged, for a merge that goes on after a kill."""

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


def preflight(
    work: Merge, target: Path, *, protected: list[Path], max_memory: int | None = None
) -> None:
    """Raise `OutputError` or `ResourceError` if the result has no place to go, or some tensor is
    too large for the `max_memory` bytes that are left."""
    check_target(target, protected=[work.folder, *protected])
    needed = working_set(work)
    if max_memory is not None and needed > max_memory:
        raise ResourceError(
            f"the merge needs {human(needed)} beside its libraries and the adapter, "
            f"{human(max(max_memory, 0))} are left",
            place="merge.max_memory",
            hint="raise --max-memory",
        )
    check_space(target, needed=work.layout.bytes + HEADER_BYTES * len(work.layout.specs))


def working_set(work: Merge) -> int:
    """Bytes that folding takes beside libraries and adapter: the sheets of a file, blocks of rows,
    and the largest tensor whose edit needs it whole."""
    whole = [
        spec.bytes // spec.dtype.itemsize
        for spec in work.layout.specs
        if spec.name in work.edits and work.edits[spec.name].by_rows is None
    ]
    row = max(prod(spec.shape[1:]) for spec in work.layout.specs)
    blocks = max(shard_file.makers() * AT_ONCE, row)
    sheets = shard_file.sheets() * shard_file.SHEET
    return sheets + BLOCK_BYTES * blocks + WHOLE_BYTES * max(whole, default=0)


def write(
    work: Merge,
    target: Path,
    *,
    max_shard_bytes: int,
    verify: Callable[[Path], Fidelity | None],
    card: Callable[[MergeReport], str],
    quantize: Callable[[Path], Fidelity] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> MergeReport:
    """Write the merged model beside `target`, verify it there, and only then name it `target`.

    `quantize` may make other weight files of the verified ones, and tells how good these are.
    What is raised by qtune on the way (by `verify` too) leaves nothing behind. A process that is
    killed leaves its finished files, hidden, and the same merge goes on behind them.
    """
    files = writing.split(work.layout.specs, max_bytes=max_shard_bytes)
    key = key_of({**work.identity, "layout": _layout_of(work), "max_shard_bytes": max_shard_bytes})
    with resumable(target, key, kept=lambda folder: (folder / PROGRESS).is_file()) as staging:
        progress = Progress.read(staging, key, work.identity)
        account = _write_files(work, staging, files, progress, on_progress)
        refuse_idle(account, len(work.edits))
        companions.write(
            staging,
            config=work.layout.config,
            base=work.folder,
            tokenizer=work.tokenizer_folder,
            chat=work.chat,
        )
        report = _report(work, account, files=len(files))
        report = replace(report, fidelity=verify(staging))
        if quantize is not None:
            report = replace(report, quantized=quantize(staging))
            progress.replace(staging.glob("*.safetensors"))
        write_text(staging / "README.md", card(report))
    return report


def _write_files(
    work: Merge,
    staging: Path,
    files: Sequence[Sequence[TensorSpec]],
    progress: Progress,
    on_progress: Callable[[int, int], None] | None,
) -> Account:
    """The weight files that are not there yet; the account of all."""
    folding = Folding(work.blueprint, work.layout, work.edits, base=base_of(work))
    count = Counter(work.layout.bytes, on_progress)
    total = Account()
    if len(progress):
        log.info("going on behind %d of %d files that are there", len(progress), len(files))
    for name, specs in zip(writing.file_names(len(files)), files, strict=True):
        account = progress.account(name)
        if account is None:
            sha256, told = shard_file.write(staging / name, _blocks(folding, specs, count))
            account = Account.of([effect for effect in told if effect is not None])
            progress.add(name, sha256, account)
        else:
            count(sum(spec.bytes for spec in specs))
        total.add(account)
    if len(files) > 1:
        writing.write_index(staging, files)
    return total


def _blocks(folding: Folding, specs: Sequence[TensorSpec], count: Counter) -> Iterator[Block]:
    """A weight file from its header on."""
    yield finished(writing.header(specs))
    for spec in specs:
        rest = spec.bytes
        for block in folding.blocks(spec):
            yield block
            rest -= block.bytes
            count(block.bytes)
        assert rest == 0, f"{spec.name}: {rest} bytes are missing"


class Counter:
    """Tells how many of all bytes are done."""

    def __init__(self, total: int, on_progress: Callable[[int, int], None] | None) -> None:
        self._total, self._tell = total, on_progress
        self._done = 0

    def __call__(self, size: int) -> None:
        """So many more are done."""
        self._done += size
        if self._tell is not None:
            self._tell(self._done, self._total)


def auto_class(network: Any) -> str:
    """transformers' class that loads such a model."""
    if not class_heads(network):
        return "AutoModelForCausalLM"
    kind = "Image" if sees_images(network.config.to_dict()) else "Sequence"
    return f"AutoModelFor{kind}Classification"


def base_of(work: Merge) -> OriginalBase | TrainedBase:
    """Where the weights are read that the adapter is added to."""
    if work.base == "original":
        return OriginalBase(work.blueprint)
    return TrainedBase(work.blueprint, work.quantization)


def _layout_of(work: Merge) -> list[Any]:
    """What of a layout decides the bytes of the files, as JSON."""
    specs = [[spec.name, list(spec.shape), str(spec.dtype)] for spec in work.layout.specs]
    return [work.base, specs, work.layout.config, work.quantization.model_dump(mode="json")]


def _report(work: Merge, account: Account, *, files: int) -> MergeReport:
    return MergeReport(
        base=work.base,
        dtype=str(work.layout.config["dtype"]),
        tensors=len(work.layout.specs),
        edits=len(work.edits),
        parameters=work.layout.parameters,
        bytes=work.layout.bytes,
        files=files,
        unties=work.layout.unties,
        rounding=account.lost,
        model_class=auto_class(work.blueprint.network),
    )
