"""`qtune merge`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from qtune.cli.offline import obey_offline
from qtune.cli.options import AsJson, BaseModel, Overrides, Quietly
from qtune.cli.output import print_json, results
from qtune.cli.screen import showing
from qtune.recipe.results import MergeBase, MergeDtype


def merge(  # noqa: PLR0913 - one parameter an option
    thing: Annotated[str, typer.Argument(help="A run folder or an adapter folder.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The new folder.")],
    onto: Annotated[
        MergeBase | None,
        typer.Option("--base", help="Add to the weights trained on, or to the 16-bit originals."),
    ] = None,
    base_model: BaseModel = None,
    dtype: Annotated[
        MergeDtype | None, typer.Option(help="dtype of the weights; auto keeps that of the base.")
    ] = None,
    max_shard_size: Annotated[
        str | None, typer.Option(metavar="SIZE", help="The largest weight file.")
    ] = None,
    max_memory: Annotated[
        str | None, typer.Option(metavar="SIZE", help="The most memory that the merge may hold.")
    ] = None,
    keep_mask: Annotated[
        bool, typer.Option("--keep-mask", help="Keep the zeros of a pruned base.")
    ] = False,
    verify: Annotated[
        bool, typer.Option(help="Compare the merged model with the trained one.")
    ] = True,
    overrides: Overrides = None,
    as_json: AsJson = False,
    quiet: Quietly = False,
) -> None:
    """Fold an adapter into full weights that load in plain transformers.

    The model is never whole in memory while it is written. The result is compared with the trained
    model and kept only if it is the same (merge.max_kl).

    Examples:
      qtune merge runs/first -o merged
      qtune merge runs/first -o merged-fp32 --dtype float32
      qtune merge runs/first -o other --base original
    """
    obey_offline(thing, overrides)
    from qtune.run.merge import merge as run

    settings: dict[str, str | bool] = {
        key: str(value)
        for key, value in (
            ("base", onto),
            ("dtype", dtype),
            ("max_shard_size", max_shard_size),
            ("max_memory", max_memory),
        )
        if value is not None
    }
    if keep_mask:
        settings["keep_mask"] = True
    with showing("qtune merge", quiet=quiet) as display:
        report = run(
            thing,
            output,
            base=base_model,
            overrides=overrides or (),
            settings=settings,
            verify=verify,
            display=display,
        )
    if as_json:
        print_json(report)
    else:
        results().print(summary(report), markup=False, soft_wrap=True)


def summary(report: dict[str, Any]) -> str:
    """A merge in a few lines."""
    files = "file" if report["files"] == 1 else "files"
    lines = [
        f"{report['output']}: {report['edits']} of {report['tensors']} tensors edited, "
        f"{report['bytes'] / 1e6:,.1f} MB of {report['dtype']} in {report['files']} {files}, "
        f"on the {report['base']} base"
    ]
    if report["unties_embeddings"]:
        lines.append("the embedding and the head, tied in the base, are two tensors now")
    if report["rounding"] > 1e-6:
        lines.append(
            f"rounding to {report['dtype']}: {100 * report['rounding']:.2g} % of the change"
        )
    if report["keep_mask"]:
        lines.append("the zeros of the base are kept: this is another model than the trained one")
    found = report["verification"]
    if found is None:
        lines.append("not verified")
    else:
        lines.append(
            f"against the trained model on {found['positions']:,} positions of {found['rows']}: "
            f"KL {found['kl']:.2e} nats per token (worst {found['max_kl']:.2e}), "
            f"top-1 agreement {100 * found['top1']:.2f} %"
        )
    return "\n".join(lines)
