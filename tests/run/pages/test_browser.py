"""The pages in a real browser, light and dark, wide and narrow."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from qtune.run.pages.run_page import run_page
from qtune.run.pages.side_page import side_page
from qtune.run.pages.told import tell
from tests.run.pages.made import write_run, write_samples

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
BROWSER = next((path for path in map(shutil.which, NAMES) if path), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason=f"none of {', '.join(NAMES)} is installed")
DARK, LIGHT = 0, 1
SECONDS = 120
# what the page would be asked for if it asked for anything, and whether it is wider than its window
PROBE = """<script>addEventListener("load", () => {
  const wide = [...document.querySelectorAll("body *")].filter(
    (e) => e.getBoundingClientRect().right > innerWidth + 1 && !e.closest(".card, svg"));
  document.title = JSON.stringify([performance.getEntriesByType("resource").length,
    document.documentElement.scrollWidth <= innerWidth, wide.length,
    getComputedStyle(document.body).backgroundColor,
    getComputedStyle(document.querySelector("svg text")).fill]);
});</script></body>"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    place = tmp_path_factory.mktemp("pages")
    runs = [write_run(place / name) for name in ("one", "other")]
    write_samples(runs[0])
    made = {"run": run_page(tell(runs[0])), "side": side_page([tell(run) for run in runs])}
    for name, html in made.items():
        (place / f"{name}.html").write_text(html.replace("</body>", PROBE))
    return lambda name: place / f"{name}.html"


def seen(page: Path, *, scheme: int, width: int) -> list[object]:
    """What the browser says of a page: see `PROBE`."""
    assert BROWSER is not None
    command = [
        *(BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom"),
        f"--user-data-dir={page.parent / 'profile'}",
        f"--blink-settings=preferredColorScheme={scheme}",
        f"--window-size={width},900",
        page.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=True)
    found: list[object] = json.loads(done.stdout.split("<title>")[1].split("</title>")[0])
    return found


@pytest.mark.parametrize(("name", "scheme", "width"), [("run", DARK, 500), ("side", LIGHT, 1200)])
def test_it_fits_its_window_in_the_colours_of_the_person_and_asks_for_nothing(
    pages: Callable[[str], Path], name: str, scheme: int, width: int
) -> None:
    asked, fits, wide, back, ink = seen(pages(name), scheme=scheme, width=width)
    assert (asked, fits, wide) == (0, True, 0)
    light = _light(str(back))
    assert (light > 0.9) if scheme == LIGHT else (light < 0.15)
    assert abs(_light(str(ink)) - light) > 0.3


def _light(colour: str) -> float:
    numbers = [float(part) for part in colour.split("(")[1].rstrip(")").split(",")[:3]]
    return sum(numbers) / 3 / 255
