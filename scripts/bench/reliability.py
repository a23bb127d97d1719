"""The goals of reliability, with the figures of the tests that show them.

    python scripts/bench/reliability.py [--goals G1 G4] [--json]

Runs the tests that reliability.yaml names for each goal and prints a table: what is asked, what
peers do, what the tests of qtune counted. The table of all goals is kept in reliability.md and
reliability.json beside this. Exits with 1 when a goal is not reached: a test failed, or there were
fewer cases than the goal asks for.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import yaml

ROOT = Path(__file__).parents[2]
GOALS = Path(__file__).with_suffix(".yaml")
CASES = "cases"


@dataclass
class Found:
    """What the tests of one goal came to."""

    passed: int = 0
    skipped: int = 0
    failed: list[str] = field(default_factory=list)
    counted: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "passed": self.passed,
            "skipped": self.skipped,
            "failed": self.failed,
            "counted": dict(self.counted),
            "seconds": round(self.seconds, 1),
        }

    def figure(self) -> str:
        """The counts as text."""
        counts = [f"{number} {what}" for what, number in self.counted.items()]
        parts = [*counts, f"{self.passed} of {self.passed + len(self.failed)} tests passed"]
        if self.skipped:
            parts.append(f"{self.skipped} skipped")
        return ", ".join(parts)

    def reached(self, goal: dict[str, Any]) -> bool:
        """Whether all passed, and there were enough."""
        done = self.passed if goal["count"] == CASES else self.counted[goal["count"]]
        return not self.failed and done >= goal["least"]


def run(tests: list[str], report: Path) -> None:
    """Run tests, those marked slow too; their outcomes and figures are in the report."""
    options = ["-q", "-m", "not gpu", "-p", "no:cacheprovider", f"--junitxml={report}"]
    command = [sys.executable, "-m", "pytest", *options, *tests]
    subprocess.run(command, cwd=ROOT, stdout=sys.stderr, check=False)


def read(report: Path) -> dict[str, list[ElementTree.Element]]:
    """The cases of a junit report by the name of their test, without parameters."""
    cases: dict[str, list[ElementTree.Element]] = {}
    for case in ElementTree.parse(report).iter("testcase"):  # noqa: S314 - our own pytest wrote it
        path = case.get("classname", "").replace(".", "/") + ".py"
        name = case.get("name", "").split("[")[0]
        cases.setdefault(f"{path}::{name}", []).append(case)
    return cases


def gather(goal: str, tests: list[str], cases: dict[str, list[ElementTree.Element]]) -> Found:
    """Add up the cases of a goal's tests and what they recorded for it."""
    found = Found()
    for name, of_test in cases.items():
        if name in tests or name.split("::")[0] in tests:
            for case in of_test:
                add(found, goal, case)
    return found


def add(found: Found, goal: str, case: ElementTree.Element) -> None:
    """Add one case."""
    found.seconds += float(case.get("time", 0))
    if case.find("failure") is not None or case.find("error") is not None:
        found.failed.append(f"{case.get('classname')}::{case.get('name')}")
    elif case.find("skipped") is not None:
        found.skipped += 1
    else:
        found.passed += 1
        for noted in case.iter("property"):
            of_goal, _, what = noted.get("name", "").partition(" ")
            if of_goal == goal:
                found.counted[what] += int(noted.get("value", 0))


def table(goals: dict[str, Any], found: dict[str, Found]) -> str:
    """Markdown."""
    lines = ["| # | goal | peers | qtune | asked | reached |", "|---|---|---|---|---|---|"]
    for name, goal in goals.items():
        asked = f"{goal['least']} {goal['count']}"
        reached = "yes" if found[name].reached(goal) else "**no**"
        figure = found[name].figure()
        lines.append(
            f"| {name} | {goal['goal']} | {goal['peer']} | {figure} | {asked} | {reached} |"
        )
    failed = [test for one in found.values() for test in one.failed]
    return "\n".join([*lines, *(f"\nfailed: {test}" for test in failed)]) + "\n"


def main() -> int:
    """Run the tests of the goals asked for and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--goals", nargs="*", help="names such as G4; all without it")
    parser.add_argument("--json", action="store_true", help="print an object, not a table")
    asked = parser.parse_args()
    goals = yaml.safe_load(GOALS.read_text())
    goals = {name: goals[name] for name in asked.goals or goals}
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        run(sorted({test for goal in goals.values() for test in goal["tests"]}), report)
        cases = read(report)
    found = {name: gather(name, goal["tests"], cases) for name, goal in goals.items()}
    reached = {name: one.reached(goals[name]) for name, one in found.items()}
    facts = {name: one.to_dict() | {"reached": reached[name]} for name, one in found.items()}
    told = json.dumps({name: goals[name] | facts[name] for name in goals}, indent=2) + "\n"
    shown = table(goals, found)
    sys.stdout.write(told if asked.json else shown)
    if not asked.goals:
        GOALS.with_suffix(".json").write_text(told)
        GOALS.with_suffix(".md").write_text(shown)
    return 0 if all(reached.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
