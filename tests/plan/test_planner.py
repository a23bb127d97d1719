"""What the plan decides, and what it says about it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from qtune.errors import UsageError
from qtune.plan import Machine, Plan, make, shape_of
from tests.plan.given import LARGE, LLAMA_8B, LLAMA_65B, TINY, cpu, gpu, recipe

GPT2 = {"model_type": "gpt2", "n_embd": 64, "n_layer": 2, "n_head": 4, "vocab_size": 320}


def plan(machine: Machine, config: dict[str, Any] = TINY, **sections: Any) -> Plan:
    return make(recipe(**sections), machine, shape_of(config), rows=sections.pop("rows", None))


def reasons(made: Plan) -> dict[str, tuple[str, str]]:
    return {each.key: (each.value, each.reason) for each in made.decisions}


def test_with_room_for_all_nothing_is_recomputed_and_nothing_split() -> None:
    made = plan(LARGE, max_length=256, train={"batch_size": 24})
    assert made.micro_batch_size == 24
    assert made.gradient_accumulation_steps == 1
    assert made.activations == "none"
    assert reasons(made)["memory.micro_batch_size"][1].endswith("the whole batch")


@pytest.mark.parametrize(
    ("machine", "length", "batch", "expected"),
    [
        (LARGE, 2048, 16, 8),
        (LARGE, 2048, 7, 7),
        (LARGE, 2048, 22, 2),
        (LARGE, 100_000, 16, 1),
        (cpu(10**4), 2048, 16, 2),
        (cpu(10**4), 256, 16, 16),
        (cpu(10**4), 256, 48, 16),
        (cpu(10**4), 5000, 16, 1),
    ],
)
def test_a_pass_has_enough_tokens_and_no_more(
    machine: Machine, length: int, batch: int, expected: int
) -> None:
    made = plan(machine, max_length=length, train={"batch_size": batch})
    assert made.micro_batch_size == expected
    assert made.micro_batch_size * made.gradient_accumulation_steps == batch


def test_the_micro_batch_is_the_largest_that_fits() -> None:
    memory = {"activations": "layer", "dequantized_layers": 0, "loss_chunk_size": 256}
    sections: dict[str, Any] = {
        "max_length": 1024,
        "memory": memory,
        "optim": {"name": "adamw_8bit"},
    }
    largest = plan(LARGE, LLAMA_8B, **sections)
    assert largest.micro_batch_size == 16
    short = Machine("cuda", "GPU", largest.device_bytes - 1, 0, 1)
    exact = plan(short, LLAMA_8B, **sections)
    assert exact.micro_batch_size == 8
    assert "16 would need" in reasons(exact)["memory.micro_batch_size"][1]
    assert exact.device_bytes <= short.device_memory


def test_activations_are_kept_when_they_fit_and_recomputed_when_not() -> None:
    asked = {"max_length": 1024, "method": {"name": "lora", "rank": 16}}
    roomy, tight = plan(gpu(80), LLAMA_8B, **asked), plan(gpu(9), LLAMA_8B, **asked)
    assert (roomy.activations, tight.activations) == ("none", "layer")
    assert roomy.fits
    assert tight.fits
    assert "would need" in reasons(tight)["memory.activations"][1]


def test_tiny_passes_without_recomputation_lose_to_larger_ones_with_it() -> None:
    """One short row a pass would unfold the weights sixteen times a step."""
    asked: dict[str, Any] = {"max_length": 64, "train": {"batch_size": 64}}
    folded = {"dequantized_layers": 0, "kernels": "plain"}
    one = {"micro_batch_size": 1, "activations": "none", **folded}
    alone = plan(LARGE, LLAMA_8B, **asked, memory=one)
    machine = Machine("cuda", "GPU", alone.device_bytes, 0, 1)
    made = plan(machine, LLAMA_8B, **asked, memory=folded)
    assert made.activations != "none"
    assert made.micro_batch_size > 1


def test_the_recipes_own_values_stand() -> None:
    memory = {"micro_batch_size": 5, "activations": "layer", "loss_chunk_size": 77}
    made = plan(LARGE, memory=memory, train={"batch_size": 16})
    assert (made.micro_batch_size, made.gradient_accumulation_steps) == (5, 4)
    assert made.activations == "layer"
    assert made.loss_chunk_size == 77
    for key in ("memory.micro_batch_size", "memory.activations"):
        assert reasons(made)[key][1].endswith("as the recipe says")


def test_a_micro_batch_above_the_batch_is_the_batch_and_says_so() -> None:
    made = plan(LARGE, memory={"micro_batch_size": 32}, train={"batch_size": 16})
    assert made.micro_batch_size == 16
    assert "batch_size is only 16" in reasons(made)["memory.micro_batch_size"][1]


@pytest.mark.parametrize(
    ("machine", "asked", "used", "said"),
    [
        (cpu(8), "paged_adamw_32bit", "adamw_32bit", "nothing to page from"),
        (cpu(8), "paged_lion_8bit", "lion_8bit", "nothing to page from"),
        (cpu(8), "adamw_8bit", "adamw_8bit", "as the recipe says"),
        (LARGE, "sgd", "sgd", "as the recipe says"),
        (LARGE, "paged_adamw_8bit", "paged_adamw_8bit", "as the recipe says"),
    ],
)
def test_the_optimizer_is_what_this_machine_runs(
    machine: Machine, asked: str, used: str, said: str
) -> None:
    made = plan(machine, optim={"name": asked})
    assert made.optimizer == used
    value, reason = reasons(made)["optim.name"]
    assert value == used
    assert said in reason


def paged_bytes(made: Plan) -> int:
    return sum(item.bytes for item in made.memory if item.part == "optimizer states, paged out")


def test_paging_is_said_with_its_bytes() -> None:
    sections: dict[str, Any] = {"method": {"name": "lora", "dtype": "bfloat16"}}
    assert "page out under pressure" in reasons(plan(LARGE, LLAMA_65B))["optim.name"][1]
    made = plan(gpu(45), LLAMA_65B, **sections)
    paged = paged_bytes(made)
    assert paged > 10**9
    assert f"{paged / 1e9:.2f} GB of its states page out" in reasons(made)["optim.name"][1]
    assert made.host_bytes == paged + 600_000_000


def test_states_page_only_where_that_buys_more_time_than_it_takes() -> None:
    asked: dict[str, Any] = {
        "method": {"name": "lora", "dtype": "bfloat16"},
        "memory": {"kernels": "plain"},
    }
    one_pass = plan(gpu(60), LLAMA_65B, train={"batch_size": 1}, **asked)
    assert paged_bytes(one_pass) == 0
    pages = plan(gpu(60), LLAMA_65B, **asked)
    staying = plan(gpu(60, host=600_000_000), LLAMA_65B, **asked)
    assert paged_bytes(pages) > 0 == paged_bytes(staying)
    assert pages.micro_batch_size > staying.micro_batch_size
    assert pages.seconds_per_step < staying.seconds_per_step


def test_the_budget_lowers_the_machine_and_never_raises_it() -> None:
    lowered = plan(gpu(40), memory={"budget": "20GB"})
    assert lowered.budget_bytes == 20_000_000_000
    assert reasons(lowered)["memory.budget"][1] == "as the recipe says"
    raised = plan(gpu(40), memory={"budget": "64GB"})
    assert raised.budget_bytes == 40_000_000_000
    assert "64GB is more" in reasons(raised)["memory.budget"][1]


def test_quantisation_says_what_it_covers() -> None:
    made = plan(LARGE, quantization={"skip_modules": ["down_proj"]})
    value, reason = reasons(made)["quantization"]
    assert value == "NF4 + double quant"
    assert "12 of 14 linears" in reason
    assert reasons(plan(LARGE, quantization={"bits": 8}))["quantization"][0] == "int8"
    assert reasons(plan(LARGE, quantization={"bits": 16}))["quantization"][0] == "bfloat16"
    assert reasons(plan(LARGE, GPT2))["quantization"][0] == "bfloat16"
    assert "no linear of this gpt2" in reasons(plan(LARGE, GPT2))["quantization"][1]
    stored = {**TINY, "quantization_config": {"load_in_8bit": True}}
    made = plan(LARGE, stored, quantization={"bits": 8})
    assert "so is the checkpoint" in reasons(made)["quantization"][1]


def test_rows_longer_than_the_model_knows_are_pointed_out() -> None:
    config = {**TINY, "max_position_embeddings": 512}
    assert "data.max_length" not in reasons(plan(LARGE, config, max_length=512))
    assert "512 positions" in reasons(plan(LARGE, config, max_length=513))["data.max_length"][1]
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512}
    stretched = config | {"rope_scaling": yarn}
    assert "data.max_length" not in reasons(plan(LARGE, stretched, max_length=2048))
    reason = reasons(plan(LARGE, stretched, max_length=2049))["data.max_length"][1]
    assert "2,048 positions" in reason
    apart = {"name": "long_lora", "rope_factor": 2}
    assert "data.max_length" not in reasons(plan(LARGE, config, max_length=1024, method=apart))


def test_a_family_without_sdpa_is_refused_before_loading() -> None:
    gemma = {**TINY, "model_type": "gemma2"}
    with pytest.raises(UsageError, match="gemma2 without sdpa"):
        plan(LARGE, gemma)
    assert plan(LARGE, gemma, model={"name_or_path": "x", "attn_implementation": "eager"}).fits


def test_training_quantised_weights_is_refused() -> None:
    saved = {"name": "lora", "modules_to_save": ["down_proj"]}
    with pytest.raises(UsageError, match="quantised weights") as caught:
        plan(LARGE, method=saved)
    assert "add down_proj to quantization.skip_modules" in caught.value.faults[0].hint
    assert plan(LARGE, method=saved, quantization={"skip_modules": ["down_proj"]}).fits


def test_counts_and_steps_are_there() -> None:
    made = make(recipe(method={"name": "lora", "rank": 1}), LARGE, shape_of(TINY), rows=100)
    assert made.trainable_parameters == 2 * (2 * 128 + 2 * 96 + 3 * 192)
    assert made.total_parameters == shape_of(TINY).total_parameters
    assert made.steps is not None
    assert made.steps.total == 7
    assert plan(LARGE).steps is None


def test_a_plan_is_plain_json() -> None:
    made = make(recipe(), gpu(1), shape_of(LLAMA_65B), rows=100)
    read = json.loads(json.dumps(made.to_dict(), allow_nan=False))
    assert read["fits"] is False
    assert read["steps"]["total"] == 7
    assert read["machine"]["device"] == "cuda"
    assert (
        sum(item["bytes"] for item in read["memory"] if item["where"] == "device")
        == (read["device_bytes"])
    )
    assert {"part", "bytes", "where", "reason"} == set(read["memory"][0])
    assert read["remedies"]


def test_packed_rows_take_at_most_so_many_tokens_and_passes() -> None:
    data = {"train": [{"path": "rows.jsonl"}], "max_length": 2048, "packing": True}
    asked = recipe(train={"batch_size": 16})
    asked = asked.model_copy(update={"data": type(asked.data).model_validate(data)})
    reason = reasons(make(asked, LARGE, shape_of(TINY)))["memory.micro_batch_size"][1]
    assert reason.startswith("rows packed, at most 8 x 2,048 tokens a pass and 2 passes a step")
