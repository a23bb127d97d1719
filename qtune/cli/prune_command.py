"""`qtune prune`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from qtune.cli.options import AsJson, Quietly
from qtune.cli.output import print_json, results
from qtune.cli.screen import showing
from qtune.errors import UsageError

Channels = Annotated[
    float, typer.Option(metavar="SHARE", help="Of each MLP's channels, to take out.")
]
Heads = Annotated[
    float, typer.Option(metavar="SHARE", help="Of each layer's heads, by key-value head.")
]
Layers = Annotated[int, typer.Option(metavar="N", help="Whole layers to take out.")]


def prune(  # noqa: PLR0913 - one parameter an option
    model: Annotated[str, typer.Argument(help="A 16-bit model folder or a Hugging Face id.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The new folder.")],
    method: Annotated[
        Literal["magnitude", "wanda", "sparsegpt"] | None,
        typer.Option(
            help="How weights are chosen, wanda unless told; only sparsegpt changes the others."
        ),
    ] = None,
    sparsity: Annotated[
        float | None, typer.Option(metavar="SHARE", help="Of the weights; 0.5 unless told.")
    ] = None,
    pattern: Annotated[
        str | None,
        typer.Option(metavar="N:M", help="N of each M consecutive inputs stay, as in 2:4."),
    ] = None,
    drop_channels: Channels = 0.0,
    drop_heads: Heads = 0.0,
    drop_layers: Layers = 0,
    calibration: Annotated[
        str | None,
        typer.Option(help="A recipe or a data file whose rows show what the inputs are like."),
    ] = None,
    rows: Annotated[int, typer.Option(help="Calibration rows, drawn evenly.")] = 128,
    as_json: AsJson = False,
    quiet: Quietly = False,
) -> None:
    """Set weights of a model's layers to zero, or take parts out; training on the result recovers.

    The new folder is a plain transformers model. Zeros leave its size as it was and save neither
    memory nor time by themselves; they stay zero when it is quantised. --drop-channels, -heads and
    -layers write a smaller model, without what counts least on the calibration rows. What was done
    to each layer is in its pruning.json and pruning.md.

    Examples:
      qtune prune models/base -o models/sparse --calibration recipe.yaml
      qtune prune models/base -o models/sparse --pattern 2:4 --calibration rows.jsonl
      qtune prune models/base -o models/sparse --method magnitude --sparsity 0.3
      qtune prune models/base -o models/small --drop-channels 0.25 --drop-layers 4 \\
        --calibration rows.jsonl
    """
    with showing("qtune prune", quiet=quiet) as display:
        if drop_channels or drop_heads or drop_layers:
            _refuse_zeroing(method, sparsity, pattern)
            from qtune.models.structured import Cut
            from qtune.run.shrink import shrink

            cut = Cut(drop_channels, drop_heads, drop_layers)
            report = shrink(model, output, cut, calibration, rows=rows, display=display)
        else:
            from qtune.run.prune import Request
            from qtune.run.prune import prune as run

            request = Request(method or "wanda", sparsity, pattern, calibration, rows)
            report = run(model, output, request, display=display)
    if as_json:
        print_json(report)
    else:
        results().print(summary(report), markup=False, soft_wrap=True)


def _refuse_zeroing(method: str | None, sparsity: float | None, pattern: str | None) -> None:
    """What zeroes weights says nothing of parts that are taken out."""
    for option, value in (("--method", method), ("--sparsity", sparsity), ("--pattern", pattern)):
        if value is not None:
            raise UsageError(
                "sets weights to zero, and --drop-... takes parts out",
                place=option,
                hint="do one, then the other on its result",
            )


def summary(report: dict[str, Any]) -> str:
    """A pruning in one line."""
    if report["method"] == "structured":
        before, after = report["parameters_before"] / 1e6, report["parameters"] / 1e6
        return f"{report['output']}: {before:,.2f} M parameters became {after:,.2f} M"
    share = 100 * report["zeros"] / max(1, report["weights"])
    error = report["output_error"]
    told = "" if error is None else f", output error {error:.4f}"
    return (
        f"{report['output']}: {share:.2f} % of {report['weights'] / 1e6:,.1f} M weights in "
        f"{len(report['layers'])} layers are zero ({report['method']}){told}"
    )
