"""`qtune prune`: set weights of a model to zero, as training on it finds them afterwards."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qtune import data, models, recipe
from qtune.errors import DataError, UsageError
from qtune.models import pruning
from qtune.ops.pruning import Pattern, Share
from qtune.run.quantize import absolute, check_target, short_name
from qtune.run.subject import working_device

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qtune.models.pruning import Method, Outcome, Pruning
    from qtune.ops.pruning import Sparsity
    from qtune.recipe.sections import Recipe
    from qtune.run.display import Display

DEFAULT_SHARE = 0.5
WIDEST = 64  # inputs of a pattern
RECIPES = (".yaml", ".yml")


@dataclass(frozen=True)
class Request:
    """What the command line asks for; one of `share` and `pattern` at most."""

    method: Method
    share: float | None = None
    pattern: str | None = None
    calibration: str | None = None
    rows: int = 128

    def sparsity(self) -> Sparsity:
        """The share or the pattern; `UsageError` where there is no such."""
        if self.pattern is not None and self.share is not None:
            raise UsageError("has no effect beside --pattern", place="--sparsity")
        if self.pattern is not None:
            return _pattern(self.pattern)
        share = DEFAULT_SHARE if self.share is None else self.share
        if not 0 < share < 1:
            raise UsageError(
                f"{share:g} is no share of the weights between 0 and 1", place="--sparsity"
            )
        return Share(share)

    def check(self) -> None:
        """`UsageError` where a method has no rows to work with."""
        if self.rows < 1:
            raise UsageError("must be at least 1", place="--rows")
        if self.calibration is None and self.method in pruning.NEEDS_ROWS:
            raise UsageError(
                f"{self.method} looks at what the model computes on some rows",
                place="--calibration",
                hint="name a recipe or a data file, or take --method magnitude",
            )


def prune(model: str, target: Path, request: Request, *, display: Display) -> dict[str, Any]:
    """Write the pruned model to the new folder `target`; returns the report."""
    sparsity = request.sparsity()
    request.check()
    asked = recipe.for_model(absolute(model))
    work = pruning.prepare(asked.model, request.method, sparsity, device=working_device())
    check_target(target, work.folder)
    rows = _rows(asked, request, display)
    if rows:
        display.line(f"{len(rows)} calibration rows of {sum(map(len, rows)):,} tokens")
        work.start(rows)
    told: dict[str, Any] = {
        "model": short_name(asked.model.name_or_path),
        "method": request.method,
        "sparsity": sparsity.value,
        "pattern": request.pattern,
        "calibration": shown(request.calibration),
        "calibration_rows": len(rows),
        "calibration_tokens": sum(map(len, rows)),
    }

    def report() -> tuple[dict[str, Any], str]:
        told.update(_account(work))
        return told, table(told)

    pruning.write(work, target, report, on_progress=partial(display.progress, "pruning"))
    return {"output": str(target), **told}


def table(report: dict[str, Any]) -> str:
    """The report as Markdown: a line for each layer."""
    how = report["pattern"] or f"{100 * report['sparsity']:g} %"
    lines = [
        f"# {report['model']}, pruned by {report['method']} ({how})",
        "",
        f"{report['zeros']:,} of {report['weights']:,} weights of the layers' linears are zero. "
        "Errors are squared and relative: of the weights, and of the outputs on a sample of the "
        "calibration tokens as they come from the pruned layers before.",
        "",
        "| layer | zeros | weight error | output error |",
        "|---|---|---|---|",
    ]
    for layer in report["layers"]:
        error = "" if layer["output_error"] is None else f"{layer['output_error']:.4f}"
        lines.append(
            f"| {layer['layer']} | {100 * layer['sparsity']:.2f} % | "
            f"{layer['weight_error']:.4f} | {error} |"
        )
    return "\n".join(lines) + "\n"


def shown(calibration: str | None) -> str | None:
    """A file by its own name, a hub id as it is: no path of this machine."""
    if calibration is None or not Path(calibration).exists():
        return calibration
    return Path(calibration).resolve().name


def _pattern(text: str) -> Pattern:
    keep, _, of = text.partition(":")
    if not (keep.isdecimal() and of.isdecimal() and 0 < int(keep) < int(of) <= WIDEST):
        raise UsageError(
            f"{text!r} is no pattern",
            place="--pattern",
            hint="2:4 keeps 2 of each 4 consecutive inputs; the second number is 64 at most",
        )
    return Pattern(int(keep), int(of))


def _rows(asked: Recipe, request: Request, display: Display) -> list[list[int]]:
    """The tokens of the calibration rows; none where none are asked for."""
    if request.calibration is None:
        return []
    return calibration_rows(asked, request.calibration, request.rows, display)


def calibration_rows(
    asked: Recipe, named: str | None, most: int, display: Display
) -> list[list[int]]:
    """The tokens of at most so many rows of a recipe or a data file, drawn evenly."""
    assert named is not None
    source = _calibration(asked, named)
    tokenizer = models.load_tokenizer(source.model)
    prepared = data.prepare(source, tokenizer, on_progress=partial(display.progress, "tokenising"))
    found = prepared.train
    if not len(found):
        raise DataError("holds no row to calibrate on", place=named)
    count = min(most, len(found))
    drawn = np.random.default_rng(source.train.seed).choice(len(found), count, replace=False)
    return [found[int(number)].input_ids for number in sorted(drawn)]


def _calibration(asked: Recipe, named: str) -> Recipe:
    """The training rows of a recipe, or of a data file, encoded for the model that is pruned."""
    if named.endswith(RECIPES):
        name = json.dumps(asked.model.name_or_path)
        settings = [f"model.name_or_path={name}", "data.eval=[]", "data.streaming=false"]
        found = recipe.load(named, settings).recipe
        if found.model.task != "causal":
            raise UsageError(
                "its rows are labelled, not written on", place=named, hint="name a data file"
            )
        return found
    path = str(Path(named).resolve()) if Path(named).exists() else named
    return recipe.for_model(
        asked.model.name_or_path, [f"data.train=[{{path: {json.dumps(path)}}}]"]
    )


def _account(work: Pruning) -> dict[str, Any]:
    """Sparsity and errors of each linear, each layer and all."""
    outcomes = sorted(work.outcomes, key=lambda outcome: outcome.layer)
    weights, zeros = sum(o.weights for o in outcomes), sum(o.zeros for o in outcomes)
    numbers = sorted({outcome.layer for outcome in outcomes})
    layers = [_layer(number, [o for o in outcomes if o.layer == number]) for number in numbers]
    errors = [layer["output_error"] for layer in layers if layer["output_error"] is not None]
    return {
        "weights": weights,
        "zeros": zeros,
        "output_error": sum(errors) / len(errors) if errors else None,
        "layers": layers,
        "linears": [
            asdict(outcome) | {"sparsity": outcome.zeros / outcome.weights} for outcome in outcomes
        ],
    }


def _layer(number: int, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """A layer's figures; its errors are the means of its linears'."""
    errors = [o.output_error for o in outcomes if o.output_error is not None]
    return {
        "layer": number,
        "sparsity": sum(o.zeros for o in outcomes) / sum(o.weights for o in outcomes),
        "weight_error": sum(o.weight_error for o in outcomes) / len(outcomes),
        "output_error": sum(errors) / len(errors) if errors else None,
    }
