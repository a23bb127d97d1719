from __future__ import annotations

from xml.etree import ElementTree

from qtune.runs.junit import Case, gate_cases, junit
from qtune.runs.verdict import Verdict

VERDICTS = [
    Verdict(gate="max_loss", limit=1.0, actual=0.5),
    Verdict(gate="min_exact_match", limit=0.9, actual=0.25),
]


def _suite(text: str) -> ElementTree.Element:
    root = ElementTree.fromstring(text)  # noqa: S314 - our own text
    assert root.tag == "testsuites"
    [suite] = root
    return suite


def test_one_case_for_the_run_and_one_for_each_gate() -> None:
    cases = [Case(name="run", seconds=12.5), *gate_cases(VERDICTS)]
    suite = _suite(junit("qtune.x", cases))
    assert suite.attrib == {
        "name": "qtune.x",
        "tests": "3",
        "failures": "1",
        "errors": "0",
        "skipped": "0",
        "time": "12.500",
    }
    assert [case.get("name") for case in suite] == ["run", "max_loss", "min_exact_match"]
    assert [len(case) for case in suite] == [0, 0, 1]
    [failure] = suite[2]
    assert failure.tag == "failure"
    assert failure.get("message") == "gates.min_exact_match: 0.25, at least 0.9 is asked"


def test_any_text_is_held() -> None:
    said = 'a "quoted" <b> & \x00 control\nsecond line'
    suite = _suite(junit("q", [Case(name="run", outcome="error", kind="exit 3", message=said)]))
    assert suite.get("errors") == "1"
    [error] = suite[0]
    assert error.attrib == {"message": said.replace("\x00", "?"), "type": "exit 3"}


def test_a_skipped_case_has_no_type() -> None:
    suite = _suite(junit("q", [Case(name="run", outcome="skipped", message="later")]))
    assert suite.get("skipped") == "1"
    assert suite[0][0].attrib == {"message": "later"}
