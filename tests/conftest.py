"""No network, one thread, no colours: the same everywhere."""

from __future__ import annotations

import os
import signal
import socket
from typing import Any, NoReturn

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["NO_COLOR"] = "1"
os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "")
if not os.environ["CUDA_VISIBLE_DEVICES"]:  # read when triton is imported, by whatever imports it
    os.environ["TRITON_INTERPRET"] = "1"


def _refuse(*_: Any, **__: Any) -> NoReturn:
    raise OSError("the tests have no network")


@pytest.fixture(autouse=True, scope="session")
def _no_network() -> None:
    """A test that reaches for the network fails instead of hanging."""
    socket.socket.connect = _refuse  # type: ignore[method-assign]


@pytest.fixture(autouse=True, scope="session")
def _hangs_up() -> None:
    """As from a terminal, also where CI is started with nohup."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Two busy cores make two threads ten times slower than one."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are never kept in the person's own cache, nor by one test for another."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(autouse=True, scope="session")
def _no_pages() -> None:
    """Drawing report.html takes a third of a second, and hundreds of tests train; those of the
    page make it themselves."""
    from qtune.run.pages import write

    write.run_page = lambda told: told.title  # type: ignore[assignment]
