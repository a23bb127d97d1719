"""`qtune data teach`: a teacher writes down once what training may then learn from without it."""

from __future__ import annotations

import hashlib
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from qtune import data, losses, models, plan, recipe
from qtune.data.batch import collate, filler_id
from qtune.data.lesson_writer import LessonWriter
from qtune.data.lessons import digests_of
from qtune.data.rows import IGNORED
from qtune.errors import UsageError
from qtune.losses.head import criterion_of, output_layer
from qtune.ops.top_distillation import most_likely
from qtune.recipe.lessons import lessons_of
from qtune.run.display import Journal
from qtune.run.labels import named
from qtune.run.quantize import short_name
from qtune.run.shapes import shape_and_note, teacher_of
from qtune.run.subject import working_device
from qtune.run.teaching import check_tokens, load_network, vocabulary_hash

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from qtune.data import EncodedRow, Rows
    from qtune.recipe.sections import Recipe
    from qtune.run.display import Display

PASS_TOKENS = {"cpu": 4096, "cuda": 16_384}
CHUNK = 512  # positions whose logits exist at a time
Dtype = Literal["float16", "float32"]


def teach(
    path: str | Path,
    target: Path,
    *,
    top: int,
    dtype: Dtype,
    overrides: Sequence[str] = (),
    display: Display,
) -> dict[str, Any]:
    """Write what loss.teacher says of each training row into the folder `target`, or go on with
    it; returns the report."""
    journal = Journal(display)
    asked = named(recipe.load(path, overrides)).recipe
    _check(asked, top)
    tokenizer = models.load_tokenizer(asked.model)
    check_tokens(asked, tokenizer)
    prepared = data.prepare(asked, tokenizer, on_progress=partial(journal.progress, "tokenising"))
    rows = _distinct(prepared.train)
    facts = _facts(asked, tokenizer, rows, top=top, dtype=dtype)
    writer = LessonWriter.open(target, facts)
    if writer.done:
        journal.line(f"going on after {writer.done:,} of {len(rows):,} rows")
    device = working_device()
    network = _network(asked, device, journal)
    with torch.no_grad():
        for done, batch in _batches(rows, PASS_TOKENS[device.type], start=writer.done):
            _write(writer, network, batch, pad_id=filler_id(tokenizer))
            writer.pause()
            journal.progress("teaching", done, len(rows))
    notes = writer.finish()
    size = sum((target / name).stat().st_size for name in notes["parts"])
    journal.line(f"{len(rows):,} rows in {target}, {plan.human(size)}")
    return {**notes, "output": str(target), "rows": len(rows), "bytes": size}


def _check(asked: Recipe, top: int) -> None:
    if top < 1:
        raise UsageError("must be at least 1", place="--top")
    if asked.loss.teacher is None:
        raise UsageError(
            "no teacher is named", place="loss.teacher", hint="add --set loss.teacher=MODEL"
        )
    if lessons_of(asked) is not None:
        raise UsageError(
            "names what a teacher wrote already, no model",
            place="loss.teacher",
            hint="add --set loss.teacher=MODEL",
        )


def _distinct(rows: Rows) -> Rows:
    """Each different row once, the longest first."""
    first = {digest: number for number, digest in reversed(list(enumerate(digests_of(rows))))}
    lengths = rows.lengths
    return rows.take(sorted(first.values(), key=lambda number: (-lengths[number], number)))


def _facts(asked: Recipe, tokenizer: Any, rows: Rows, *, top: int, dtype: Dtype) -> dict[str, Any]:
    """All that shapes lessons, and what they are of."""
    own, _ = shape_and_note(asked.model, published=False)
    section = teacher_of(asked) or asked.model
    shape, _ = shape_and_note(section, published=False)
    held = plan.teacher_quantization(asked, shape) if teacher_of(asked) else asked.quantization
    width = min(own.vocab_size, shape.vocab_size)
    return {
        "teacher": {
            "name": short_name(section.name_or_path),
            "fingerprint": models.fingerprint(models.resolve(section)),
        },
        "held": held.model_dump(mode="json"),
        "tokenizer": vocabulary_hash(tokenizer),
        "rows": hashlib.sha256(b"".join(digests_of(rows))).hexdigest(),
        "temperature": asked.loss.temperature,
        "top": min(top, width),
        "width": width,
        "dtype": dtype,
    }


def _network(asked: Recipe, device: torch.device, journal: Journal) -> Any:
    """The teacher alone: another model, or the base as the recipe holds it."""
    if teacher_of(asked) is not None:
        return load_network(asked, device=device, journal=journal)
    loading = partial(journal.progress, "loading")
    base = models.load(
        asked.model, asked.quantization, device=device, activations="none", on_progress=loading
    )
    losses.check_head(base.model, torch.arange(8, device=device))
    return base.model.eval()


def _batches(rows: Rows, tokens: int, *, start: int) -> Iterator[tuple[int, list[EncodedRow]]]:
    """Rows of a pass, at most so many tokens with their padding, and how many are done with it."""
    lengths = rows.lengths.tolist()
    while start < len(rows):
        count = max(1, tokens // lengths[start])
        batch = list(rows[start : start + count])
        start += len(batch)
        yield start, batch


def _write(writer: LessonWriter, network: Any, rows: list[EncodedRow], *, pad_id: int) -> None:
    """One pass of the teacher, and what it says of each row."""
    batch = collate(rows, pad_id=pad_id).to(next(network.parameters()).device)
    hidden_SG = losses.Teacher(network).hidden(batch)
    facts, head, criterion = writer.facts, output_layer(network), criterion_of(network)
    found = [
        most_likely(
            criterion.logits(head(hidden_CG)[:, : facts["width"]].float()),
            facts["top"],
            temperature=facts["temperature"],
        )
        for hidden_CG in hidden_SG.split(CHUNK)
    ]
    ids, logs = (torch.cat(each).cpu().numpy() for each in zip(*found, strict=True))
    ends = np.cumsum([_learnt(row) for row in rows])[:-1]
    for row, *lesson in zip(rows, np.split(ids, ends), np.split(logs, ends), strict=True):
        writer.add(row, *lesson)


def _learnt(row: EncodedRow) -> int:
    """Places of a row whose next token is learnt; nothing stands before the first."""
    return sum(label != IGNORED for label in row.labels[1:])
