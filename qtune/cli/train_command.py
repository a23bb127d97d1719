"""`qtune train`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qtune.cli.gates import exit_by_gates
from qtune.cli.offline import obey_offline
from qtune.cli.options import AsJson, Overrides, Quietly
from qtune.cli.output import print_json, results
from qtune.cli.processes import train_in_processes
from qtune.cli.screen import showing
from qtune.errors import UsageError
from qtune.recipe.writing import flow
from qtune.run.changes import require_keys
from qtune.run.launching.train import number_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from qtune.run.display import Display

Changes = Annotated[
    list[str] | None,
    typer.Option(metavar="KEY", help="A key of the recipe that may differ when resuming."),
]


def train(  # noqa: PLR0913 - the options of a verb
    recipe: Annotated[Path, typer.Argument(help="A YAML recipe, or the name of a shipped one.")],
    overrides: Overrides = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The run folder (must be new).")
    ] = None,
    max_steps: Annotated[int | None, typer.Option(min=1, help="Stop after so many steps.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Plan, read some data, build without weights; stop.")
    ] = False,
    deep: Annotated[
        bool,
        typer.Option("--deep", help="With --dry-run: load, and run the longest batch for real."),
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the unfinished run in the run folder.")
    ] = False,
    allow_change: Changes = None,
    processes: Annotated[
        str | None,
        typer.Option(metavar="N|auto", help="Train in N processes, one a GPU; auto: all GPUs."),
    ] = None,
    as_json: AsJson = False,
    quiet: Quietly = False,
) -> None:
    """Fine-tune a base model by a recipe.

    Exit codes: 0 done; 9 a gate failed, the adapter stays; 75 train.max_time;
    130 or 143 a signal. After the last three, --resume goes on; 8: it may not.

    Examples:
      qtune train quickstart
      qtune train recipe.yaml -o runs/first --set optim.learning_rate=1e-4
      qtune train recipe.yaml --resume
      qtune train recipe.yaml --dry-run --deep
      qtune train recipe.yaml --processes 2
    """
    if deep and not dry_run:
        raise UsageError("--deep belongs to --dry-run", hint="add --dry-run, or leave it away")
    require_keys(allow_change or ())
    settings = [*(overrides or []), *_asked(output, max_steps)]
    obey_offline(recipe, settings)
    size = number_of(processes)
    if size > 1 and not dry_run:
        flags = {"--resume": resume, "--json": as_json, "--quiet": quiet}
        options = [*_given(flags), *_repeated("--allow-change", allow_change)]
        raise typer.Exit(train_in_processes(size, recipe, settings, options))
    with showing("qtune train", quiet=quiet) as display:
        if dry_run:
            report, code = _rehearse(recipe, settings, display, size, deep=deep), 0
        else:
            report, code = _run(recipe, settings, resume, allow_change or (), display)
    if as_json:
        print_json(report)
    else:
        _print(report, dry_run=dry_run, deep=deep)
    exit_by_gates(report)
    raise typer.Exit(code)


def _print(report: dict[str, Any], *, dry_run: bool, deep: bool) -> None:
    if deep:
        results().print(parts_table(report["memory"]))
    elif not dry_run:
        show(report)


def _given(flags: dict[str, bool]) -> list[str]:
    return [flag for flag, given in flags.items() if given]


def _repeated(option: str, values: Sequence[str] | None) -> list[str]:
    return [word for value in values or () for word in (option, value)]


def _asked(output: Path | None, max_steps: int | None) -> list[str]:
    """What options say, as settings of the recipe."""
    said = [] if output is None else [f"train.output_dir={flow(str(output))}"]
    return said if max_steps is None else [*said, f"train.max_steps={max_steps}"]


def _run(
    recipe: Path, settings: Sequence[str], resume: bool, changes: Sequence[str], display: Display
) -> tuple[dict[str, Any], int]:
    from qtune.run.resume import Wanted
    from qtune.run.train import train

    wanted = Wanted(required=resume, changes=tuple(changes))
    return train(recipe, overrides=settings, wanted=wanted, display=display)


def _rehearse(
    recipe: Path, settings: Sequence[str], display: Display, processes: int, *, deep: bool
) -> dict[str, Any]:
    if deep:
        if processes > 1:
            raise UsageError("--deep is run by one process", hint="leave --processes away")
        from qtune.run.deep import deep_run

        return deep_run(recipe, overrides=settings, display=display)
    from qtune.run.dry import dry_run

    return dry_run(recipe, overrides=settings, display=display, processes=processes)


def parts_table(memory: dict[str, Any]) -> Table:
    """Each part of the plan beside what it took; `-` where it cannot be told apart."""
    from rich import box
    from rich.table import Table

    from qtune.plan import human

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("memory")
    for column in ("planned", "measured"):
        table.add_column(column, justify="right")
    for row in memory["parts"]:
        measured = row["measured_bytes"]
        told = "-" if measured is None else human(measured)
        table.add_row(row["part"], human(row["predicted_bytes"]), told)
    table.add_section()
    table.add_row(
        "the peak", human(memory["predicted_bytes"]), human(memory["measured_peak_bytes"])
    )
    return table


def show(report: dict[str, Any]) -> None:
    """What a run did: one line, the held-out measures before and after, where the result lies."""
    console = results()
    told = f"{report['steps']} steps, {report['tokens']:,} tokens in {report['seconds']:.0f} s"
    if report["steps"]:  # none when it was stopped during the first evaluation
        told += f"; loss {report['loss_first']:.4f} -> {report['loss_last']:.4f}"
    console.print(told, soft_wrap=True)
    if report["evaluations"]:
        console.print(held_out(report))
    if "adapter_step" in report:
        adapter = f"{report['folder']}/adapter (step {report['adapter_step']})"
        console.print(f"adapter: {adapter}", soft_wrap=True, markup=False)
    page = Path(report["folder"]) / "report.html"
    if page.is_file():
        console.print(f"page: {page}", soft_wrap=True, markup=False)


def held_out(report: dict[str, Any]) -> Table:
    """Held-out measures at the start, at the best step and at the end."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("held out")
    evaluations = {record["step"]: record for record in report["evaluations"]}
    first, last, best = min(evaluations), max(evaluations), report["best"]["step"]
    steps = sorted({first, last} | ({best} if best is not None else set()))
    for step in steps:
        mark = " (best)" if step == best else ""
        table.add_column(f"step {step}{mark}", justify="right")
    for name in evaluations[last]:
        if name != "step":
            table.add_row(name, *(f"{evaluations[step][name]:.4f}" for step in steps))
    return table
