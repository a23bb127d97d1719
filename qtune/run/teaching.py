"""The teacher of a distillation: refused while that costs nothing, then loaded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from qtune import losses, models, plan
from qtune.data.lessons import Lessons
from qtune.errors import ModelError, UsageError
from qtune.ranks import ALONE
from qtune.recipe.lessons import content_hash, lessons_of, read_notes
from qtune.run.shapes import shape_and_note, teacher_of

if TYPE_CHECKING:
    from qtune.data import Rows
    from qtune.data.stream import Stream
    from qtune.methods.base import Method
    from qtune.models import Base
    from qtune.ranks import Ranks
    from qtune.recipe.sections import Recipe
    from qtune.run.display import Journal

PLACE = "loss.teacher"


def check_tokens(asked: Recipe, tokenizer: Any) -> None:
    """`ModelError` unless teacher and student mean the same by every id; no weights are read."""
    section = teacher_of(asked)
    if section is None:
        return
    own = tokenizer.get_vocab()
    theirs = models.load_tokenizer(section).get_vocab()
    if own == theirs:
        return
    differing = [token for token in own if theirs.get(token) != own[token]]
    differing += [token for token in theirs if token not in own]
    token = min(differing, key=lambda each: (own.get(each, len(own)), each))
    raise ModelError(
        f"the teacher has another vocabulary: {len(differing):,} tokens differ, such as {token!r} "
        f"({_id(own, token)} here, {_id(theirs, token)} there)",
        place=PLACE,
        hint="take a teacher of the same family: probabilities are compared token by token",
    )


def vocabulary_hash(tokenizer: Any) -> str:
    """sha256 of every token with its id."""
    vocabulary = sorted(tokenizer.get_vocab().items())
    return hashlib.sha256(json.dumps(vocabulary).encode()).hexdigest()


def open_lessons(
    asked: Recipe, tokenizer: Any, rows: Rows | Stream, journal: Journal
) -> Lessons | None:
    """What a teacher wrote of these rows, every byte checked, None where none did; `ModelError`,
    `UsageError` or `DataError` where it is not of this tokenizer, temperature or of a row."""
    folder = lessons_of(asked)
    if folder is None:
        return None
    lessons = Lessons.open(folder, on_progress=partial(journal.progress, "reading lessons"))
    notes = lessons.notes
    if notes["tokenizer"] != vocabulary_hash(tokenizer):
        hint = "write them again with qtune data teach"
        raise ModelError("its teacher had another tokenizer", place=PLACE, hint=hint)
    if notes["temperature"] != asked.loss.temperature:
        raise UsageError(
            f"is {asked.loss.temperature:g}, and the lessons are of {notes['temperature']:g}",
            place="loss.temperature",
            hint="what most tokens have in common is known at the temperature it was written at",
        )
    shape, _ = shape_and_note(asked.model, published=False)
    if shape.vocab_size < notes["width"]:
        message = f"speaks of {notes['width']:,} ids, the model of {shape.vocab_size:,}"
        raise ModelError(message, place=PLACE, hint="write them again with qtune data teach")
    assert isinstance(rows, Sequence)  # the recipe has no stream beside lessons
    lessons.check(rows)
    journal.line(
        f"teacher: {notes['teacher']['name']}, as it wrote: the {notes['top']:,} most likely of "
        f"{notes['width']:,} tokens"
    )
    return lessons


def teacher_fingerprint(asked: Recipe) -> str | None:
    """What the other model that teaches holds, or what one wrote; None without one."""
    written = lessons_of(asked)
    if written is not None:
        return content_hash(read_notes(written))
    section = teacher_of(asked)
    return None if section is None else models.fingerprint(models.resolve(section))


def _id(vocabulary: dict[str, int], token: str) -> str:
    number = vocabulary.get(token)
    return "none" if number is None else f"id {number}"


def load_teacher(
    asked: Recipe,
    base: Base,
    method: Method,
    *,
    device: torch.device,
    journal: Journal,
    ranks: Ranks = ALONE,
) -> losses.Teacher | None:
    """Who teaches: nobody who is asked now, the base without what is trained, or another model,
    proven as the base was, and whole at each of the `ranks`."""
    if asked.loss.teacher is None or lessons_of(asked) is not None:
        return None
    if teacher_of(asked) is None:
        journal.line("teacher: the base, without what is trained")
        return losses.Teacher(base.model, alone=method.disabled)
    return losses.Teacher(load_network(asked, device=device, journal=journal, ranks=ranks))


def load_network(
    asked: Recipe, *, device: torch.device, journal: Journal, ranks: Ranks = ALONE
) -> Any:
    """The other model that teaches, in eval mode."""
    section = teacher_of(asked)
    assert section is not None
    shape, _ = shape_and_note(section, published=False)
    held = plan.teacher_quantization(asked, shape)
    loading = partial(journal.progress, "loading the teacher")
    network = models.load(
        section,
        held,
        device=device,
        activations="none",
        on_progress=loading,
        spread=models.Spread(ranks),
    ).model
    own, _ = shape_and_note(asked.model, published=False)
    tokens = min(own.vocab_size, shape.vocab_size)
    losses.check_head(network, torch.arange(min(16, tokens), device=device))
    if asked.data.packing:
        models.check_isolation(network, vocabulary=tokens)
    models.fuse(network, "plain" if asked.memory.kernels == "plain" else "auto", "none")
    size = plan.human(sum(row.bytes for row in models.inventory(network).rows))
    journal.line(f"teacher: {section.name_or_path}, in {held.bits} bits, {size}")
    return network.eval()
