"""`qtune data preview`, `stats` and `check`, which read no weights, and `qtune data teach`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from qtune.cli.offline import obey_offline
from qtune.cli.options import AsJson, Overrides, Quietly
from qtune.cli.output import news, print_json, results
from qtune.cli.screen import showing
from qtune.errors import DataError, ExitCode, OutputError, UsageError

if TYPE_CHECKING:
    from qtune.run.data import Preview

HELP = """Look at the rows that training would learn, check them, let a teacher see them.

Examples:
  qtune data preview recipe.yaml -n 3
  qtune data stats recipe.yaml --html stats.html
  qtune data check recipe.yaml && qtune train recipe.yaml
  qtune data teach recipe.yaml --set loss.teacher=Qwen/Qwen3-32B -o lessons
"""
data = typer.Typer(
    help=HELP,
    no_args_is_help=True,
    add_completion=False,
)
RecipePath = Annotated[
    Path, typer.Argument(metavar="RECIPE", help="A YAML recipe, or the name of a shipped one.")
]
Html = Annotated[
    Path | None, typer.Option("--html", metavar="FILE", help="Write it as a page (a new file).")
]


@data.command()
def preview(  # noqa: PLR0913 - one parameter an option
    recipe: RecipePath,
    count: Annotated[int, typer.Option("-n", min=1, help="How many rows.")] = 5,
    rows: Annotated[
        str | None, typer.Option("--rows", metavar="3,17", help="These rows, counted from 1.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Draw the rows at random by this seed.")
    ] = None,
    ids: Annotated[bool, typer.Option("--ids", help="Show the ids of the tokens.")] = False,
    whole: Annotated[bool, typer.Option("--whole", help="Shorten no long stretch.")] = False,
    html: Html = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
    quiet: Quietly = False,
) -> None:
    """Show rows as training sees them: what is learnt, what is given, every special token.

    Examples:
      qtune data preview recipe.yaml
      qtune data preview recipe.yaml --rows 3,17 --ids
      qtune data preview recipe.yaml -n 50 --seed 1 --html rows.html
    """
    obey_offline(recipe, overrides)
    from qtune.run.data import Choice
    from qtune.run.data import preview as run

    choice = Choice(count, _numbers(rows), seed)
    _refuse_taken(html)
    with showing("qtune data", quiet=quiet) as display:
        shown = run(recipe, choice, overrides=overrides or (), display=display)
    if html is not None:
        from qtune.cli.page import preview_page

        _write(html, preview_page(shown), quiet=quiet)
    if as_json:
        print_json(shown.to_dict())
    elif html is None:
        show_rows(shown, ids=ids, whole=whole)


@data.command()
def stats(
    recipe: RecipePath,
    html: Html = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
    quiet: Quietly = False,
) -> None:
    """Measure the rows: lengths, learnt share, fill of the tensors, duplicates, scripts.

    Examples:
      qtune data stats recipe.yaml
      qtune data stats recipe.yaml --set data.max_length=1024 --html stats.html
    """
    obey_offline(recipe, overrides)
    from qtune.run.data_statistics import stats as run

    _refuse_taken(html)
    with showing("qtune data", quiet=quiet) as display:
        measured = run(recipe, overrides=overrides or (), display=display)
    if html is not None:
        from qtune.cli.stats_page import stats_page

        _write(html, stats_page(measured), quiet=quiet)
    if as_json:
        print_json(measured.to_dict())
    elif html is None:
        from qtune.cli.stats_view import show

        show(measured, results())


@data.command()
def check(
    recipe: RecipePath,
    overrides: Overrides = None,
    as_json: AsJson = False,
    quiet: Quietly = False,
) -> None:
    """Check every row for CI: exit 0 when all is well, exit 3 with the faults.

    Examples:
      qtune data check recipe.yaml
      qtune data check recipe.yaml --json
    """
    obey_offline(recipe, overrides)
    from qtune.run.data_check import check as run

    with showing("qtune data", quiet=quiet) as display:
        checked = run(recipe, overrides=overrides or (), display=display)
    if as_json:
        print_json(checked.to_dict())
        raise typer.Exit(ExitCode.DATA if checked.faults else ExitCode.DONE)
    console = results()
    for line in checked.lines():
        console.print(line, markup=False, soft_wrap=True)
    for warning in checked.warnings:
        console.print("warning: ", style="yellow", end="")
        console.print(str(warning), markup=False, soft_wrap=True)
    if checked.faults:
        raise DataError.of(checked.faults)
    if count := len(checked.warnings):
        console.print(f"no faults, {count:,} warning{'s' * (count > 1)}", style="bold yellow")
    else:
        console.print("all is well", style="bold green")


@data.command()
def teach(
    recipe: RecipePath,
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder of lessons.")],
    top: Annotated[int, typer.Option(help="Most likely tokens kept of each learnt place.")] = 64,
    dtype: Annotated[
        Literal["float16", "float32"], typer.Option(help="Of their log-probabilities.")
    ] = "float16",
    overrides: Overrides = None,
    as_json: AsJson = False,
    quiet: Quietly = False,
) -> None:
    """Let loss.teacher write down once what it says of the training rows.

    Training with loss.teacher: FOLDER then learns from that, and holds no teacher. Beside the most
    likely tokens the probability of all others together is kept. One that was stopped goes on when
    called again. Rows, tokenizer, template or temperature that changed since are refused.

    Examples:
      qtune data teach recipe.yaml --set loss.teacher=Qwen/Qwen3-32B -o lessons
      qtune train recipe.yaml --set loss.teacher=lessons
    """
    obey_offline(recipe, overrides)
    from qtune.run.teach import teach as run

    with showing("qtune data teach", quiet=quiet) as display:
        report = run(
            recipe, output, top=top, dtype=dtype, overrides=overrides or (), display=display
        )
    if as_json:
        print_json(report)
    else:
        held = f"the {report['top']:,} most likely of {report['width']:,} tokens"
        line = f"{report['output']}: {report['rows']:,} rows, {held} at each learnt place"
        results().print(line, markup=False, soft_wrap=True)


def show_rows(shown: Preview, *, ids: bool, whole: bool) -> None:
    """The rows for people: colours on a terminal, marks around what is learnt elsewhere."""
    from qtune.cli.colours import coloured, heading, legend, row_text

    console = results()
    marks = not coloured(console)
    piped = not console.is_terminal
    console.print(f"{len(shown.rows):,} of {shown.total:,} rows: ", end="", style="bold")
    console.print(legend(marks=marks))
    for row in shown.rows:
        console.print()
        console.print(heading(row), style="bold", markup=False, soft_wrap=True)
        console.print(row_text(row, marks=marks, ids=ids, whole=whole), soft_wrap=piped)


def _numbers(text: str | None) -> tuple[int, ...]:
    """Row numbers written with commas."""
    if text is None:
        return ()
    words = text.split(",")
    if not all(word.strip().isdecimal() for word in words):
        raise UsageError("row numbers with commas are needed, such as 3,17", place="--rows")
    return tuple(int(word) for word in words)


def _refuse_taken(path: Path | None) -> None:
    """Before the work: an existing file is never overwritten."""
    if path is None:
        return
    if path.exists():
        raise OutputError("the file exists already", place=str(path), hint="name another")
    if not path.parent.is_dir():
        raise UsageError("there is no such folder", place=str(path.parent))


def _write(path: Path, text: str, *, quiet: bool) -> None:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        _refuse_taken(path)
    if not quiet:
        news().print(f"written to {path}", markup=False, soft_wrap=True)
