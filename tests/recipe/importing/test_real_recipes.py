"""The real recipes of other tools, read a second time by straight-line code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from qtune.errors import UsageError
from qtune.recipe import load
from qtune.recipe.importing import Imported, convert

REAL = Path(__file__).parents[4] / "shared" / "real" / "foreign_recipes"
pytestmark = pytest.mark.skipif(not REAL.is_dir(), reason="the real recipes are not here")
FILES = sorted(REAL.iterdir()) if REAL.is_dir() else []
REFUSED = {
    "qlora-1b-kto.yaml": "KTO",
    "mistral-qlora-orpo.yml": "ORPO",
    "merge_lora_qwen3_lora_sft.yaml": "qtune merge",
    "train_lora_qwen3_lora_dpo.yaml": "DPO",
    "dpo_config_qlora.yaml": "DPO",
}


def expected(tool: str, told: dict[str, Any]) -> dict[str, Any]:
    """Rank, alpha, dropout, rows of a step, peak rate, longest row, bits and seed, by hand."""
    if tool == "torchtune":
        model = told["model"]
        return {
            "lora": (model["lora_rank"], model["lora_alpha"], model["lora_dropout"]),
            "batch": told["batch_size"] * told["gradient_accumulation_steps"],
            "rate": float(told["optimizer"]["lr"]),
            "length": 2048,
            "bits": 4,
            "path": "yahma/alpaca-cleaned",
            "ends": told["epochs"],
        }
    if tool == "litgpt":
        return {
            "lora": (told["lora_r"], told["lora_alpha"], told["lora_dropout"]),
            "batch": told["train"]["global_batch_size"],
            "rate": told["optimizer"]["init_args"]["lr"],
            "length": told["train"]["max_seq_length"],
            "bits": 4,
            "path": "mhenrichsen/alpaca_2k_test",
            "ends": told["train"]["epochs"],
        }
    if tool == "mlx":
        own = told["lora_parameters"]
        return {
            "lora": (own["rank"], own["rank"] * own["scale"], own["dropout"]),
            "batch": told["batch_size"],
            "rate": float(told["learning_rate"]),
            "length": told["max_seq_length"],
            "bits": 16,
            "path": told["data"],
            "ends": told["iters"],
        }
    if tool == "axolotl":
        return {
            "lora": (told["lora_r"], told["lora_alpha"], told["lora_dropout"]),
            "batch": told["micro_batch_size"] * told["gradient_accumulation_steps"],
            "rate": told["learning_rate"],
            "length": told["sequence_len"],
            "bits": 4,
            "path": told["datasets"][0]["path"],
            "ends": told["num_epochs"],
        }
    rows = told["per_device_train_batch_size"] * told["gradient_accumulation_steps"]
    shared = {"batch": rows, "rate": told["learning_rate"], "ends": told["num_train_epochs"]}
    if tool == "llamafactory":
        rank = told["lora_rank"]
        return shared | {
            "lora": (rank, 2 * rank, 0.0),
            "length": told["cutoff_len"],
            "bits": told.get("quantization_bit", 16),
            "path": "data/identity.json",
        }
    return shared | {
        "lora": (told["lora_r"], told["lora_alpha"], told["lora_dropout"]),
        "length": told["max_seq_length"],
        "bits": 4,
        "path": told["dataset_mixture"]["datasets"][0]["id"],
    }


def _reason(path: Path) -> str | None:
    return next((why for end, why in REFUSED.items() if path.name.endswith(end)), None)


def test_there_are_26_of_them() -> None:
    assert len(FILES) == 26
    assert sum(_reason(path) is not None for path in FILES) == len(REFUSED)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_each_converts_or_is_refused_rightly(path: Path, tmp_path: Path) -> None:
    if (why := _reason(path)) is not None:
        with pytest.raises(UsageError, match=why) as caught:
            convert(str(path))
        assert caught.value.faults[0].hint
        return
    made = convert(str(path))
    written = tmp_path / "recipe.yaml"
    written.write_text(made.text(tmp_path))
    recipe = load(written).recipe
    assert recipe == made.recipe
    told = yaml.safe_load(path.read_text())
    want = expected(path.name.split("__")[0], told)
    lora: Any = recipe.method
    assert (lora.rank, lora.alpha, lora.dropout) == want["lora"]
    assert recipe.train.batch_size == want["batch"]
    assert recipe.optim.learning_rate == want["rate"]
    assert recipe.data.max_length == want["length"]
    assert recipe.quantization.bits == want["bits"]
    assert recipe.data.train[0].path == want["path"]
    assert want["ends"] in (recipe.train.num_train_epochs, recipe.train.max_steps)
    _all_told(made, told)


def _all_told(made: Imported, told: dict[str, Any]) -> None:
    """Every top-level key of the file is in the text, or is empty."""
    text = made.text(Path())
    listed = {one.key.partition(".")[0] for one in made.left}
    for key, value in told.items():
        if value is not None:
            assert key in text or key in listed, key
