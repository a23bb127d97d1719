"""`qtune eval`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from qtune.cli.eval_table import tables
from qtune.cli.gates import exit_by_gates
from qtune.cli.offline import obey_offline
from qtune.cli.options import AsJson, BaseModel, Overrides, Quietly, Thing
from qtune.cli.output import print_json, results
from qtune.cli.screen import showing

MOST_CONFUSED = 5


def evaluate(  # noqa: PLR0913 - one parameter an option
    thing: Thing,
    against: Annotated[
        str | None,
        typer.Argument(
            metavar="[RECIPE|DATA]",
            help="Rows to measure on: of a recipe, or a data file; else the run's held-out rows.",
        ),
    ] = None,
    overrides: Overrides = None,
    base: BaseModel = None,
    rows: Annotated[int | None, typer.Option(min=1, help="Only the first rows.")] = None,
    generate: Annotated[
        int | None, typer.Option(min=0, help="Answer so many rows by greedy decoding.")
    ] = None,
    max_new_tokens: Annotated[int | None, typer.Option(min=1, help="The longest answer.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The report; else eval.json of the run.")
    ] = None,
    gates: Annotated[
        bool, typer.Option("--gates", help="Judge the recipe's gates on held-out measures; exit 9.")
    ] = False,
    task: Annotated[
        list[str] | None,
        typer.Option(
            "--task", metavar="FILE", help="A task file; repeatable. Without rows: alone."
        ),
    ] = None,
    lm_eval: Annotated[
        list[str] | None,
        typer.Option("--lm-eval", metavar="TASK", help="A task of lm-eval, or its YAML file."),
    ] = None,
    base16: Annotated[
        bool, typer.Option("--base16", help="The base in 16 bits, too: what 4 bits cost.")
    ] = False,
    merged: Annotated[
        str | None, typer.Option("--merged", metavar="FOLDER", help="A merged model, too.")
    ] = None,
    as_json: AsJson = False,
    quiet: Quietly = False,
) -> None:
    """Measure a run, an adapter or a model: loss, perplexity, answers, each with its interval;
    of a classification accuracy, macro-F1, Matthews correlation and what it confuses.

    An adapter is measured beside its base in the same process, on the same rows.

    Examples:
      qtune eval runs/first
      qtune eval runs/first test.jsonl --generate 200
      qtune eval runs/first --gates --set gates.min_exact_match=0.9
      qtune eval merged/ recipe.yaml --json
      qtune eval runs/first --task arc.yaml --task gsm8k.yaml
      qtune eval runs/first --base16 --merged merged/
    """
    for named in (thing, against, merged):
        obey_offline(named, overrides)
    from qtune.run.bench import Limits
    from qtune.run.eval import evaluate as run

    with showing("qtune eval", quiet=quiet) as display:
        report = run(
            thing,
            against,
            base=base,
            overrides=overrides or (),
            limits=Limits(
                rows=rows,
                generate=generate,
                max_new_tokens=max_new_tokens,
                gates=gates,
                tasks=tuple(task or ()),
                harness=tuple(lm_eval or ()),
                base16=base16,
                merged=merged,
            ),
            output=output,
            display=display,
        )
    if as_json:
        print_json(report)
    else:
        for made in tables(report):
            results().print(made)
        if line := confusions(report):
            results().print(line, markup=False, highlight=False)
    exit_by_gates(report)


def confusions(report: dict[str, Any]) -> str:
    """The labels that a classifier takes for one another most often; empty without any."""
    side = report.get("adapter") or report.get("model") or {}
    most = side.get("confused", ())[:MOST_CONFUSED]
    told = [f"{pair['label']} as {pair['given']} ({pair['rows']})" for pair in most]
    return f"taken for another: {', '.join(told)}" if told else ""
