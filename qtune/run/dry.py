"""`qtune train --dry-run`: everything that can fail early, without weights and without a trace."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from qtune import methods, recipe
from qtune.data.source import first_rows
from qtune.models.files import SMALL, locate
from qtune.models.preparation import freeze
from qtune.models.skeleton import build, exchange, quantizable
from qtune.ranks import Seat
from qtune.run import pins
from qtune.run.display import Journal
from qtune.run.labels import named
from qtune.run.prepare import check_count, decide, method_of, plan_line, read_rows, run_folder

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from qtune.plan import Plan
    from qtune.recipe.sections import Recipe
    from qtune.run.display import Display

SAMPLE_ROWS = 64


def dry_run(
    path: str | Path, *, overrides: Sequence[str] = (), display: Display, processes: int = 1
) -> dict[str, Any]:
    """Parse, plan for so many processes of this machine, tokenise the first rows of each source,
    build on the meta device; returns the plan and the data report of the sample."""
    journal = Journal(display)
    loaded = named(recipe.load(path, overrides))
    asked = loaded.recipe
    run_folder(loaded).check()
    decided = decide(asked, Seat(size=processes, local_size=processes))
    journal.line(plan_line(asked, decided))
    pins.check_inputs(asked, journal)
    tokenizer, prepared = read_rows(sample_of(asked), journal)
    build_without_weights(asked, decided, tokenizer)
    journal.line(f"dry run: {loaded.name} can start; nothing was loaded or written")
    return {"plan": decided.to_dict(), "data": prepared.report.to_dict()}


def sample_of(asked: Recipe) -> Recipe:
    """The recipe with each source cut to its first rows, those that val_size counts besides."""
    count = SAMPLE_ROWS + int(asked.data.val_size)  # of a share, rows are left anyway
    cut = {key: first_rows(getattr(asked.data, key), count) for key in ("train", "eval")}
    rows = asked.data.model_copy(update=cut)
    return asked.model_copy(update={"data": rows})


def build_without_weights(asked: Recipe, decided: Plan, tokenizer: Any) -> None:
    """Attach the method to the model on the meta device; its count must be the plan's."""
    section, quantization = asked.model, asked.quantization
    folder = locate(section.name_or_path, revision=section.revision, patterns=SMALL)
    network = build(folder, section, dtype=getattr(torch, quantization.compute_dtype))
    exchange(network, quantizable(network, quantization), quantization)
    freeze(network)
    method = methods.create(method_of(asked, network), seed=asked.train.seed)
    method.attach(network, tokenizer=tokenizer)
    check_count(method, decided)
