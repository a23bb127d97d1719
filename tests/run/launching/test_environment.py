"""What processes find in their environment, and the port that is kept for them."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from qtune.plan.cores import cores
from qtune.run.launching.environment import environments, held_port

FILE = Path("killed.json")


def test_the_cores_are_shared_unless_a_person_said_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    found = environments(2, 1, FILE)
    assert [one["OMP_NUM_THREADS"] for one in found] == [str(max(1, cores() // 2))] * 2
    assert environments(1000, 1, FILE)[0]["OMP_NUM_THREADS"] == "1"
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert environments(2, 1, FILE)[1]["OMP_NUM_THREADS"] == "7"


def test_what_torchrun_left_in_the_environment_counts_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RANK", "5")
    monkeypatch.setenv("MASTER_PORT", "80")
    assert [one["RANK"] for one in environments(2, 1234, FILE)] == ["0", "1"]
    assert environments(2, 1234, FILE)[0]["MASTER_PORT"] == "1234"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it is only free at the start")
def test_the_port_is_kept_for_the_one_that_listens() -> None:
    with held_port() as port, held_port() as other:
        assert port != other
        given = []
        for _ in range(200):
            with socket.socket() as any_free:
                any_free.bind(("", 0))
                given.append(any_free.getsockname()[1])
        assert port not in given
        with socket.socket(socket.AF_INET6) as store:  # as libuv binds it for torch
            store.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            store.bind(("", port))
            store.listen()
    with socket.socket() as late:
        late.bind(("", port))  # nothing is left of it
