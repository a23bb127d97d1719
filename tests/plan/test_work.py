"""The cost model: which way is faster, and by how much, held against arithmetic by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from qtune.plan import Machine, shape_of
from qtune.plan.devices import card, device_of
from qtune.plan.memory import costs_of
from qtune.plan.planner import planner_of
from qtune.plan.way import Way
from qtune.plan.work import MOVES, PRODUCTS, Estimate
from tests.plan.given import LLAMA_8B, LLAMA_65B, TINY, cpu, gpu, recipe

A6000 = Machine("cuda", "NVIDIA RTX A6000", 48 * 2**30, 0, 8)


def seconds(way: Way, machine: Machine = A6000, **sections: Any) -> Estimate:
    config = sections.pop("config", LLAMA_65B)
    costs = costs_of(recipe(**sections), machine, shape_of(config))
    return planner_of(costs, machine.device_memory).work.estimate(way, paged=0)


def test_the_base_is_four_operations_a_weight_and_six_where_layers_are_recomputed() -> None:
    sections: dict[str, Any] = {"max_length": 2048, "train": {"batch_size": 1}}
    none, layer = (seconds(Way(1, policy), **sections) for policy in ("none", "layer"))
    weights = shape_of(LLAMA_65B).linear_parameters
    assert none.base == pytest.approx(4 * weights * 2048 / (155e12 * PRODUCTS))
    assert layer.base == pytest.approx(1.5 * none.base)
    assert none.tokens == 2048
    assert none.tokens_per_second == pytest.approx(2048 / none.seconds)


def test_weights_are_unfolded_once_a_pass_over_the_base() -> None:
    both, one_less = (
        seconds(Way(1, "none", "resident", layers), train={"batch_size": 1}) for layers in (0, 8)
    )
    weights = shape_of(LLAMA_65B).linear_parameters
    moved = (2 + 4.127 / 8) * weights
    assert both.unfolding == pytest.approx(2 * moved / (768e9 * MOVES), rel=1e-3)
    assert one_less.unfolding == pytest.approx(both.unfolding * 72 / 80, rel=1e-6)
    split = seconds(Way(1, "none"), train={"batch_size": 16})
    assert split.unfolding == pytest.approx(16 * both.unfolding)


@pytest.mark.parametrize("kernels", ["plain", "auto"])
def test_policies_are_ranked_by_what_they_compute_again(kernels: str) -> None:
    times = [
        seconds(Way(1, policy), memory={"kernels": kernels}).seconds
        for policy in ("none", "selective", "layer")
    ]
    assert times == sorted(times)
    assert 1.2 < times[2] / times[0] < 1.6


def test_the_link_hides_behind_enough_tokens() -> None:
    costs = costs_of(recipe(max_length=512), gpu(24), shape_of(LLAMA_65B))
    work = replace(planner_of(costs, 10**12).work, device=device_of(A6000))
    way = Way(1, "layer", "stream")
    even = work.break_even_tokens(way)
    assert 200 < even < 2000
    for size, hidden in ((1, False), (4, True)):
        tokens = size * 512
        streamed = work.estimate(replace(way, micro_batch_size=size), paged=0)
        resident = work.estimate(Way(size, "layer"), paged=0)
        assert (streamed.waiting == resident.waiting) is hidden is (tokens >= even)


def test_paging_takes_its_time() -> None:
    costs = costs_of(recipe(), A6000, shape_of(LLAMA_8B))
    work = planner_of(costs, 10**12).work
    stays, pages = (work.estimate(Way(1), paged=paged).update for paged in (0, 5 * 10**9))
    assert pages - stays == pytest.approx(2 * 5e9 / 12.5e9)


def test_bf16_adapters_and_8_bit_states_are_faster() -> None:
    slow = seconds(Way(1), config=LLAMA_8B)
    fast = seconds(Way(1), config=LLAMA_8B, method={"name": "lora", "dtype": "bfloat16"})
    assert fast.adapters == pytest.approx(slow.adapters / 8)
    light = seconds(Way(1), config=LLAMA_8B, optim={"name": "adamw_8bit"})
    assert light.update < slow.update


@pytest.mark.parametrize(
    ("name", "teraflops", "size"),
    [
        ("NVIDIA GeForce RTX 4090", 165, 24),
        ("NVIDIA A100-SXM4-80GB", 312, 80),
        ("NVIDIA H100 80GB HBM3", 989, 80),
        ("NVIDIA H100 PCIe", 756, 80),
        ("NVIDIA L4", 60, 24),
        ("NVIDIA L40S", 362, 48),
        ("NVIDIA A10", 125, 24),
        ("NVIDIA RTX 6000 Ada Generation", 364, 48),
        ("NVIDIA H200", 989, 141),
    ],
)
def test_a_card_is_known_by_its_name(name: str, teraflops: float, size: int) -> None:
    found = card(name)
    assert found is not None
    assert (found[0], found[1].flops / 1e12) == (size, pytest.approx(teraflops))


@pytest.mark.parametrize(
    ("gigabytes", "name"),
    [(8, "RTX 3060"), (12, "RTX 3060"), (24, "RTX 3090"), (48, "RTX A6000"), (141, "H200")],
)
def test_an_unknown_card_is_taken_for_a_slow_one_of_its_size(gigabytes: int, name: str) -> None:
    found = device_of(Machine.gpu(gigabytes * 10**9))
    assert (found.name, found.assumed) == (name, True)
    assert card("a card") is None


def test_a_cpu_is_as_fast_as_its_cores() -> None:
    one, many = (device_of(replace(cpu(8), cores=cores)) for cores in (1, 8))
    assert many.flops == 8 * one.flops
    tiny = seconds(Way(1, "none"), cpu(8), config=TINY)
    assert 0 < tiny.seconds < 10
