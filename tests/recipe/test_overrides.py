from __future__ import annotations

from functools import reduce
from pathlib import Path
from typing import Any

import pytest

from qtune.recipe.methods import BitfitConfig, LoraConfig
from tests.recipe.conftest import Faults, Read


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("optim.learning_rate=1e-5", "optim.learning_rate", 1e-5),
        ("method.rank=010", "method.rank", 10),
        ("method.target_modules=[q_proj, v_proj]", "method.target_modules", ("q_proj", "v_proj")),
        ("method.target_modules=.*[qv]_proj", "method.target_modules", ".*[qv]_proj"),
        ("method.rank_pattern={a.b: 4}", "method.rank_pattern", {"a.b": 4}),
        ("method.rank_pattern.a=4", "method.rank_pattern", {"a": 4}),
        ("data.max_length= 64 ", "data.max_length", 64),
        ("model.revision=no", "model.revision", "no"),
        ("model.revision='7'", "model.revision", "7"),
        ("model.revision=#1: a", "model.revision", "#1: a"),
        ("train.output_dir=a=b", "train.output_dir", "a=b"),
        ("train.max_steps=", "train.max_steps", None),
        ("lr=1e-5", "optim.learning_rate", 1e-5),
        ("optim.lr=1e-5", "optim.learning_rate", 1e-5),
        ("optim.name=adamw_torch", "optim.name", "adamw"),
        ("load_in_8bit=true", "quantization.bits", 8),
    ],
)
def test_values_are_yaml_over_the_file(read: Read, override: str, key: str, value: Any) -> None:
    loaded = read("train: {max_steps: 5}\n", override)
    assert reduce(getattr, key.split("."), loaded.recipe) == value
    if value is not None:
        assert loaded.origins[key].kind == "override"
        assert loaded.origins[key].place == f"--set {override}"


def test_the_last_of_two_counts(read: Read) -> None:
    assert read("", "train.seed=1", "train.seed=2").recipe.train.seed == 2


def test_a_pair_of_foreign_keys(read: Read) -> None:
    both = ("micro_batch_size=2", "gradient_accumulation_steps=3")
    assert read("", *both).recipe.train.batch_size == 6


@pytest.mark.parametrize("swapped", [False, True])
def test_another_method_replaces_the_section(read: Read, swapped: bool) -> None:
    overrides = ["method.name=bitfit", "method.exclude_modules=[x]"]
    loaded = read("method: {rank: 8}\n", *(reversed(overrides) if swapped else overrides))
    assert loaded.recipe.method == BitfitConfig(exclude_modules=("x",))
    assert read("method: {rank: 8}\n", "method.name=lora").recipe.method == LoraConfig(rank=8)


def test_inside_a_list(read: Read) -> None:
    loaded = read("", "data.train.0.path=./x.json", "data.train.0.type=chat_template")
    [source] = loaded.recipe.data.train
    assert source.path == str(Path.cwd() / "x.json")
    assert source.format == "messages"
    assert loaded.origins["data.train.0.path"].kind == "override"
    assert loaded.origins["data.train.0.split"].kind == "default"
    loaded = read("", "optim.betas=[0.5, 0.6]", "optim.betas.1=0.7")
    assert loaded.recipe.optim.betas == (0.5, 0.7)
    assert loaded.origins["optim.betas"].place == "--set optim.betas.1=0.7"


def test_inputs_are_relative_to_the_working_directory(write: Any) -> None:
    from qtune.recipe import load

    path = write("model: {name_or_path: ./m}\ndata: {train: [{path: ./t}]}\n", "deep/recipe.yaml")
    recipe = load(path, ["model.tokenizer=./t"]).recipe
    assert recipe.model.name_or_path == str(Path.cwd() / "deep" / "m")
    assert recipe.model.tokenizer == str(Path.cwd() / "t")


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("seed", "not of the form key=value"),
        ("=3", "not of the form key=value"),
        ("optim..eps=3", "not of the form key=value"),
        (".=3", "not of the form key=value"),
        ("optim=x", "optim: a section (set one of its keys: optim.name=...)"),
        ("extends=x", "extends: only a file can extend"),
        ("optm.lr=1", "optm: unknown section (did you mean optim?)"),
        ("wibble=1", "wibble: unknown key"),
        ("optim.rank=1", "optim.rank: unknown key (belongs to method)"),
        ("optim.a.b=1", "optim.a: unknown key"),
        ("data.train.3.path=x", "data.train.3.path: there is no such item (the last one is data."),
        ("data.train.0.pth=x", "data.train.0.pth: unknown key (did you mean path?)"),
        ("data.train.x=1", "data.train.x: there is no such item"),
        ("model.name_or_path.x=3", "model.name_or_path.x: there is no such item"),
        ("model.revision.x=3", "model.revision.x: there is no such item"),
        ("optim.learning_rate=fast", "optim.learning_rate: 'fast' is not a number"),
        ("lr=fast", "optim.learning_rate (written lr): 'fast' is not a number"),
        ("method.target_modules=[a", "not valid YAML"),
        ("method.target_modules=[a]b", "not valid YAML"),
        ("micro_batch_size=2", "micro_batch_size: alone it does not say"),
        ("model.name_or_path=", "model.name_or_path: missing"),
    ],
)
def test_a_malformed_one_gets_one_line(faults: Faults, override: str, expected: str) -> None:
    [fault] = faults("", override)
    assert fault.startswith(f"--set {override}: {expected}")
    assert "\n" not in fault


def test_faults_of_file_and_command_line_come_together(faults: Faults) -> None:
    found = faults("wibble: 1\n", "x", "seed=-1")
    assert len(found) == 3
    assert found[0].startswith("recipe.yaml:3")
