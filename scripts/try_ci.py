#!/usr/bin/env python3
"""Run the steps of recipes/ci/*.yml with bash in a temporary checkout, as CI would.

    scripts/try_ci.py                       # both files, with the shipped recipe
    scripts/try_ci.py --recipe mine.yaml --file recipes/ci/github.yml
    scripts/try_ci.py --cut    # TERM the training after its first checkpoint, and run the job again

What the systems do around the steps is done here, too: the run folder stays between attempts (the
cache), artefacts must be there at the end, JUnit files must be XML, and a job's page is shown.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
import venv
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[1]
TERMINATED = 143
FILES = [ROOT / "recipes/ci/github.yml", ROOT / "recipes/ci/gitlab.yml"]


@dataclass(frozen=True)
class Step:
    """A piece of shell; `always` ones run after a failure, too."""

    script: str
    always: bool = False


@dataclass(frozen=True)
class Job:
    """A job of a CI file."""

    name: str
    steps: list[Step]
    artefacts: list[str]
    variables: dict[str, str] = field(default_factory=dict)


def jobs_of(file: Path) -> list[Job]:
    """The jobs of a GitHub or a GitLab file, in their order."""
    content = yaml.safe_load(file.read_text())
    return list(_github(content) if "jobs" in content else _gitlab(content))


def _github(content: dict[str, Any]) -> Iterator[Job]:
    for name, job in content["jobs"].items():
        steps = [Step(s["run"], s.get("if") == "always()") for s in job["steps"] if "run" in s]
        kept = [
            line
            for step in job["steps"]
            if "upload-artifact" in step.get("uses", "")
            for line in step["with"]["path"].split()
        ]
        yield Job(f"github {name}", steps, kept, content["env"] | job.get("env", {}))


def _gitlab(content: dict[str, Any]) -> Iterator[Job]:
    before = content.get("default", {}).get("before_script", [])
    for name, job in content.items():
        if not isinstance(job, dict) or "script" not in job:
            continue
        after = [Step(line, always=True) for line in job.get("after_script", [])]
        steps = [Step("\n".join([*before, *job["script"]])), *after]
        kept = [*job["artifacts"]["paths"], job["artifacts"]["reports"]["junit"]]
        yield Job(f"gitlab {name}", steps, kept, content.get("variables", {}))


def run(job: Job, checkout: Path, environment: dict[str, str], *, cut: bool) -> int:
    """One attempt of a job; its exit code is that of the first step that failed."""
    print(f"\n=== {job.name}", flush=True)
    code = 0
    for step in job.steps:
        if code and not step.always:
            continue
        for line in step.script.strip().splitlines():
            print(f"+ {line}", flush=True)
        process = subprocess.Popen(
            ["bash", "-eo", "pipefail", "-c", step.script],
            cwd=checkout,
            env=environment,
            start_new_session=True,
        )
        if cut and "checkpoint.resume" in step.script:
            _cut_off(process, checkout / environment["RUN"] / "checkpoints")
        ended = _wait(process)
        code = code or ended
    print(f"=== {job.name}: exit {code}", flush=True)
    return code


def _wait(process: subprocess.Popen[bytes]) -> int:
    """The exit code as a shell tells it, once nothing of the step runs any more."""
    code = process.wait()
    with suppress(ProcessLookupError):
        while True:
            os.killpg(process.pid, 0)
            time.sleep(0.2)
    return code if code >= 0 else 128 - code


def _cut_off(process: subprocess.Popen[bytes], checkpoints: Path) -> None:
    """End a training as a CI system does, as soon as it has saved something."""
    while process.poll() is None:
        saved = sorted(path.name for path in checkpoints.glob("step-*"))
        if saved:
            print(f"--- cut off: {saved[-1]} is there", flush=True)
            os.killpg(process.pid, signal.SIGTERM)
            return
        time.sleep(0.5)


def check_artefacts(job: Job, checkout: Path) -> list[str]:
    """What is missing of the artefacts, and JUnit files that are no XML."""
    faults = []
    for pattern in job.artefacts:
        found = sorted(checkout.glob(pattern.rstrip("/")))
        print(f"artefact {pattern}: {', '.join(path.name for path in found) or 'nothing'}")
        if not found:
            faults.append(f"{job.name}: no {pattern}")
        for path in found:
            if path.suffix == ".xml":
                suite = ElementTree.parse(path).getroot()[0]  # noqa: S314 - our own file
                print(f"  {path.name}: {suite.get('tests')} tests, {suite.get('failures')} failed")
    return faults


def prepare(folder: Path, recipe: str) -> tuple[Path, dict[str, str]]:
    """A checkout of HEAD, an environment of its own that sees the packages of this one."""
    checkout = folder / "checkout"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(checkout)], check=True)
    made = folder / "venv"
    venv.create(made, with_pip=True, system_site_packages=True)
    [site] = made.glob("lib/python*/site-packages")
    others = [path for path in sys.path if path.endswith("site-packages")]
    (site / "outer.pth").write_text("\n".join(others) + "\n")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    environment |= {
        "PATH": f"{made / 'bin'}:{os.environ['PATH']}",
        "CI": "true",
        "CI_COMMIT_SHA": "0" * 40,
        "GITHUB_STEP_SUMMARY": str(folder / "page.md"),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "RECIPE": recipe,
    }
    return checkout, environment


def main() -> int:
    """Run every job of the files; 0 when all of them did as CI needs them to."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--file", type=Path, action="append", help="a CI file; else both")
    parser.add_argument("--recipe", default="recipes/ci/recipe.yaml", help="in the checkout")
    parser.add_argument("--cut", action="store_true", help="TERM the training once")
    asked = parser.parse_args()
    faults: list[str] = []
    for file in asked.file or FILES:
        with tempfile.TemporaryDirectory(prefix="try-ci-") as name:
            folder = Path(name)
            checkout, environment = prepare(folder, asked.recipe)
            for job in jobs_of(file):
                variables = {k: str(v) for k, v in job.variables.items() if k not in environment}
                code = run(job, checkout, environment | variables, cut=asked.cut)
                if asked.cut and _trains(job):
                    if code != TERMINATED:
                        faults.append(f"{job.name}: exit {code} when it was cut off")
                    code = run(job, checkout, environment | variables, cut=False)
                if code:
                    faults.append(f"{job.name}: exit {code}")
                faults += check_artefacts(job, checkout)
            page = folder / "page.md"
            print(f"\n--- the page of the jobs\n{page.read_text() if page.exists() else 'none'}")
    for fault in faults:
        print(f"FAILED: {fault}", file=sys.stderr)
    return int(bool(faults))


def _trains(job: Job) -> bool:
    return any("checkpoint.resume" in step.script for step in job.steps)


if __name__ == "__main__":
    sys.exit(main())
