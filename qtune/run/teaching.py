"""The teacher of a distillation: refused while that costs nothing, then loaded."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from qtune import losses, models, plan
from qtune.errors import ModelError
from qtune.run.shapes import shape_and_note, teacher_of

if TYPE_CHECKING:
    from qtune.methods.base import Method
    from qtune.models import Base
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


def teacher_fingerprint(asked: Recipe) -> str | None:
    """What the other model that teaches holds, None without one."""
    section = teacher_of(asked)
    return None if section is None else models.fingerprint(models.resolve(section))


def _id(vocabulary: dict[str, int], token: str) -> str:
    number = vocabulary.get(token)
    return "none" if number is None else f"id {number}"


def load_teacher(
    asked: Recipe, base: Base, method: Method, *, device: torch.device, journal: Journal
) -> losses.Teacher | None:
    """Who teaches: nobody, the base without what is trained, or another model, proven as the base
    was."""
    if asked.loss.teacher is None:
        return None
    section = teacher_of(asked)
    if section is None:
        journal.line("teacher: the base, without what is trained")
        return losses.Teacher(base.model, alone=method.disabled)
    shape, _ = shape_and_note(section, published=False)
    held = plan.teacher_quantization(asked, shape)
    loading = partial(journal.progress, "loading the teacher")
    network = models.load(
        section, held, device=device, activations="none", on_progress=loading
    ).model
    tokens = min(base.model.get_input_embeddings().weight.shape[0], shape.vocab_size)
    losses.check_head(network, torch.arange(min(16, tokens), device=device))
    if asked.data.packing:
        models.check_isolation(network, vocabulary=tokens)
    models.fuse(network, "plain" if asked.memory.kernels == "plain" else "auto", "none")
    size = plan.human(sum(row.bytes for row in models.inventory(network).rows))
    journal.line(f"teacher: {section.name_or_path}, in {held.bits} bits, {size}")
    return losses.Teacher(network.eval())
