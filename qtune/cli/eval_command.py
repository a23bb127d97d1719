"""`qtune eval`."""

from __future__ import annotations

from typing import Any

from qtune.cli.eval_options import (
    Against,
    Base16,
    Generate,
    Harness,
    Judged,
    Longest,
    Merged,
    Output,
    Rows,
    Tasks,
)
from qtune.cli.eval_table import tables
from qtune.cli.gates import exit_by_gates
from qtune.cli.offline import obey_offline
from qtune.cli.options import AsJson, BaseModel, Overrides, Quietly, Thing
from qtune.cli.output import print_json, results
from qtune.cli.screen import showing

MOST_CONFUSED = 5


def evaluate(  # noqa: PLR0913 - one parameter an option
    thing: Thing,
    against: Against = None,
    overrides: Overrides = None,
    base: BaseModel = None,
    rows: Rows = None,
    generate: Generate = None,
    max_new_tokens: Longest = None,
    output: Output = None,
    gates: Judged = False,
    task: Tasks = None,
    lm_eval: Harness = None,
    base16: Base16 = False,
    merged: Merged = None,
    as_json: AsJson = False,
    quiet: Quietly = False,
) -> None:
    """Measure a run, an adapter or a model: loss, answers, choices or labels, with intervals.

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
        _show(report)
    exit_by_gates(report)


def _show(report: dict[str, Any]) -> None:
    for made in tables(report):
        results().print(made)
    if line := confusions(report):
        results().print(line, markup=False, highlight=False)


def confusions(report: dict[str, Any]) -> str:
    """The labels that a classifier takes for one another most often; empty without any."""
    side = report.get("adapter") or report.get("model") or {}
    most = side.get("confused", ())[:MOST_CONFUSED]
    told = [f"{pair['label']} as {pair['given']} ({pair['rows']})" for pair in most]
    return f"taken for another: {', '.join(told)}" if told else ""
