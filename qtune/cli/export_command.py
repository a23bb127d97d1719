"""`qtune export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from qtune.cli.options import AsJson
from qtune.cli.output import print_json, results


def export(
    thing: Annotated[str, typer.Argument(help="A run folder, a checkpoint or an adapter folder.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The new folder.")],
    rank: Annotated[
        int | None, typer.Option(help="Of a DyLoRA: the rank to cut it to, as a plain LoRA.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Copy an adapter out of its run, checked, as a folder that PEFT and others load.

    A DyLoRA may be cut to any rank it was trained for. A Delta-LoRA comes out as a plain LoRA of
    twice its rank. Nothing is overwritten.

    Examples:
      qtune export runs/first -o adapter
      qtune export runs/dylora -o adapter-8 --rank 8
      qtune export runs/first/checkpoints/step-000100 -o adapter-100
    """
    from qtune.run.export import export as run

    report = run(thing, output, rank=rank)
    if as_json:
        print_json(report)
    else:
        results().print(summary(report), markup=False, soft_wrap=True)


def summary(report: dict[str, Any]) -> str:
    """An export in a line or two."""
    rank = f" of rank {report['rank']}" if report["rank"] else ""
    line = (
        f"{report['output']}: {report['method']}{rank}, {report['numbers']:,} numbers in "
        f"{report['tensors']} tensors, {report['bytes'] / 1e3:,.0f} kB"
    )
    if not report["for_peft"]:
        line += f"\nonly qtune reads adapters of the type {report['peft_type']}"
    return line
