"""The processes of a run: what one of them says when another has gone."""

from __future__ import annotations

import pytest
from torch.distributed import DistBackendError

from qtune.ranks import ALONE, PeerLost, Ranks, Seat

TWO = Ranks(Seat(rank=0, size=2, local_rank=0, local_size=2))


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
