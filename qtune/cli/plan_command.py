"""`qtune plan`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qtune.cli.offline import obey_offline
from qtune.cli.options import AsJson, Overrides
from qtune.cli.output import print_error, print_json, results
from qtune.errors import ResourceError

if TYPE_CHECKING:
    from rich.table import Table

    from qtune.plan import Plan
    from qtune.run.plan import Planned


def plan(
    recipe: Annotated[Path, typer.Argument(help="A YAML recipe, or the name of a shipped one.")],
    gpu: Annotated[
        str | None,
        typer.Option("--gpu", metavar="SIZE", help="Plan for such a card, not this machine."),
    ] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Say what a recipe would take, and refuse what cannot fit (exit 5). Loads nothing.

    Examples:
      qtune plan recipe.yaml
      qtune plan recipe.yaml --gpu 48GB
      qtune plan recipe.yaml --gpu 24GB --set data.max_length=1024
    """
    obey_offline(recipe, overrides)
    from qtune.run.plan import plan as run

    planned = run(recipe, overrides=overrides or (), gpu=gpu)
    if as_json:
        print_json(planned.to_dict())
    else:
        show(planned)
    try:
        planned.plan.check()
    except ResourceError as error:  # the plan itself is the answer
        print_error(error)
        raise typer.Exit(error.code) from None


def show(planned: Planned) -> None:
    """The plan for people: bytes, decisions, steps, verdict."""
    made = planned.plan
    console = results()
    # a hub id in full; of a folder its own name, which fits on the line
    model = planned.model if planned.model.count("/") == 1 else Path(planned.model).name
    console.print(f"[bold]{made.machine.name}[/], {model}", soft_wrap=True)
    console.print(memory_table(made))
    console.print()
    console.print(decision_table(made))
    console.print()
    console.print(steps_line(planned), soft_wrap=True)
    console.print(verdict(made), soft_wrap=True)


def memory_table(made: Plan) -> Table:
    """Every part of the memory with its bytes and reason."""
    from qtune.plan import human

    table = _table()
    table.add_column("memory", no_wrap=True)
    table.add_column("bytes", justify="right", no_wrap=True)
    table.add_column("reason", style="dim")
    for item in made.memory:
        if item.bytes or item.where == "host":
            part = f"{item.part} (host)" if item.where == "host" else item.part
            table.add_row(part, human(item.bytes), item.reason)
    table.add_section()
    share = made.device_bytes / made.budget_bytes if made.budget_bytes else 0.0
    reason = f"{share:.0%} of {human(made.budget_bytes)}"
    table.add_row("together", human(made.device_bytes), reason, style="bold")
    return table


def decision_table(made: Plan) -> Table:
    """Every decision with its reason."""
    table = _table()
    table.add_column("decision", no_wrap=True)
    table.add_column("value", no_wrap=True)
    table.add_column("reason", style="dim")
    for decision in made.decisions:
        table.add_row(decision.key.removeprefix("memory."), decision.value, decision.reason)
    return table


def steps_line(planned: Planned) -> str:
    """How long training is, or why that is not known yet."""
    steps = planned.plan.steps
    if steps is None:
        return f"steps: {planned.rows_reason}"
    return (
        f"steps: {steps.total:,} ({steps.per_epoch:,} an epoch of {planned.rows:,} rows, "
        f"{steps.warmup:,} warm-up), at most {steps.tokens_upper:,} tokens"
    )


def verdict(made: Plan) -> str:
    """One line: it fits with so much to spare, or it does not."""
    from qtune.plan import human

    spare = made.budget_bytes - made.device_bytes
    if made.fits:
        return f"[bold green]fits[/], {human(spare)} to spare"
    return f"[bold red]does not fit[/], {human(-spare)} too much"


def _table() -> Table:
    from rich import box
    from rich.table import Table

    return Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
