"""JUnit XML, which every CI system shows: one case for the run and one for each gate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from xml.sax.saxutils import quoteattr

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from qtune.runs.verdict import Verdict


@dataclass(frozen=True, kw_only=True)
class Case:
    """A test case; `outcome` is one of passed, failure, error, skipped."""

    name: str
    seconds: float = 0.0
    outcome: str = "passed"
    kind: str = ""
    message: str = ""


def gate_cases(verdicts: Iterable[Verdict]) -> list[Case]:
    """A case for each gate."""
    return [
        Case(name=verdict.gate)
        if verdict.passed
        else Case(name=verdict.gate, outcome="failure", kind="gate", message=str(verdict))
        for verdict in verdicts
    ]


def junit(suite: str, cases: Sequence[Case]) -> str:
    """A suite of cases as XML; characters that XML cannot hold become question marks."""
    counts = {
        total: sum(case.outcome == outcome for case in cases)
        for total, outcome in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped"))
    }
    seconds = f"{sum(case.seconds for case in cases):.3f}"
    attributes = _attributes({"name": suite, "tests": len(cases), **counts, "time": seconds})
    inside = "".join(_case(suite, case) for case in cases)
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<testsuites>\n  <testsuite{attributes}>\n{inside}  </testsuite>\n</testsuites>\n"
    )


def _case(suite: str, case: Case) -> str:
    head = _attributes({"classname": suite, "name": case.name, "time": f"{case.seconds:.3f}"})
    if case.outcome == "passed":
        return f"    <testcase{head}/>\n"
    kind = {"type": case.kind} if case.outcome != "skipped" else {}
    said = _attributes({"message": case.message} | kind)
    return f"    <testcase{head}>\n      <{case.outcome}{said}/>\n    </testcase>\n"


def _attributes(values: Mapping[str, object]) -> str:
    return "".join(f" {name}={quoteattr(_allowed(str(value)))}" for name, value in values.items())


def _allowed(text: str) -> str:
    return "".join(letter if letter.isprintable() or letter == "\n" else "?" for letter in text)
