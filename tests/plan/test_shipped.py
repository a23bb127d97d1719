"""Every shipped recipe fits the card in its name; the published sizes are the models' own."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from qtune.plan import Machine, make, parse_size, shape_before_download, shape_of
from qtune.plan.published import published_config
from qtune.recipe import load, shipped
from qtune.recipe.inputs import ModelSection
from qtune.run.shapes import with_teacher
from tests.plan.given import cpu, gpu

if TYPE_CHECKING:
    from pathlib import Path

    from qtune.recipe.sections import Recipe

NAMES = [name for name in shipped.recipes() if "ci" not in name.split("-")]


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)


def machine_of(name: str, asked: Recipe) -> Machine:
    """The card in the name, else one of the recipe's budget, else a laptop."""
    size = re.search(r"-(\d+)gb$", name)
    if size:
        return Machine.gpu(int(size[1]) * 10**9)
    return cpu(4) if asked.memory.budget is None else gpu(parse_size(asked.memory.budget) / 1e9)


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_recipe_fits_the_card_in_its_name(name: str) -> None:
    asked = load(name).recipe
    shape, _ = shape_before_download(asked.model)
    shape = with_teacher(asked, shape, published=True)
    made = make(asked, machine_of(name, asked), shape, rows=1000)
    made.check()
    assert made.device_bytes <= made.budget_bytes
    assert made.tokens_per_second > 1


def test_the_promised_recipes_are_there() -> None:
    promised = {"guanaco-65b-48gb", "llama-70b-48gb", "llama-65b-24gb", "qwen-32b-24gb"}
    promised |= {"llama-8b-12gb", "llama-8b-24gb", "llama-8b-80gb", "quickstart"}
    assert promised <= set(NAMES)


def test_65b_on_24_gb_is_streamed_and_says_when_the_link_hides() -> None:
    asked = load("llama-65b-24gb").recipe
    made = make(asked, Machine.gpu(24 * 10**9), shape_before_download(asked.model)[0])
    assert made.base == "stream"
    reasons = {each.key: each.reason for each in made.decisions}
    assert "the link hides behind the work from" in reasons["memory.base"]
    assert made.host_bytes > 33e9


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("huggyllama/llama-65b", 65_285_660_672),
        ("meta-llama/Meta-Llama-3-8B", 8_030_261_248),
        ("meta-llama/Llama-3.1-70B", 70_553_706_496),
        ("meta-llama/Llama-3.2-1B", 1_235_814_400),
        ("mistralai/Mistral-7B-v0.1", 7_241_732_096),
        ("Qwen/Qwen2.5-0.5B", 494_032_768),
        ("Qwen/Qwen2.5-7B", 7_615_616_512),
        ("Qwen/Qwen2.5-32B", 32_763_876_352),
        ("Qwen/Qwen3-8B", 8_190_735_360),
    ],
)
def test_published_sizes_give_the_published_number_of_parameters(
    name: str, parameters: int
) -> None:
    config = published_config(name)
    assert config is not None
    assert shape_of(config).total_parameters == parameters


def test_sizes_are_taken_as_published_only_where_no_other_is_known(tmp_path: Path) -> None:
    name = "Qwen/Qwen3-8B"
    shape, note = shape_before_download(ModelSection(name_or_path=name))
    assert (shape.layers, note) == (
        36,
        f"sizes of {name} as published: its config.json is not in the local cache",
    )
    commit = "0" * 40
    folder = tmp_path / "hub" / "models--Qwen--Qwen3-8B"
    (folder / "snapshots" / commit).mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(commit)
    assert shape_before_download(ModelSection(name_or_path=name))[1]
    text = '{"model_type": "gpt2", "n_embd": 8, "n_layer": 1, "n_head": 1, "vocab_size": 9}'
    (folder / "snapshots" / commit / "config.json").write_text(text)
    from huggingface_hub import constants

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        shape, note = shape_before_download(ModelSection(name_or_path=name))
    assert (shape.family, note) == ("gpt2", "")
