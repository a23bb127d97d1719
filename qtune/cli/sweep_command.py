"""`qtune sweep`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from qtune.cli.offline import obey_offline
from qtune.cli.options import AsJson, Overrides, Quietly
from qtune.cli.screen import showing
from qtune.cli.table_files import show_wide, tell, write_three


def sweep(
    recipe: Annotated[Path, typer.Argument(help="A YAML recipe, or the name of a shipped one.")],
    over: Annotated[
        list[str],
        typer.Option(
            metavar="KEY=A,B,...",
            help="A key and its values; repeat it for a grid. With --trials also LOW..HIGH, "
            "LOW..HIGH:log, LOW..HIGH:STEP.",
        ),
    ],
    trials: Annotated[
        int | None, typer.Option(min=1, help="Search: so many combinations, chosen by Optuna.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each combination.")] = 1,
    overrides: Overrides = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The folder; else sweep/<name>. It is gone on with."),
    ] = None,
    as_json: AsJson = False,
    quiet: Quietly = False,
) -> None:
    """Train a recipe with every combination of some values, and rank what comes of them.

    A process a GPU at a time (CUDA_VISIBLE_DEVICES says which), or one on a CPU. All combinations
    are checked and planned before the first one runs; of a search those of the ends of its ranges.
    What is finished is not run again, what was stopped goes on: the same command continues. The
    best by checkpoint.metric comes first. In the folder: sweep.json, sweep.md, sweep.svg, and the
    runs in cells/.

    Examples:
      qtune sweep recipe.yaml --over method.rank=8,16 --over method.dropout=0,0.1
      qtune sweep recipe.yaml --over method.name=lora,dylora --seeds 3 -o names
      qtune sweep mine.yaml --trials 20 --over optim.learning_rate=1e-5..1e-3:log
    """
    obey_offline(recipe, overrides)
    from qtune.run.sweeping.sweep import Extent
    from qtune.run.sweeping.sweep import sweep as run

    with showing("qtune sweep", quiet=quiet) as display:
        report, code = run(
            recipe,
            over,
            extent=Extent(seeds=seeds, trials=trials),
            output=output,
            overrides=overrides or (),
            display=display,
        )
    tell(report, write(report), show, as_json=as_json, quiet=quiet)
    raise typer.Exit(code)


def write(report: dict[str, Any]) -> list[str]:
    """The three files of a sweep; returns their paths."""
    from qtune.cli.compare_picture import comparison_svg
    from qtune.cli.compare_table import markdown
    from qtune.cli.sweep_table import columns, numbered, panels, remarks

    table = markdown(numbered(report), columns(report), remarks(report))
    picture = comparison_svg(report, panels(report))
    return write_three(report, "sweep", table=table, picture=picture)


def show(report: dict[str, Any]) -> None:
    """The table, what to know of it, and where the best lies."""
    from qtune.cli.compare_table import table
    from qtune.cli.sweep_table import columns, numbered, remarks

    said = [*remarks(report)]
    if report["best"] is not None:
        said.append(f"its run: {Path(report['folder']) / report['best']['run']}")
    show_wide(lambda _: [table(numbered(report), columns(report))], said)
