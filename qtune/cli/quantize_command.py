"""`qtune quantize`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from qtune.cli.options import AsJson, Quietly
from qtune.cli.output import print_json, results
from qtune.cli.screen import showing


def quantize(
    model: Annotated[str, typer.Argument(help="A model folder or a Hugging Face id.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The new folder; without it qtune's cache."),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Keys of quantization and model."),
    ] = None,
    as_json: AsJson = False,
    quiet: Quietly = False,
) -> None:
    """Keep a 4-bit copy of a 16-bit model, which loads in plain transformers.

    Without -o it goes into the cache, where train, eval and generate find it by themselves: they
    load it instead of quantising the model again, to the same bits.

    Examples:
      qtune quantize meta-llama/Llama-3.1-8B
      qtune quantize models/base -o models/base-nf4
      qtune quantize models/base --set quantization.double_quant=false
    """
    from qtune.run.quantize import quantize as run

    with showing("qtune quantize", quiet=quiet) as display:
        report = run(model, output, overrides=overrides or (), display=display)
    if as_json:
        print_json(report)
    else:
        results().print(summary(report), markup=False, soft_wrap=True)


def summary(report: dict[str, Any]) -> str:
    """A copy in one line."""
    files = "file" if report["files"] == 1 else "files"
    share = report["bytes"] / max(1, report["source_bytes"])
    return (
        f"{report['output']}: {report['layers']} layers in {report['quantization']['quant_type']}, "
        f"{report['bytes'] / 1e6:,.1f} MB in {report['files']} {files}, "
        f"{100 * share:.0f} % of the source"
    )
