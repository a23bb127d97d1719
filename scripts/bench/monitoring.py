"""What monitoring costs: a reading each second, and the page at the end of a run.

    python scripts/bench/monitoring.py RUN --output scripts/bench/results/monitoring.json

The peer of a reading is the second in which it is made; that of the page the run it is made of.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

from qtune.run.monitoring.readings import Readings
from qtune.run.monitoring.sampler import SECONDS
from qtune.run.pages.run_page import run_page
from qtune.run.pages.told import tell

READINGS, PAGES = 500, 5


def main() -> None:
    """Measure, print, and keep."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--output", type=Path)
    asked = parser.parse_args()
    found = measured(asked.run)
    text = json.dumps(found, indent=2)
    print(text)
    if asked.output is not None:
        asked.output.write_text(text + "\n")


def measured(run: Path) -> dict[str, float]:
    """Milliseconds, and shares of what they are part of."""
    readings = Readings(None)
    reading = statistics.median(_seconds(readings.read) for _ in range(READINGS))
    first = _seconds(lambda: run_page(tell(run)))
    page = statistics.median(_seconds(lambda: run_page(tell(run))) for _ in range(PAGES))
    took = json.loads((run / "report.json").read_text())["seconds"]
    return {
        "reading_ms": round(reading * 1e3, 3),
        "reading_share_of_a_core": round(reading / SECONDS, 6),
        "first_page_seconds": round(first, 3),
        "page_seconds": round(page, 3),
        "first_page_share_of_the_run": round(first / took, 4),
        "page_bytes": len(run_page(tell(run))),
    }


def _seconds(work: object) -> float:
    start = time.perf_counter()
    work()  # type: ignore[operator]
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
