"""`qtune prune`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from qtune.cli.options import AsJson, Quietly
from qtune.cli.output import print_json, results
from qtune.cli.screen import showing


def prune(  # noqa: PLR0913 - one parameter an option
    model: Annotated[str, typer.Argument(help="A 16-bit model folder or a Hugging Face id.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The new folder.")],
    method: Annotated[
        Literal["magnitude", "wanda", "sparsegpt"],
        typer.Option(help="How weights are chosen; only sparsegpt changes those that stay."),
    ] = "wanda",
    sparsity: Annotated[
        float | None, typer.Option(metavar="SHARE", help="Of the weights; 0.5 unless told.")
    ] = None,
    pattern: Annotated[
        str | None,
        typer.Option(metavar="N:M", help="N of each M consecutive inputs stay, as in 2:4."),
    ] = None,
    calibration: Annotated[
        str | None,
        typer.Option(help="A recipe or a data file whose rows show what the inputs are like."),
    ] = None,
    rows: Annotated[int, typer.Option(help="Calibration rows, drawn evenly.")] = 128,
    as_json: AsJson = False,
    quiet: Quietly = False,
) -> None:
    """Set weights of a model's layers to zero, layer by layer; training on the result recovers.

    The new folder is a plain transformers model of the same size and dtype: zeros save neither
    memory nor time by themselves. They stay zero when it is quantised. What was done to each layer
    is in its pruning.json and pruning.md.

    Examples:
      qtune prune models/base -o models/sparse --calibration recipe.yaml
      qtune prune models/base -o models/sparse --pattern 2:4 --calibration rows.jsonl
      qtune prune models/base -o models/sparse --method magnitude --sparsity 0.3
    """
    from qtune.run.prune import Request
    from qtune.run.prune import prune as run

    request = Request(method, sparsity, pattern, calibration, rows)
    with showing("qtune prune", quiet=quiet) as display:
        report = run(model, output, request, display=display)
    if as_json:
        print_json(report)
    else:
        results().print(summary(report), markup=False, soft_wrap=True)


def summary(report: dict[str, Any]) -> str:
    """A pruning in one line."""
    share = 100 * report["zeros"] / max(1, report["weights"])
    error = report["output_error"]
    told = "" if error is None else f", output error {error:.4f}"
    return (
        f"{report['output']}: {share:.2f} % of {report['weights'] / 1e6:,.1f} M weights in "
        f"{len(report['layers'])} layers are zero ({report['method']}){told}"
    )
