"""model.offline: no network, whatever is cached or not, in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tests.run.made_run import make_run

QTUNE = [sys.executable, "-m", "qtune"]


class Hub:
    """A hub that knows nothing, and counts who asks."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        asked = self.asked

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(self.path)
                self.send_response(404)
                self.send_header("X-Error-Code", "RepoNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def do_HEAD(self) -> None:
                self.do_GET()

            def log_message(self, *_: object) -> None:
                """Nothing."""

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub()
    yield hub
    hub.server.shutdown()
    hub.server.server_close()


def _recipe(folder: Path, *, model: str, rows: str, top: str = "") -> Path:
    settings = f"model: {{name_or_path: {model}}}\ndata: {{train: [{{path: {rows}}}]}}\n{top}"
    path = folder / "recipe.yaml"
    path.write_text(settings)
    return path


def _qtune(hub: Hub, home: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "TRANSFORM"))}
    environment |= {
        "HF_ENDPOINT": hub.address,
        "HF_HOME": str(home),
        "HF_DATASETS_OFFLINE": "0",
        "NO_PROXY": "127.0.0.1",
    }
    words = [*QTUNE, *map(str, arguments)]
    return subprocess.run(words, env=environment, capture_output=True, text=True, check=False)


def test_without_it_the_hub_is_asked(hub: Hub, tmp_path: Path) -> None:
    path = _recipe(tmp_path, model="some/model", rows="some/rows")
    done = _qtune(hub, tmp_path, "plan", path)
    assert done.returncode == 4
    assert hub.asked


@pytest.mark.parametrize(
    ("verb", "more"),
    [
        (["plan"], []),
        (["train", "--dry-run"], []),
        (["plan"], ["--set", "model.offline=true"]),
    ],
)
def test_a_missing_model_says_that_offline_is_set(
    verb: list[str], more: list[str], hub: Hub, tmp_path: Path
) -> None:
    top = "" if more else "offline: true\n"
    path = _recipe(tmp_path, model="some/model", rows="some/rows", top=top)
    done = _qtune(hub, tmp_path, *verb, path, *more, "--json")
    assert done.returncode == 4
    [fault] = json.loads(done.stdout)["error"]["faults"]
    assert "not in the local cache, and model.offline is set" in fault["message"]
    assert hub.asked == []


def test_a_missing_data_set_says_so_too(hub: Hub, tmp_path: Path) -> None:
    run = make_run(tmp_path / "made")
    path = _recipe(
        tmp_path, model=str(run.parent / "base"), rows="some/rows", top="offline: true\n"
    )
    done = _qtune(hub, tmp_path, "data", "check", path)
    assert done.returncode == 3
    assert "model.offline is set, so only cached data sets open" in done.stderr
    assert hub.asked == []
