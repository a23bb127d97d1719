"""Gates: what a recipe asks of a result, judged, and told to people and to CI systems."""

from __future__ import annotations

import math
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from qtune.durable import write_json, write_text
from qtune.errors import ExitCode, Fault, QtuneError, UsageError
from qtune.plan import parse_size
from qtune.recipe.conflicts import ANSWER_GATES, BASE_GATES, HELD_OUT_GATES, MEASURE_GATES
from qtune.recipe.duration import seconds
from qtune.run.tasks import flat
from qtune.runs.junit import Case, gate_cases, junit
from qtune.runs.page import append, portable_text
from qtune.runs.summary import failure, summary
from qtune.runs.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from qtune.recipe.results import GatesSection
    from qtune.run.display import Journal
    from qtune.runs.verdict import Unit

    Measures = Mapping[str, float]

_JUDGED = ("loss", "exact_match", "token_f1")


def judge_run(gates: GatesSection, report: Mapping[str, Any]) -> list[Verdict]:
    """Every gate of a finished run, held-out ones at the step whose weights it left."""
    evaluations = {record["step"]: record for record in report["evaluations"]}
    tasks = report.get("tasks", {})
    result = evaluations.get(report["adapter_step"], {}) | flat(tasks.get("adapter", {}))
    base = evaluations.get(0, {}) | flat(tasks.get("base", {}))
    return [*judge_measures(gates, result, base), *_resources(gates, report)]


def judge_measures(gates: GatesSection, result: Measures, base: Measures) -> list[Verdict]:
    """The gates on held-out measures: `result` of the trained model, `base` of the untouched."""
    loss, exact, f1 = (result.get(name) for name in _JUDGED)
    base_loss, base_exact, base_f1 = (base.get(name) for name in _JUDGED)
    asked = {
        "max_loss": (gates.max_loss, loss),
        "max_perplexity": (gates.max_perplexity, result.get("perplexity")),
        "min_exact_match": (gates.min_exact_match, exact),
        "min_token_f1": (gates.min_token_f1, f1),
        "min_accuracy": (gates.min_accuracy, result.get("accuracy")),
        "min_macro_f1": (gates.min_macro_f1, result.get("macro_f1")),
        "min_loss_drop": (gates.min_loss_drop, _gap(base_loss, loss)),
        "min_exact_match_gain": (gates.min_exact_match_gain, _gap(exact, base_exact)),
        "min_token_f1_gain": (gates.min_token_f1_gain, _gap(f1, base_f1)),
    }
    for name, least in gates.min_measures.items():
        asked[f"min_measures.{name}"] = (least, result.get(name))
    for name, least in gates.min_measure_gains.items():
        gained = _gap(result.get(name), base.get(name))
        asked[f"min_measure_gains.{name}"] = (least, gained)
    return [
        Verdict(gate=gate, limit=limit, actual=_finite(actual))
        for gate, (limit, actual) in asked.items()
        if limit is not None
    ]


def require_judgeable(gates: GatesSection, *, answers: bool, paired: bool) -> None:
    """`UsageError` before the work unless `qtune eval` can judge every held-out gate."""
    asked = [gate for gate in (*HELD_OUT_GATES, *ANSWER_GATES) if getattr(gates, gate) is not None]
    asked += [gate for gate in MEASURE_GATES if getattr(gates, gate)]
    if not asked:
        raise UsageError(
            "--gates judges held-out measures, and the recipe has no gate on one",
            hint="add gates: {max_loss: ...} or --set gates.max_loss=...",
        )
    faults = [
        Fault(message=f"cannot be judged: {reason}", place=f"gates.{gate}", hint=hint)
        for gates_of, possible, reason, hint in (
            (ANSWER_GATES, answers, "no answers are generated", "add --generate N"),
            (
                (*BASE_GATES, "min_measure_gains"),
                paired,
                "there is no adapter to switch off",
                "name a run or an adapter",
            ),
        )
        for gate in gates_of
        if gate in asked and not possible
    ]
    if faults:
        raise UsageError.of(faults)


def _resources(gates: GatesSection, report: Mapping[str, Any]) -> list[Verdict]:
    """The gates on what training took."""
    memory, time = gates.max_peak_memory, gates.max_wall_time
    asked: list[tuple[str, float | None, float | None, Unit]] = [
        (
            "max_peak_memory",
            None if memory is None else parse_size(memory),
            report["memory"]["measured_peak_bytes"],
            "bytes",
        ),
        (
            "min_tokens_per_second",
            gates.min_tokens_per_second,
            report["tokens_per_second"],
            "tokens/s",
        ),
        ("max_wall_time", None if time is None else seconds(time), report["seconds"], "seconds"),
    ]
    return [
        Verdict(gate=gate, limit=limit, actual=_finite(actual), unit=unit)
        for gate, limit, actual, unit in asked
        if limit is not None
    ]


def _gap(better: float | None, worse: float | None) -> float | None:
    return None if better is None or worse is None else better - worse


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def conclude(
    folder: Path, gates: GatesSection, report: dict[str, Any], journal: Journal
) -> tuple[dict[str, Any], ExitCode]:
    """Judge a finished run; gates.json, junit.xml and summary.md tell what came of it.

    Returns the report with its verdicts, and the exit code.
    """
    verdicts = judge_run(gates, report)
    report = report | {"gates": [verdict.to_dict() for verdict in verdicts]}
    write_json(folder / "gates.json", report["gates"])
    run = Case(name="run", seconds=report["seconds"])
    write_text(folder / "junit.xml", junit(_suite(report["recipe"]), [run, *gate_cases(verdicts)]))
    text = summary(report, verdicts)
    write_text(folder / "summary.md", text)
    if unwritten := append(text):
        journal.line(unwritten)
    failed = sum(not verdict.passed for verdict in verdicts)
    if verdicts:
        journal.line(f"gates: {len(verdicts) - failed} of {len(verdicts)} held")
    return report, ExitCode.CHECK_FAILED if failed else ExitCode.DONE


def judge_eval(gates: GatesSection, report: Mapping[str, Any]) -> dict[str, Any]:
    """The verdicts of `qtune eval`: on the adapter, beside its base, or on the model."""
    sides = [report.get("adapter", report.get("model", {})), report.get("base", {})]
    result, base = (side | side.get("answers", {}) | flat(side.get("tasks", {})) for side in sides)
    return {"gates": [verdict.to_dict() for verdict in judge_measures(gates, result, base)]}


def eval_junit(report: Mapping[str, Any]) -> str:
    """An evaluation with its verdicts as JUnit XML."""
    run = Case(name="eval", seconds=report["seconds"])
    return junit(_suite(report["thing"]), [run, *gate_cases(verdicts_of(report))])


def stopped(folder: Path, name: str, reason: str, code: int, journal: Journal) -> None:
    """Tell CI systems that a run ended before its end, and can go on."""
    case = Case(name="run", outcome="skipped", message=portable_text(reason))
    write_text(folder / "junit.xml", junit(_suite(name), [case]))
    text = failure(name, [portable_text(reason)], code)
    write_text(folder / "summary.md", text)
    if unwritten := append(text):
        journal.line(unwritten)


@contextmanager
def telling_failure(folder: Path, name: str) -> Iterator[None]:
    """An error that ends the block stands in junit.xml and summary.md of the run, too; the job's
    page gets it from the command line, as it gets every other."""
    try:
        yield
    except QtuneError as error:
        lines = [portable_text(str(fault)) for fault in error.faults]
        kind = f"exit {int(error.code)}"
        case = Case(name="run", outcome="error", kind=kind, message="\n".join(lines))
        with suppress(OSError):  # the disk may be what failed: the error itself is told
            write_text(folder / "junit.xml", junit(_suite(name), [case]))
            write_text(folder / "summary.md", failure(name, lines, int(error.code)))
        raise


def verdicts_of(report: Mapping[str, Any]) -> list[Verdict]:
    """The verdicts in a report."""
    names = ("gate", "limit", "actual", "unit")
    return [Verdict(**{name: one[name] for name in names}) for one in report.get("gates", ())]


def _suite(name: str) -> str:
    return f"qtune.{name}"
