"""The table of reliability counts what the tests counted."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import yaml

BENCH = Path(__file__).resolve().parents[2] / "scripts" / "bench"
sys.path.insert(0, str(BENCH))

import reliability  # noqa: E402

sys.path.pop(0)

ROOT = BENCH.parents[1]
GOALS = yaml.safe_load(reliability.GOALS.read_text())
EXAMPLE = """
def test_counted(record_property):
    record_property("G1 kill points", 50)

def test_counted_too(record_property):
    record_property("G1 kill points", 40)
    record_property("G2 cells", 7)

import pytest

@pytest.mark.parametrize("number", [1, 2, 3])
def test_one_fails(number):
    if number == 1:
        pytest.skip("not here")
    assert number == 2
"""


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[object]]:
    folder = tmp_path_factory.mktemp("example")
    (folder / "test_example.py").write_text(EXAMPLE)
    (folder / "pytest.ini").write_text("[pytest]\njunit_family = xunit1\n")
    report = folder / "report.xml"
    reliability.run([f"--rootdir={folder}", str(folder / "test_example.py")], report)
    return reliability.read(report)


def test_figures_of_a_goals_tests_are_added_up(cases: dict[str, list[object]]) -> None:
    tests = ["test_example.py::test_counted", "test_example.py::test_counted_too"]
    found = reliability.gather("G1", tests, cases)
    assert found.counted == {"kill points": 90}
    assert found.figure() == "90 kill points, 2 of 2 tests passed"
    assert found.reached({"count": "kill points", "least": 90})
    assert not found.reached({"count": "kill points", "least": 91})
    assert not found.reached({"count": "cases", "least": 3})
    assert json.loads(json.dumps(found.to_dict()))["counted"] == {"kill points": 90}


def test_a_test_that_fails_is_named_and_the_goal_not_reached(
    cases: dict[str, list[object]],
) -> None:
    found = reliability.gather("G1", ["test_example.py"], cases)
    assert (found.passed, found.skipped) == (3, 1)
    assert found.failed == ["test_example::test_one_fails[3]"]
    assert not found.reached({"count": "cases", "least": 1})
    goal = {"goal": "none is lost", "peer": "half", "count": "cases", "least": 1}
    text = reliability.table({"G1": goal}, {"G1": found})
    assert "| G1 | none is lost | half | 90 kill points, 3 of 4 tests passed, 1 skipped |" in text
    assert "**no**" in text
    assert "failed: test_example::test_one_fails[3]" in text


def test_a_goal_without_tests_is_not_reached(cases: dict[str, list[object]]) -> None:
    found = reliability.gather("G9", [], cases)
    assert not found.reached({"count": "cases", "least": 1})


def test_there_are_22_goals() -> None:
    assert list(GOALS) == [f"G{number}" for number in range(1, 23)]


@pytest.mark.parametrize("name", [test for goal in GOALS.values() for test in goal["tests"]])
def test_every_test_of_the_table_is_there(name: str) -> None:
    path, _, test = name.partition("::")
    assert f"def {test or 'test_'}" in (ROOT / path).read_text()
