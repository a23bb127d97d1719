"""`qtune prune --drop-...`: a smaller model, without the parts that count least."""

from __future__ import annotations

from functools import partial
from math import prod
from typing import TYPE_CHECKING, Any

from qtune import recipe
from qtune.errors import UsageError
from qtune.models import structured
from qtune.run.prune import calibration_rows, shown
from qtune.run.quantize import absolute, check_target, short_name
from qtune.run.subject import working_device

if TYPE_CHECKING:
    from pathlib import Path

    from qtune.models.structured import Cut, Shrinking
    from qtune.run.display import Display


def shrink(
    model: str, target: Path, cut: Cut, calibration: str | None, *, rows: int, display: Display
) -> dict[str, Any]:
    """Write the smaller model to the new folder `target`; returns the report."""
    _check(cut, calibration)
    asked = recipe.for_model(absolute(model))
    work = structured.prepare(asked.model, cut, device=working_device())
    check_target(target, work.work.folder)
    found = calibration_rows(asked, calibration, rows, display)
    display.line(f"{len(found)} calibration rows of {sum(map(len, found)):,} tokens")
    work.look(found, partial(display.progress, "looking"))
    told = {
        "model": short_name(asked.model.name_or_path),
        "method": "structured",
        "calibration": shown(calibration),
        "calibration_rows": len(found),
        "calibration_tokens": sum(map(len, found)),
        **account(work),
    }

    def report() -> tuple[dict[str, Any], str]:
        return told, table(told)

    structured.write(work, target, report, on_progress=partial(display.progress, "writing"))
    return {"output": str(target), **told}


def account(work: Shrinking) -> dict[str, Any]:
    """Sizes before and after, and how much of each layer's importance stays."""
    weights = sum(prod(entry["shape"]) for entry in work.work.checkpoint.table.values())
    kept = set(work.kept_layers)
    return {
        "parameters_before": weights,
        "parameters": sum(prod(spec.shape) for spec in work.specs),
        "channels": [work.before.channels, work.after.channels],
        "heads": [work.before.heads, work.after.heads],
        "key_value_heads": [work.before.groups, work.after.groups],
        "layers": [work.before.layers, work.after.layers],
        "each_layer": [
            {
                "layer": number,
                "kept": number in kept,
                "cosine": scores.cosine,
                "channels_kept": _share(scores.channels, work.after.channels),
                "heads_kept": _share(scores.groups, work.after.groups),
            }
            for number, scores in enumerate(work.scores)
        ],
    }


def table(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    lines = [
        f"# {report['model']}, made smaller",
        "",
        f"{report['parameters_before']:,} parameters became {report['parameters']:,}. Cosine: "
        "between what comes into a layer and what goes out; shares: of the squared importance of "
        "a layer's MLP channels and heads, how much stays.",
        "",
        "| part | before | after |",
        "|---|---|---|",
    ]
    for part in ("channels", "heads", "key_value_heads", "layers"):
        before, after = report[part]
        lines.append(f"| {part.replace('_', '-')} | {before:,} | {after:,} |")
    lines += ["", "| layer | stays | cosine | channels | heads |", "|---|---|---|---|---|"]
    for layer in report["each_layer"]:
        stays = "yes" if layer["kept"] else "no"
        shares = f"{100 * layer['channels_kept']:.1f} % | {100 * layer['heads_kept']:.1f} %"
        lines.append(f"| {layer['layer']} | {stays} | {layer['cosine']:.4f} | {shares} |")
    return "\n".join(lines) + "\n"


def _check(cut: Cut, calibration: str | None) -> None:
    for option, share in (("--drop-channels", cut.channels), ("--drop-heads", cut.heads)):
        if not 0 <= share < 1:
            raise UsageError(f"{share:g} is no share between 0 and 1", place=option)
    if cut.layers < 0:
        raise UsageError("must be at least 1", place="--drop-layers")
    if calibration is None:
        raise UsageError(
            "what counts least is seen on some rows",
            place="--calibration",
            hint="name a recipe or a data file",
        )


def _share(scores: Any, count: int) -> float:
    """Of all scores, what the highest add up to."""
    return float(scores.sort(descending=True).values[:count].sum() / scores.sum().clamp_min(1e-30))
