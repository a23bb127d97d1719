"""`qtune doctor`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qtune.cli.options import AsJson
from qtune.cli.output import news, print_json, wide_results
from qtune.errors import ExitCode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.table import Table

    from qtune.run.doctor import Finding

_STYLES = {"ok": "green", "warning": "yellow", "fault": "bold red"}


def doctor(
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Where runs will be written; without it here."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check this machine by using it: versions, device, a real 4-bit step, disk, hub.

    Exit 5 if something is broken.

    Examples:
      qtune doctor
      qtune doctor -o runs --json
    """
    from qtune.run.doctor import examine

    found = _listened(examine(output), quiet=as_json)
    faults = [each for each in found if each.state == "fault"]
    if as_json:
        findings = [each.to_dict() for each in found]
        print_json({"healthy": not faults, "findings": findings})
    else:
        console = wide_results()
        console.print(table(found))
        console.print(summary(found), soft_wrap=True)
    if faults:
        raise typer.Exit(ExitCode.RESOURCES)


def _listened(findings: Iterator[Finding], *, quiet: bool) -> list[Finding]:
    """All findings; on a terminal the last one is shown while the next is made."""
    console = news()
    if quiet or not console.is_terminal:
        return list(findings)
    made = []
    with console.status("looking at this machine") as status:
        for finding in findings:
            made.append(finding)
            status.update(f"{finding.name}: {finding.said}"[: console.width - 4])
    return made


def table(found: list[Finding]) -> Table:
    """A line a finding, with what to do below what was found."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    made.add_column("check", no_wrap=True)
    made.add_column("state", no_wrap=True)
    made.add_column("found", overflow="fold")
    for each in found:
        said = Text(each.said)
        if each.advice:
            said.append(f"\n-> {each.advice}", style="bold")
        made.add_row(each.name, Text(each.state, style=_STYLES[each.state]), said)
    return made


def summary(found: list[Finding]) -> str:
    """One line: how many of each."""
    faults = sum(each.state == "fault" for each in found)
    warnings = sum(each.state == "warning" for each in found)
    if not faults and not warnings:
        return "[bold green]healthy[/]: everything that qtune needs works here"
    parts = [
        f"{number} {word}{'' if number == 1 else 's'}"
        for number, word in ((faults, "fault"), (warnings, "warning"))
        if number
    ]
    style = "bold red" if faults else "bold yellow"
    return f"[{style}]{', '.join(parts)}[/]: the arrows say what to do"
