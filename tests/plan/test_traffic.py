"""What devices send one another, held against every message of a ring counted one by one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from qtune.plan import Machine, shape_of
from qtune.plan.memory import Costs, costs_of
from qtune.plan.planner import planner_of
from qtune.plan.traffic import gathered, summed, traffic_of
from qtune.plan.way import Way
from qtune.plan.work import MOVES, Work
from tests.plan.given import LLAMA_65B, TINY, cpu, recipe

A6000 = Machine("cuda", "NVIDIA RTX A6000", 48 * 2**30, 0, 8)
H100 = Machine("cuda", "NVIDIA H100 80GB HBM3", 80 * 2**30, 0, 8)
WHOLE = Way(1, "layer", strategy="ddp")
SHARED = Way(1, "layer", strategy="fsdp")


def messages_of_a_ring(processes: int, part: int, *, rounds: int) -> list[int]:
    """Bytes that each process has sent after passing a part on in every round."""
    sent = [0] * processes
    for _ in range(rounds):
        for process in range(processes):
            sent[process] += part
    return sent


@pytest.mark.parametrize("processes", [2, 3, 8])
def test_a_ring_sums_and_gathers_with_as_many_bytes(processes: int) -> None:
    part = 1000
    size = part * processes
    once = messages_of_a_ring(processes, part, rounds=processes - 1)
    assert [gathered(size, processes)] * processes == once
    twice = messages_of_a_ring(processes, part, rounds=2 * (processes - 1))
    assert [summed(size, processes)] * processes == twice
    assert gathered(size, 1) == summed(size, 1) == 0


def costs(machine: Machine = A6000, *, processes: int, **sections: Any) -> Costs:
    config = sections.pop("config", LLAMA_65B)
    return costs_of(recipe(**sections), machine, shape_of(config), processes=processes)


def work(machine: Machine = A6000, *, processes: int, **sections: Any) -> Work:
    return planner_of(costs(machine, processes=processes, **sections), 10**12).work


def test_whole_bases_send_gradients_alone() -> None:
    found = traffic_of(costs(processes=4, method={"name": "lora", "rank": 16}), WHOLE)
    shape = shape_of(LLAMA_65B)
    trained = sum(16 * (each.in_features + each.out_features) for each in shape.linears)
    assert found.gradients == 2 * 3 * 4 * trained // 4
    assert found.a_step(passes=7) == found.gradients
    assert traffic_of(costs(processes=1), Way(1)).a_step(passes=7) == 0


def test_shared_layers_come_once_forward_and_once_back_in_every_pass() -> None:
    found = traffic_of(costs(processes=4), SHARED)
    packed = shape_of(LLAMA_65B).linear_parameters // 2
    assert found.weights == 3 * packed // 4
    assert found.a_step(passes=7) == found.gradients + 7 * 2 * found.weights
    teaches = costs(processes=4, loss={"teacher": "base"})
    assert traffic_of(teaches, SHARED).visits == 3


def test_gradients_take_their_time_at_the_end_of_a_step() -> None:
    several = work(processes=2)
    estimate = several.estimate(WHOLE, paged=0)
    gradients = traffic_of(several.costs, WHOLE).gradients
    assert estimate.exchange == pytest.approx(gradients / (12.5e9 * MOVES))
    alone = work(processes=1).estimate(Way(1, "layer"), paged=0)
    assert alone.exchange == 0
    # half of the rows, half of the time
    own = estimate.seconds - estimate.exchange - estimate.update
    assert own == pytest.approx((alone.seconds - alone.update) / 2)
    assert estimate.tokens == alone.tokens


def test_layers_take_time_where_a_pass_is_shorter_than_their_way() -> None:
    """A forward pass is shorter than the way of its layers, a backward pass is not."""
    several = work(processes=2, max_length=512)
    estimate = several.estimate(SHARED, paged=0)
    traffic = traffic_of(several.costs, SHARED)
    visit = traffic.weights / (12.5e9 * MOVES)
    forward = several.costs.rows * (visit - _forward(several))
    assert forward > 0
    assert estimate.exchange == pytest.approx(traffic.gradients / 10e9 + forward, rel=1e-6)
    enough = several.break_even_tokens(SHARED)
    hidden = work(processes=2, max_length=enough + 8).estimate(SHARED, paged=0)
    assert hidden.exchange == pytest.approx(traffic.gradients / 10e9)


def _forward(several: Work) -> float:
    """Seconds of one forward pass, from two estimates that differ by it."""
    none, layer = (several.estimate(Way(1, policy), paged=0) for policy in ("none", "layer"))
    again = layer.seconds - none.seconds - (layer.waiting - none.waiting)
    head = layer.head / several.costs.rows
    return again / several.costs.rows + head


def test_nothing_hides_behind_work_on_a_cpu() -> None:
    several = work(cpu(8), processes=2, config=TINY)
    estimate, traffic = several.estimate(SHARED, paged=0), traffic_of(several.costs, SHARED)
    moved = traffic.a_step(passes=several.costs.rows)
    assert estimate.exchange == pytest.approx(moved / (1e9 * MOVES))


def test_parts_that_wait_in_host_memory_come_over_the_link_first() -> None:
    away = Way(1, "layer", strategy="fsdp", offload=True)
    several = work(H100, processes=4)
    packed = shape_of(LLAMA_65B).linear_parameters // 2
    few, many = (several.break_even_tokens(way) for way in (SHARED, away))
    assert several.between == 450e9 * MOVES
    assert many > few
    at_once = packed / 4 / 50e9
    assert several._gathering(away) - several._gathering(SHARED) == pytest.approx(at_once)


def test_between_machines_the_network_is_the_narrowest() -> None:
    here, apart = (work(H100.share(seats), processes=8) for seats in (8, 4))
    assert (here.wire, here.between) == ("NVLink", 450e9 * MOVES)
    assert (apart.wire, apart.between) == ("network", 12.5e9 * MOVES)
    slow = work(replace(cpu(8), seats=1), processes=2, config=TINY)
    assert (slow.wire, slow.between) == ("network", 1e9 * MOVES)
