"""How the plan chooses for several devices, and what it says they gain."""

from __future__ import annotations

import json
from typing import Any

import pytest

from qtune.errors import ResourceError, UsageError
from qtune.plan import Machine, Plan, make, shape_of
from qtune.plan.distribution import Pace, fewest_devices, pays_from
from tests.plan.given import LARGE, LLAMA_70B, TINY, cpu, gpu, recipe


def plan(machine: Machine, processes: int, config: dict[str, Any] = TINY, **sections: Any) -> Plan:
    return make(recipe(**sections), machine, shape_of(config), rows=100, processes=processes)


def reason(made: Plan, key: str) -> tuple[str, str]:
    return next((each.value, each.reason) for each in made.decisions if each.key == key)


def part(made: Plan, name: str) -> int:
    return sum(item.bytes for item in made.memory if item.part == name)


@pytest.mark.parametrize(
    ("processes", "batch", "rows", "passes"), [(1, 16, 16, 1), (3, 16, 6, 1), (4, 16, 4, 1)]
)
def test_a_pass_has_no_more_rows_than_a_process(
    processes: int, batch: int, rows: int, passes: int
) -> None:
    made = plan(LARGE, processes, train={"batch_size": batch})
    assert (made.micro_batch_size, made.gradient_accumulation_steps) == (rows, passes)
    asked = plan(LARGE, processes, memory={"micro_batch_size": 5}, train={"batch_size": batch})
    assert asked.micro_batch_size == min(5, rows)
    assert asked.gradient_accumulation_steps == -(-rows // min(5, rows))


def test_as_many_steps_as_one_process_makes() -> None:
    assert plan(LARGE, 4).steps == plan(LARGE, 1).steps


def test_the_base_stays_whole_where_it_fits() -> None:
    made = plan(gpu(80), 8, LLAMA_70B)
    assert (made.strategy, made.offload, made.fits) == ("ddp", False, True)
    said = reason(made, "distributed.strategy")[1]
    assert said.startswith("8 processes; each has the base whole, and gathers nothing; fsdp is ")
    assert said.endswith("slower")
    alone = plan(gpu(80), 1, LLAMA_70B)
    assert part(made, "NF4 weights") == part(alone, "NF4 weights")
    assert part(alone, "gradients on their way") == 0
    assert part(made, "gradients on their way") == 2**25


def test_shared_layers_that_may_be_faster_are_said_to_be() -> None:
    """Whole layers leave room for few tokens a pass, shared ones for many."""
    asked: dict[str, Any] = {"max_length": 512, "train": {"batch_size": 64}}
    whole = plan(gpu(45), 8, LLAMA_70B, method={"name": "lora", "rank": 8}, **asked)
    shared = plan(
        gpu(45),
        8,
        LLAMA_70B,
        method={"name": "lora", "rank": 8},
        distributed={"strategy": "fsdp"},
        **asked,
    )
    assert (whole.strategy, shared.strategy) == ("ddp", "fsdp")
    faster = 1 - shared.seconds_per_step / whole.seconds_per_step
    assert faster > 0.005
    assert f"fsdp may be {faster:.0%} faster" in reason(whole, "distributed.strategy")[1]


def test_layers_are_shared_out_where_whole_ones_do_not_fit() -> None:
    made = plan(gpu(24), 8, LLAMA_70B)
    assert (made.strategy, made.base, made.dequantized_layers) == ("fsdp", "resident", 0)
    shape = shape_of(LLAMA_70B)
    packed = shape.linear_parameters // 2
    assert part(made, "NF4 weights") == packed // 8
    assert part(made, "gathered layers") == 3 * packed // shape.layers
    whole = plan(LARGE, 1, LLAMA_70B)
    for name in ("NF4 constants", "the rest of the base", "low-rank matrices", "gradients"):
        assert part(made, name) == part(whole, name)
    assert "ddp would need at least" in reason(made, "distributed.strategy")[1]


def test_shares_wait_in_host_memory_where_the_device_has_no_room() -> None:
    lora = {"name": "lora", "rank": 16}
    asked: dict[str, Any] = {"distributed": {"strategy": "fsdp"}, "method": lora}
    made = plan(gpu(24), 2, LLAMA_70B, **asked)
    assert (made.strategy, made.offload, made.fits) == ("fsdp", True, True)
    values = next(item for item in made.memory if item.part == "NF4 weights")
    assert (values.where, values.bytes) == ("host", shape_of(LLAMA_70B).linear_parameters // 4)
    assert made.host_bytes >= values.bytes
    assert reason(made, "distributed.offload")[1].startswith("on the device would need")
    stays = plan(
        gpu(24), 2, LLAMA_70B, method=lora, distributed={"strategy": "fsdp", "offload": False}
    )
    assert not stays.fits
    assert (
        plan(cpu(80), 2, TINY, distributed={"strategy": "fsdp", "offload": True}).offload is False
    )


@pytest.mark.parametrize(
    ("sections", "why"),
    [
        ({"quantization": {"bits": 8}}, "only 4-bit layers"),
        ({"memory": {"base": "stream"}}, "streamed"),
        ({"memory": {"on_oom": "shrink"}}, "in step"),
        ({"memory": {"dequantized_layers": 2}}, "unfolded"),
    ],
)
def test_what_cannot_be_shared_out_stays_whole_or_is_refused(
    sections: dict[str, Any], why: str
) -> None:
    config = {**TINY, "num_hidden_layers": 4}
    made = plan(LARGE, 2, config, **sections)
    assert made.strategy == "ddp"
    assert why in reason(made, "distributed.strategy")[1]
    with pytest.raises(UsageError, match=r"distributed\.strategy: cannot be fsdp"):
        plan(LARGE, 2, config, **sections, distributed={"strategy": "fsdp"})


def test_one_process_has_nothing_to_share() -> None:
    made = plan(LARGE, 1, distributed={"strategy": "fsdp"})
    assert (made.strategy, made.distribution) == ("none", None)
    assert reason(made, "distributed.strategy") == (
        "none",
        "fsdp is for several processes, and this is one",
    )
    assert made.memory == plan(LARGE, 1).memory


def test_the_gain_is_what_two_plans_say() -> None:
    alone, several = plan(gpu(80), 1, LLAMA_70B), plan(gpu(80), 8, LLAMA_70B)
    found = several.distribution
    assert found is not None
    assert found.seconds_alone == alone.seconds_per_step
    assert found.speed_up == alone.seconds_per_step / several.seconds_per_step
    assert 1 < found.speed_up < 8
    assert found.exchange_share == found.exchange_seconds / several.seconds_per_step
    assert several.tokens_per_second > alone.tokens_per_second
    assert json.loads(json.dumps(several.to_dict()))["distribution"]["wire"] == "PCIe"


def test_two_processes_of_a_cpu_are_no_faster_than_one_with_all_its_cores() -> None:
    machine = Machine("cpu", "CPU, 4 cores", 10**10, 10**10, 4)
    found = plan(machine.share(2), 2).distribution
    assert found is not None
    assert found.seconds_alone == plan(machine, 1).seconds_per_step
    assert found.speed_up is not None
    assert found.speed_up < 1.1


def test_one_device_without_room_has_no_pace() -> None:
    asked = {"memory": {"base": "resident"}}
    found = plan(gpu(24), 8, LLAMA_70B, **asked).distribution
    assert found is not None
    assert (found.seconds_alone, found.speed_up, found.pays_from_rows) == (None, None, None)
    assert found.hidden_from_tokens is not None


def test_more_devices_pay_from_the_first_batch_that_is_faster() -> None:
    one, four = Pace(row=1.0, fixed=2.0), Pace(row=1.0, fixed=8.0, processes=4)
    by_hand = [rows for rows in range(2, 50) if (rows + 3) // 4 * 1.0 + 8.0 < rows * 1.0 + 2.0]
    assert pays_from(one, four) == by_hand[0]
    assert pays_from(one, Pace(row=4.0, fixed=2.0, processes=4)) is None


def test_a_refusal_says_how_many_devices_would_do() -> None:
    asked: dict[str, Any] = {"memory": {"base": "resident"}}
    made = plan(gpu(24), 1, LLAMA_70B, **asked)
    number = made.fits_on
    assert number is not None
    with pytest.raises(ResourceError, match=f"or {number} such devices, with --processes"):
        made.check()
    assert plan(gpu(24), number, LLAMA_70B, **asked).fits
    assert not plan(gpu(24), number // 2, LLAMA_70B, **asked).fits
    assert plan(cpu(24), 1, LLAMA_70B, **asked).fits_on is None
    assert fewest_devices(8, lambda number: number >= 3) == 16
    assert fewest_devices(64, lambda number: number > 64) is None


def test_ddp_that_does_not_fit_is_advised_to_be_auto() -> None:
    made = plan(gpu(24), 8, LLAMA_70B, memory={"base": "resident"}, distributed={"strategy": "ddp"})
    assert not made.fits
    fitting = [remedy for remedy in made.remedies if remedy.fits]
    assert ("distributed.strategy=auto",) in [remedy.settings for remedy in fitting]
