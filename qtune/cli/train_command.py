"""`qtune train`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qtune.cli.output import news, print_json, results
from qtune.recipe.writing import flow

if TYPE_CHECKING:
    from qtune.run.display import Display


def train(
    recipe: Annotated[Path, typer.Argument(help="A YAML recipe, or the name of a shipped one.")],
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Over the recipe.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The run folder (must be new).")
    ] = None,
    max_steps: Annotated[int | None, typer.Option(help="Stop after so many steps.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Plan, read some data, build without weights; stop.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No news on stderr.")] = False,
) -> None:
    """Fine-tune a base model by a recipe.

    Examples:
      qtune train quickstart
      qtune train recipe.yaml -o runs/first --set optim.learning_rate=1e-4
      qtune train recipe.yaml --dry-run
    """
    settings = list(overrides or [])
    if output is not None:
        settings.append(f"train.output_dir={flow(str(output))}")
    if max_steps is not None:
        settings.append(f"train.max_steps={max_steps}")

    from qtune.run.display import Quiet

    display: Display = Quiet() if quiet else make_display()
    try:
        if dry_run:
            from qtune.run.dry import dry_run as rehearse

            report, code = rehearse(recipe, overrides=settings, display=display), 0
        else:
            from qtune.run.train import train as run

            report, code = run(recipe, overrides=settings, display=display)
    finally:
        display.close()
    if as_json:
        print_json(report)
    elif not dry_run:
        results().print(summary(report))
    raise typer.Exit(code)


def make_display() -> Display:
    """The live panel on a terminal, lines elsewhere."""
    console = news()
    if console.is_terminal:
        from qtune.cli.panel import PanelDisplay

        return PanelDisplay(console)
    from qtune.cli.plain import PlainDisplay

    return PlainDisplay(console)


def summary(report: dict[str, object]) -> str:
    """A run in three lines."""
    lines = [
        f"{report['steps']} steps, {report['tokens']:,} tokens in {report['seconds']:.0f} s; "
        f"loss {report['loss_first']:.4f} -> {report['loss_last']:.4f}"
    ]
    evaluations = report["evaluations"]
    assert isinstance(evaluations, list)
    if evaluations:
        first, last = evaluations[0], evaluations[-1]
        changes = (
            f"{name} {first[name]:.4f} -> {value:.4f}"
            for name, value in last.items()
            if name != "step"
        )
        lines.append("held out: " + ", ".join(changes))
    return "\n".join(lines)
