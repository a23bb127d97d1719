"""`qtune plan`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qtune.cli.offline import obey_offline
from qtune.cli.options import AsJson, Overrides
from qtune.cli.output import news, print_error, print_json, print_text, results
from qtune.errors import ResourceError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.table import Table

    from qtune.plan import Plan
    from qtune.run.plan import Planned


def plan(
    recipe: Annotated[Path, typer.Argument(help="A YAML recipe, or the name of a shipped one.")],
    gpu: Annotated[
        str | None,
        typer.Option(
            "--gpu", metavar="SIZE", help="Plan for such a card, by size or name, not this machine."
        ),
    ] = None,
    processes: Annotated[
        int,
        typer.Option("--processes", metavar="N", min=1, help="Plan for N such devices together."),
    ] = 1,
    machines: Annotated[
        int, typer.Option("--machines", metavar="M", min=1, help="On how many machines they are.")
    ] = 1,
    overrides: Overrides = None,
    suggest: Annotated[
        bool, typer.Option("--suggest", help="Print what to change in the recipe to make it fit.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Say what a recipe would take, and refuse what cannot fit (exit 5). Loads nothing.

    Examples:
      qtune plan recipe.yaml
      qtune plan recipe.yaml --gpu 48GB
      qtune plan recipe.yaml --gpu "RTX 4090"
      qtune plan recipe.yaml --gpu 80GB --processes 8
      qtune plan recipe.yaml --gpu 24GB --suggest
      qtune plan recipe.yaml --gpu 24GB --set data.max_length=1024
    """
    obey_offline(recipe, overrides)
    from qtune.run import plan as run

    given: Sequence[str] = overrides or ()
    planned = run.plan(recipe, overrides=given, gpu=gpu, processes=processes, machines=machines)
    found = run.suggest(recipe, planned, overrides=given, gpu=gpu) if suggest else None
    if found is not None:
        print_json(found.to_dict()) if as_json else print_text(found.text.rstrip())
        return
    if as_json:
        print_json(planned.to_dict())
    else:
        show(planned)
    if suggest and planned.plan.fits:
        news().print("nothing needs to change")
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
    console.print(f"[bold]{devices(made)}[/], {model}", soft_wrap=True)
    if planned.sizes:
        console.print(f"[dim]{planned.sizes}[/]", soft_wrap=True)
    console.print(memory_table(made))
    console.print()
    console.print(decision_table(made))
    console.print()
    console.print(switch_table(made))
    console.print()
    for line in (*speed_lines(made), *exchange_lines(made)):
        console.print(line, soft_wrap=True)
    console.print(elsewhere_line(made), soft_wrap=True)
    console.print(steps_line(planned), soft_wrap=True)
    console.print(verdict(made), soft_wrap=True)


def devices(made: Plan) -> str:
    """What trains: one device, or so many of a kind."""
    number = f"{made.processes} x " if made.processes > 1 else ""
    return f"{number}{made.machine.name}"


def memory_table(made: Plan) -> Table:
    """Every part of the memory of a device with its bytes and reason."""
    from qtune.plan import human

    table = _table()
    table.add_column("memory" if made.processes == 1 else "memory, each", no_wrap=True)
    table.add_column("bytes", justify="right", no_wrap=True, min_width=7)
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


def switch_table(made: Plan) -> Table:
    """What each single change saves and costs, by the cost model."""
    from qtune.plan import human

    table = _table()
    table.add_column("switch")
    table.add_column("memory", justify="right", no_wrap=True, min_width=8)
    table.add_column("time", no_wrap=True, min_width=5)
    for each in made.switches:
        share = each.adds_seconds / made.seconds_per_step
        name = f"{each.key.removeprefix('memory.')}: {each.value}"
        more = human(-each.saves_bytes)
        sign = "+" if each.saves_bytes < 0 else ""
        room = "" if each.fits else ", does not fit"
        table.add_row(name, sign + more, f"{share:+.0%}{room}")
    return table


def speed_lines(made: Plan) -> Iterator[str]:
    """How fast it should be, and what comes next to it; estimates."""
    from qtune.plan import duration

    step = duration(made.seconds_per_step)
    device = f"{made.processes} x {made.device}" if made.processes > 1 else made.device
    yield (
        f"estimate: {step} a step, {made.tokens_per_second:,.0f} tokens/s on {device}, "
        "rows at their longest"
    )
    if made.next_best:
        yield f"next best: {made.next_best}"


def exchange_lines(made: Plan) -> Iterator[str]:
    """What the devices send one another, and what several of them gain; estimates."""
    from qtune.plan import duration, human

    found = made.distribution
    if found is None:
        return
    parts = [f"{human(found.gradient_bytes)} of gradients"]
    parts += [f"{human(found.weight_bytes)} of layers"] if found.weight_bytes else []
    rate = f"{found.wire}, {human(int(found.bandwidth))}/s"
    share = f"{duration(found.exchange_seconds)}, {found.exchange_share:.0%} of it"
    yield f"between devices: {' and '.join(parts)} a step ({rate}): {share}"
    if found.hidden_from_tokens is not None:
        even, here = f"{found.hidden_from_tokens:,}", f"{found.pass_tokens:,}"
        yield f"layers arrive behind the work from {even} tokens a pass, here {here}"
    yield gain(made)


def gain(made: Plan) -> str:
    """How several devices compare with one."""
    from qtune.plan import duration

    found = made.distribution
    if found is None or found.seconds_alone is None or found.speed_up is None:
        return "one such device has no room for it"
    alone = f"{found.speed_up:.1f} times as fast as one ({duration(found.seconds_alone)} a step)"
    if found.pays_from_rows is None:
        return f"{alone}; with no batch_size do more than one pay"
    return f"{alone}; more than one pay from train.batch_size {found.pays_from_rows}"


def elsewhere_line(made: Plan) -> str:
    """What is needed beside the device's memory."""
    from qtune.plan import human

    parts = [f"{item.part} {human(item.bytes)}" for item in made.disk if item.bytes]
    disk = f"disk: {', '.join(parts)}"
    if not made.host_bytes:
        return disk
    each = f"{made.processes} x " if made.processes > 1 else ""
    return f"host memory: {each}{human(made.host_bytes)}; {disk}"


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
    from qtune.plan import PAGED_OUT, human

    spare = made.budget_bytes - made.device_bytes
    paged = sum(item.bytes for item in made.memory if item.part == PAGED_OUT)
    if made.fits and paged:
        full = f"{human(paged)} of states page to the host"
        return f"[bold green]fits[/], full: {full}"
    if made.fits:
        return f"[bold green]fits[/], {human(spare)} to spare"
    return f"[bold red]does not fit[/], {human(-spare)} too much"


def _table() -> Table:
    from rich import box
    from rich.table import Table

    return Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
