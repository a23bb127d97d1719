"""The table of bytes: the published 65B totals, and every item by hand."""

from __future__ import annotations

from typing import Any

import pytest

from qtune.plan import Machine, make, shape_of
from qtune.recipe.sections import Recipe
from tests.plan.given import LARGE, LLAMA_8B, LLAMA_65B, TINY, cpu, gpu, recipe

ONE_ROW: dict[str, Any] = {
    "micro_batch_size": 1,
    "activations": "layer",
    "dequantized_layers": 0,
    "loss_chunk_size": 1024,
    "kernels": "plain",
}
HOST = "interpreter and libraries"


def parts(machine: Machine, config: dict[str, Any], **sections: Any) -> dict[str, int]:
    made = make(recipe(**sections), machine, shape_of(config))
    assert made.device_bytes == sum(item.bytes for item in made.memory if item.where == "device")
    return {item.part: item.bytes for item in made.memory}


@pytest.mark.parametrize(
    ("rank", "dtype", "optimizer", "length", "gigabytes"),
    [
        (16, "bfloat16", "adamw_8bit", 512, 38.9),
        (16, "bfloat16", "adamw_8bit", 2048, 41.8),
        (16, "bfloat16", "adamw_8bit", 4096, 45.6),
        (64, "bfloat16", "adamw_8bit", 512, 42.6),
        (64, "bfloat16", "adamw_8bit", 2048, 45.5),
        (16, "float32", "adamw", 2048, 43.9),
        (64, "bfloat16", "paged_adamw_32bit", 2048, 50.5),
    ],
)
def test_llama_65b_takes_the_known_totals(
    rank: int, dtype: str, optimizer: str, length: int, gigabytes: float
) -> None:
    asked = recipe(
        max_length=length,
        memory=ONE_ROW,
        method={"name": "lora", "rank": rank, "dtype": dtype},
        optim={"name": optimizer},
    )
    made = make(asked, LARGE, shape_of(LLAMA_65B))
    assert made.device_bytes / 1e9 == pytest.approx(gigabytes, rel=0.025)


def test_every_item_of_a_small_run_by_hand() -> None:
    found = parts(
        LARGE,
        {**TINY, "hidden_size": 256, "intermediate_size": 512, "num_key_value_heads": 4},
        max_length=100,
        memory={**ONE_ROW, "micro_batch_size": 3, "loss_chunk_size": 200},
        method={"name": "lora", "rank": 8, "dropout": 0.1},
        optim={"name": "paged_adamw_8bit"},
        train={"batch_size": 6},
    )
    hidden, width, layers, vocabulary, tokens = 256, 512, 2, 320, 300
    weights = layers * (4 * hidden * hidden + 3 * hidden * width)
    blocks = weights // 64
    trained = 8 * layers * (4 * 2 * hidden + 3 * (hidden + width))
    # 8-bit states only for matrices of at least 4,096 numbers: the MLP's wide ones
    wide = layers * 3 * 8 * width
    own = 2 * 4 * hidden + 4 * 2 * hidden + 4 * 4 + 3 * 2 * width
    adapters = 7 * 4 * 8 + (4 + 1) * (6 * hidden + width)
    expected = {
        "NF4 weights": weights // 2,
        # a byte a block, a float for 256 blocks and an offset for each of 14 matrices
        "NF4 constants": blocks + 4 * layers * (4 * 4 + 3 * 8) + 4 * 14,
        "the rest of the base": 2 * (2 * vocabulary * hidden + (2 * layers + 1) * hidden),
        "low-rank matrices": 4 * trained,
        "gradients": 4 * trained,
        "optimizer states": 8 * (trained - wide) + 2 * (wide + wide // 256 * 4),
        "layer inputs": layers * tokens * 2 * hidden,
        "work of one layer": tokens * (own + adapters + 2 * (2 * width + hidden) + 4 * width)
        + tokens * 8 * hidden,
        "attention masks": 3 * 100**2 * (1 + 2),  # of one layer, and what it is made of
        "logits": 200 * vocabulary * 8,
        "dequantised weight": 2 * hidden * width,
        "CUDA context": 700_000_000,
    }
    slack = found.pop("allocator slack")
    assert found.pop(HOST) == 600_000_000
    assert found == expected
    assert slack == int(0.03 * (sum(expected.values()) - 700_000_000))


def test_masks_are_where_rows_need_them_and_sdpa_copies_them() -> None:
    def masks(machine: Machine, rows: int, *, packing: bool = False, kernel: str = "sdpa") -> int:
        made = make(
            Recipe.model_validate(
                {
                    "model": {"name_or_path": "base", "attn_implementation": kernel},
                    "data": {
                        "train": [{"path": "rows.jsonl"}],
                        "max_length": 500,
                        "packing": packing,
                    },
                    "memory": {**ONE_ROW, "micro_batch_size": rows, "activations": "none"},
                    "train": {"batch_size": rows},
                }
            ),
            machine,
            shape_of(TINY),
        )
        return sum(item.bytes for item in made.memory if item.part == "attention masks")

    kept = 1 + 2 * shape_of(TINY).layers  # the mask, and a copy in each layer
    assert masks(LARGE, 1) == 0
    assert masks(LARGE, 4) == 4 * 500**2 * kept
    assert masks(LARGE, 1, packing=True) == 500**2 * kept
    assert masks(LARGE, 4, kernel="flash_attention_2") == 0
    assert masks(cpu(64), 4) == 0


def test_without_checkpointing_all_layers_are_kept() -> None:
    memory = {"micro_batch_size": 1, "activations": "none"}
    found = parts(LARGE, TINY, memory=memory, method={"name": "bitfit"}, max_length=10)
    own = 2 * 4 * 64 + 4 * 2 * 64 + 4 * 4 + 3 * 2 * 128
    assert found["activations"] == 10 * 2 * own
    assert found["gradients in flight"] == 10 * (2 * (2 * 128 + 64) + 8 * 64)
    assert "layer inputs" not in found
    assert found["delta-biases"] == 4 * 2 * (64 + 32 + 32 + 64 + 128 + 128 + 64)


def test_the_matrices_that_lora_fa_does_not_train_are_held_and_saved() -> None:
    method = {"name": "lora_fa", "rank": 4}
    found = parts(LARGE, TINY, method=method)
    assert found["frozen low-rank matrices"] == 4 * 4 * 2 * (6 * 64 + 128)
    assert found["gradients"] == found["low-rank matrices"]
    made = make(recipe(method=method), LARGE, shape_of(TINY))
    assert made.adapter_bytes == found["low-rank matrices"] + found["frozen low-rank matrices"]


def test_a_short_pass_needs_logits_for_its_own_tokens_only() -> None:
    found = parts(LARGE, TINY, max_length=50, memory={**ONE_ROW, "loss_chunk_size": 1024})
    assert found["logits"] == 50 * 320 * 8


def test_fp32_compute_takes_twice() -> None:
    small = parts(LARGE, TINY, memory=ONE_ROW)
    large = parts(LARGE, TINY, memory=ONE_ROW, quantization={"compute_dtype": "float32"})
    for part in ("the rest of the base", "layer inputs", "dequantised weight"):
        assert large[part] == 2 * small[part]
    assert large["logits"] * 8 == small["logits"] * 12


def test_what_is_not_quantised_is_its_own_item() -> None:
    found = parts(LARGE, TINY, quantization={"skip_modules": ["down_proj"]})
    assert found["linears not quantised"] == 2 * 2 * 64 * 128
    found = parts(LARGE, TINY, quantization={"bits": 16})
    assert "dequantised weight" not in found
    assert "NF4 weights" not in found
    assert parts(LARGE, TINY, quantization={"bits": 8})["int8 constants"] == 4 * 2 * (
        64 + 32 + 32 + 64 + 128 + 128 + 64
    )
    assert "FP4 weights" in parts(LARGE, TINY, quantization={"quant_type": "fp4"})


def test_a_soft_prompt_lengthens_every_row() -> None:
    plain = parts(LARGE, TINY, memory=ONE_ROW, method={"name": "bitfit"}, max_length=30)
    method = {"name": "prompt", "num_virtual_tokens": 20}
    prompted = parts(LARGE, TINY, memory=ONE_ROW, method=method, max_length=30)
    assert prompted["layer inputs"] * 30 == plain["layer inputs"] * 50
    assert prompted["prompt"] == 20 * 64 * 4


def test_a_cpu_pays_for_libraries_and_no_context() -> None:
    found = parts(cpu(20), TINY)
    assert found["interpreter and libraries"] == 600_000_000
    assert "CUDA context" not in found


def test_states_page_only_as_far_as_the_device_lacks_room() -> None:
    sections: dict[str, Any] = {
        "memory": ONE_ROW,
        "method": {"name": "lora", "rank": 64, "dtype": "bfloat16"},
    }
    all_there = parts(LARGE, LLAMA_65B, **sections)
    total = sum(all_there.values()) - all_there[HOST]
    found = parts(Machine("cuda", "GPU", total - 10**9, 0, 1), LLAMA_65B, **sections)
    assert found["optimizer states, paged out"] == 10**9
    assert found["optimizer states"] == all_there["optimizer states"] - 10**9
    assert sum(found.values()) == total + found[HOST]


def test_states_cannot_page_into_a_host_that_is_too_small() -> None:
    sections: dict[str, Any] = {
        "memory": {**ONE_ROW, "base": "resident"},
        "method": {"name": "lora", "dtype": "bfloat16"},
    }
    asked = recipe(max_length=2048, **sections)
    shape = shape_of(LLAMA_65B)
    assert make(asked, gpu(47), shape).fits
    assert make(asked, gpu(47, host=64_000_000_000), shape).fits
    assert not make(asked, gpu(47, host=1_000_000_000), shape).fits


def test_disk_holds_the_base_a_copy_to_stream_from_and_the_checkpoints() -> None:
    sections: dict[str, Any] = {"checkpoint": {"keep": 3}, "memory": {"base": "stream"}}
    made = make(recipe(**sections), gpu(24), shape_of(LLAMA_65B))
    found = {item.part: item.bytes for item in made.disk}
    assert found["base"] == 2 * 65_285_660_672
    assert found["4-bit copy"] == pytest.approx(0.516 * 64.76e9 + 1.05e9, rel=0.01)
    assert found["checkpoints"] == 5 * made.checkpoint_bytes
    assert found["adapter"] == made.adapter_bytes
    stays = make(recipe(memory={"base": "resident"}), LARGE, shape_of(LLAMA_65B))
    assert "4-bit copy" not in {item.part for item in stays.disk}


def test_a_streamed_base_is_two_layers_on_the_device_and_the_rest_in_the_host() -> None:
    one = {**ONE_ROW, "base": "stream", "kernels": "plain"}
    found = parts(LARGE, LLAMA_65B, memory=one)
    resident = parts(LARGE, LLAMA_65B, memory=ONE_ROW)
    layers = resident["NF4 weights"] + resident["NF4 constants"]
    assert found["layers on their way"] == pytest.approx(2 * layers / 80, rel=1e-6)
    made = make(recipe(memory=one), LARGE, shape_of(LLAMA_65B))
    assert made.host_bytes == layers + 600_000_000
    small = Machine("cuda", "GPU", 10**12, 20 * 10**9, 8)
    assert not make(recipe(memory=one), small, shape_of(LLAMA_65B)).fits


def test_unfolded_layers_take_two_bytes_a_weight() -> None:
    made = parts(LARGE, LLAMA_65B, memory={**ONE_ROW, "dequantized_layers": 10})
    assert made["unfolded layers"] == 10 * 2 * (4 * 8192 * 8192 + 3 * 8192 * 22016)


def test_the_sparse_part_takes_values_places_and_a_block_of_rows() -> None:
    method = {"name": "rosa", "rank": 16, "density": 0.006}
    plain = parts(LARGE, LLAMA_65B, memory=ONE_ROW, method={"name": "lora", "rank": 16})
    found = parts(LARGE, LLAMA_65B, memory=ONE_ROW, method=method)
    linears = [(8192, 8192)] * 4 + [(22016, 8192)] * 3
    places = 80 * sum(6 * n * m // 1000 for n, m in linears)
    assert found["sparse values"] == 4 * places
    assert found["places of the sparse values"] == 4 * places
    assert found["gradients"] == plain["gradients"] + 4 * places
    assert found["rows of the sparse part"] == 2048 * 22016 * (2 + 8)
    assert found["low-rank matrices"] == plain["low-rank matrices"]
    masked = {**method, "mask_from": "run"}
    found = parts(LARGE, LLAMA_65B, memory=ONE_ROW, method=masked)
    assert found["rows of the sparse part"] == 2048 * 22016 * 2


def test_delta_lora_takes_a_snapshot_and_joined_pairs_or_moved_weights() -> None:
    method = {"name": "delta_lora", "rank": 16}
    found = parts(LARGE, LLAMA_65B, memory=ONE_ROW, method=method)
    assert found["low-rank snapshot"] == found["low-rank matrices"]
    assert found["low-rank pairs joined"] == 2 * found["low-rank matrices"]
    dense = {"method": {**method, "form": "in_place"}, "quantization": {"bits": 16}}
    found = parts(LARGE, LLAMA_8B, memory=ONE_ROW, **dense)
    assert found["moved weights"] == 2 * shape_of(LLAMA_8B).linear_parameters
    assert "low-rank pairs joined" not in found
