"""The processes of a run: seats, what one alone does, and what goes between two."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed import DistBackendError

from qtune.errors import DataError, ExitCode, QtuneError
from qtune.ranks import ALONE, PeerFault, PeerLost, Ranks, Seat, joined, seat
from tests.together import together

TWO = Ranks(Seat(rank=0, size=2, local_rank=0, local_size=2))
NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


def test_the_seat_is_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    assert seat() == Seat(0, 1, 0, 1)
    monkeypatch.setenv("RANK", "5")
    assert seat() == Seat(0, 1, 0, 1)  # of something else than a run
    for name, value in zip(NAMES, "5812", strict=True):
        monkeypatch.setenv(name, value)
    assert seat() == Seat(rank=5, size=8, local_rank=1, local_size=2)


def test_alone_nothing_is_sent() -> None:
    parameter = torch.nn.Parameter(torch.ones(2))
    ALONE.add_gradients([parameter])
    assert parameter.grad is None
    assert ALONE.table([1, 2.5]) == [[1, 2.5]]
    assert ALONE.totals([3, 4]) == [3, 4]
    assert ALONE.everyones("x") == ["x"]
    assert ALONE.of_first(lambda: 7) == 7
    with joined(Seat()) as ranks:
        assert ranks is ALONE


def test_a_fault_of_another_keeps_its_code_and_place() -> None:
    error = PeerFault(2, 3, [{"message": "no rows", "place": "a.jsonl", "hint": "add some"}])
    assert isinstance(error, QtuneError)
    assert error.code is ExitCode.DATA
    assert str(error) == "a.jsonl: rank 2: no rows (add some)"


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[transport/tcp/pair.cc:537] gloo: Connection reset by peer"),
        DistBackendError("remote process exited or there was a network error"),
        RuntimeError("NCCL communicator was aborted on rank 1"),
    ],
)
def test_a_collective_that_breaks_off_is_a_lost_peer(error: RuntimeError) -> None:
    with pytest.raises(PeerLost, match="another process"), TWO.noticing():
        raise error


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="shapes"), TWO.noticing():
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")


def test_one_alone_has_no_peer_to_lose() -> None:
    with pytest.raises(RuntimeError, match="gloo"), ALONE.noticing():
        raise RuntimeError("gloo said something")


def _talk(ranks: Ranks) -> dict[str, Any]:
    """Everything that goes between processes."""
    rank = ranks.seat.rank
    many = [torch.nn.Parameter(torch.zeros(3, 2)) for _ in range(3)]
    many.append(torch.nn.Parameter(torch.zeros(2, dtype=torch.bfloat16)))
    for number, parameter in enumerate(many):
        if (number + rank) % 2:  # each has some gradients, and none of the others
            parameter.grad = torch.full_like(parameter, float(number + 1))
    ranks.add_gradients(many)
    tensor = torch.tensor([1.0, float(rank)])
    ranks.add(tensor)
    order: list[int] = []
    with ranks.one_before_the_rest():
        order.append(rank)
    return {
        "gradients": [
            parameter.grad.flatten().tolist() for parameter in many if parameter.grad is not None
        ],
        "sum": tensor.tolist(),
        "totals": ranks.totals([1, rank]),
        "table": ranks.table([rank, 0.5]),
        "everyones": ranks.everyones({"rank": rank}),
        "of_first": ranks.of_first(lambda: rank),
        "first": ranks.first,
    }


def main(told: str) -> None:
    """One of two processes: they talk, then the second one finds a fault."""
    place = seat()
    try:
        with joined(place) as ranks:
            said = _talk(ranks)
            if not ranks.first:
                raise DataError("a bad row", place="rows.jsonl:3", hint="mend it")
            ranks.wait()
    except QtuneError as error:
        fault = {"code": int(error.code), "error": str(error), "told": error.said_elsewhere}
        Path(told).write_text(json.dumps(said | fault))


def test_two_talk_and_the_first_tells_the_others_fault(tmp_path: Path) -> None:
    first, second = together("tests.test_ranks", folder=tmp_path)
    assert first["gradients"] == [[1.0] * 6, [2.0] * 6, [3.0] * 6, [4.0] * 2]
    assert first["sum"] == [2.0, 1.0]
    assert first["totals"] == [2, 1]
    assert first["table"] == [[0, 0.5], [1, 0.5]]
    assert first["everyones"] == [{"rank": 0}, {"rank": 1}]
    assert (first["of_first"], second["of_first"]) == (0, 0)
    assert (first["first"], second["first"]) == (True, False)
    for name in ("gradients", "sum", "totals", "table", "everyones"):
        assert first[name] == second[name]
    assert second["error"] == "rows.jsonl:3: a bad row (mend it)"
    assert first["error"] == "rows.jsonl:3: rank 1: a bad row (mend it)"
    assert (first["code"], second["code"]) == (ExitCode.DATA, ExitCode.DATA)
    assert (first["told"], second["told"]) == (False, True)  # who says it, and who need not


def restarted(told: str) -> None:
    """One of two processes that torchrun starts again after one was killed."""
    attempt = os.environ["TORCHELASTIC_RESTART_COUNT"]
    with joined(seat()) as ranks:
        ranks.wait()
        if attempt == "0" and not ranks.first:
            os.kill(os.getpid(), signal.SIGKILL)
        found = ranks.everyones([attempt, ranks.seat.rank])
        if ranks.first:
            Path(told).write_text(json.dumps(found))


def test_processes_that_torchrun_starts_again_meet_again(tmp_path: Path) -> None:
    words = ["--standalone", "--nproc-per-node=2", "--max-restarts=1", "-m", "tests.test_ranks"]
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *words, "restarted", str(tmp_path / "met")],
        cwd=Path(__file__).parents[1],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads((tmp_path / "met").read_text()) == [["1", 0], ["1", 1]]


if __name__ == "__main__":
    restarted(sys.argv[2]) if sys.argv[1] == "restarted" else main(*sys.argv[1:])
