"""`qtune export --to gguf`: written, read back, and held against the model."""

from __future__ import annotations

import gc
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import TYPE_CHECKING, Any

import torch

from qtune import models
from qtune.durable import remove_tree, write_text
from qtune.errors import CheckError, ModelError
from qtune.gguf import architecture, placing, reading, spelling, vocabulary
from qtune.gguf import model as whole
from qtune.gguf.library import library
from qtune.merging import fidelity
from qtune.merging.staging import check_space
from qtune.run import cards, ollama
from qtune.run.merge import check_memory, merge, sample_rows
from qtune.run.subject import resolve

if TYPE_CHECKING:
    from pathlib import Path

    from qtune.gguf.encoding import Dtype
    from qtune.merging import Fidelity
    from qtune.run.display import Display
    from qtune.run.subject import Subject

# How far the logits may be, in nats a token: what rounding the weights to a format costs.
MAX_KL: dict[str, float] = {"f32": 1e-8, "f16": 1e-4, "bf16": 1e-3, "q8_0": 1e-2}
MERGED_AS = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}


@dataclass(frozen=True)
class Asked:
    """What a person chose: `dtype` None keeps the model's; `pre` names its way to cut text; a LoRA
    alone may be cut to a `rank`."""

    dtype: Dtype | None = None
    pre: str | None = None
    verify: bool = True
    rank: int | None = None


def to_gguf(
    thing: str, target: Path, *, base: str | None, asked: Asked, display: Display
) -> dict[str, Any]:
    """Write the GGUF file of a merged model, or of a run that is merged on the way."""
    library()
    subject = resolve(thing, base=base)
    out = placing.outputs(target, name="model.gguf")
    with out.staged() as staging:
        folder, merged = _dense(subject, thing, staging, base=base, asked=asked, display=display)
        work = _look_through(subject, folder, asked, place=thing)
        check_space(target, needed=sum(tensor.bytes for tensor in work.source.stored()))
        report = {
            "thing": subject.name,
            "output": str(target),
            "format": "gguf",
            **_write(work, staging / out.gguf, asked, display),
            "merge": merged,
        }
        template = ollama.write(
            staging / out.modelfile,
            base=out.gguf,
            adapter=None,
            tokenizer=work.tokenizer,
            ends=ollama.ends_of(folder),
        )
        report["template"] = template.name
        report["notes"] += [template.reason] if template.reason else []
        write_text(staging / out.card, cards.gguf_card(subject, folder, report, name=out.gguf))
        if merged is not None:
            remove_tree(staging / "merged")
    return {**report, "files": [str(path) for path in out.paths]}


@dataclass(frozen=True)
class _Work:
    """A dense model that can be written, and how its tokenizer is told."""

    subject: Subject
    folder: Path
    source: whole.Source
    tokenizer: Any
    words: vocabulary.Vocabulary


def _look_through(subject: Subject, folder: Path, asked: Asked, *, place: str) -> _Work:
    """All that may be refused before a weight is read."""
    source = whole.look_through(folder, dtype=asked.dtype, place=place)
    local = {"name_or_path": str(folder), "tokenizer": None, "chat_template": None}
    tokenizer = models.load_tokenizer(subject.model.model_copy(update=local))
    words = vocabulary.vocabulary_of(
        tokenizer,
        size=source.shape.vocabulary,
        ends=ollama.ends_of(folder),
        pre=asked.pre,
        place=place,
    )
    return _Work(subject, folder, source, tokenizer, words)


def _write(work: _Work, path: Path, asked: Asked, display: Display) -> dict[str, Any]:
    """Write the file, read it back and hold it against the model: the report of it."""
    source, words = work.source, work.words
    about = cards.about(work.subject, work.folder)
    progress = partial(display.progress, "writing the GGUF")
    tensors = whole.write_model(source, words, path, about=about, on_progress=progress)
    display.line("reading the file back")
    file = reading.File(path)
    worst = whole.compare_tensors(source, file, partial(display.progress, "comparing"))
    return {
        "architecture": source.shape.architecture.name,
        "dtype": source.dtype,
        "tensors": len(tensors),
        "bytes": path.stat().st_size,
        "worst_rounding": worst if source.dtype == "q8_0" else None,
        "tokenizer": {
            "model": words.model,
            "pre": words.pre,
            "spelled": spelling.check(file.fields, work.tokenizer, spelling.PROBES),
        },
        "verification": _verify(work, file, display) if asked.verify else None,
        "notes": [*source.shape.notes, *words.notes],
    }


def _dense(
    subject: Subject,
    thing: str,
    staging: Path,
    *,
    base: str | None,
    asked: Asked,
    display: Display,
) -> tuple[Path, dict[str, Any] | None]:
    """(a dense model's folder, the merge's report where one was needed)."""
    if subject.adapter is None:
        return models.resolve(subject.model), None
    _refuse_early(subject, asked, place=thing)
    settings = {"dtype": MERGED_AS[asked.dtype]} if asked.dtype in MERGED_AS else {}
    report = merge(
        thing,
        staging / "merged",
        base=base,
        settings=settings,
        verify=asked.verify,
        display=display,
    )
    return staging / "merged", {**report, "output": None}


def _refuse_early(subject: Subject, asked: Asked, *, place: str) -> None:
    """Before a run is merged: `ModelError` for a family or a tokenizer that GGUF has not."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(models.resolve(subject.model), trust_remote_code=False)
    if subject.model.task == "classification":
        raise ModelError("a classifier has no GGUF", place=place, hint="export it --to merged")
    shape = architecture.shape_of(config, place=place)
    tokenizer = models.load_tokenizer(subject.model)
    vocabulary.vocabulary_of(tokenizer, size=shape.vocabulary, pre=asked.pre, place=place)


def _verify(work: _Work, file: reading.File, display: Display) -> dict[str, Any]:
    """The logits of the file, read back into transformers, against the folder's; `CheckError`."""
    source = work.source
    numbers = sum(prod(entry["shape"]) for entry in source.checkpoint.table.values())
    check_memory(numbers, source.shape.vocabulary)
    rows, told = sample_rows(work.subject, source.shape.vocabulary, display)
    display.line(f"verifying the file on {sum(map(len, rows)):,} positions of {told}")
    logits = fidelity.all_logits(_plain(work.folder), rows)
    gc.collect()
    found = fidelity.compare(logits, reading.model_of(file), rows)
    return {**judged(found, source.dtype), "rows": told}


def judged(found: Fidelity, dtype: str) -> dict[str, Any]:
    """The figures of a comparison; `CheckError` when the logits are too far apart."""
    if not found.kl <= MAX_KL[dtype]:
        raise CheckError(
            f"the file is not the model: mean KL {found.kl:.2e} nats per token, allowed "
            f"{MAX_KL[dtype]:.0e} in {dtype} (top-1 agreement {100 * found.top1:.2f} %)",
            place="--dtype",
            hint="nothing was written; choose a finer --dtype",
        )
    return found.to_dict()


def _plain(folder: Path) -> Any:
    """The folder in transformers, in fp32."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging as transformers_logging

    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        return AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager", trust_remote_code=False
        )
    finally:
        if bars:
            transformers_logging.enable_progress_bar()
