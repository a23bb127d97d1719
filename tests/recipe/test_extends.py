from __future__ import annotations

import pytest

from qtune.recipe import load
from qtune.recipe.methods import BitfitConfig, LoraConfig
from tests.recipe.conftest import MINIMAL, Faults, Read, Write


def test_a_recipe_wins_over_its_fragments_and_the_later_layer_over_the_earlier(
    read: Read, write: Write
) -> None:
    write("optim: {learning_rate: 1, eps: 1e-6}\n", "parts/base.yaml")
    write("extends: ./base.yaml\noptim: {learning_rate: 2, weight_decay: 0.5}\n", "parts/mid.yaml")
    loaded = read("extends: [./parts/mid.yaml]\noptim: {weight_decay: 0.25}\n")
    optim = loaded.recipe.optim
    assert (optim.learning_rate, optim.eps, optim.weight_decay) == (2.0, 1e-6, 0.25)
    places = [loaded.origins[f"optim.{key}"].place for key in ("learning_rate", "eps")]
    assert places == ["mid.yaml:2", "base.yaml:1"]
    assert loaded.origins["optim.weight_decay"].place == "recipe.yaml:4"


def test_siblings_that_differ_are_a_fault_naming_both_lines(faults: Faults, write: Write) -> None:
    write("optim:\n  learning_rate: 1\n  eps: 1e-6\n", "a.yaml")
    write("optim: {eps: 1e-6,\n  learning_rate: 2}\n", "b.yaml")
    [fault] = faults("extends: [./a.yaml, ./b.yaml]\n")
    assert fault.startswith("b.yaml:2: optim.learning_rate: 2 here, but 1 in a.yaml:2")


def test_the_recipe_decides_a_clash(read: Read, write: Write) -> None:
    write("optim: {learning_rate: 1}\n", "a.yaml")
    write("optim: {learning_rate: 2}\n", "b.yaml")
    text = "extends: [./a.yaml, ./b.yaml]\noptim: {learning_rate: 3}\n"
    assert read(text).recipe.optim.learning_rate == 3.0


def test_an_empty_value_unsets_what_a_fragment_says(read: Read, write: Write) -> None:
    write("optim: {learning_rate: 1, eps: 1e-6}\ntrain: {max_steps: 5}\n", "a.yaml")
    recipe = read("extends: ./a.yaml\noptim:\n  learning_rate:\ntrain: {max_steps: null}\n").recipe
    assert recipe.optim.learning_rate == 2e-4
    assert recipe.optim.eps == 1e-6
    assert recipe.train.max_steps is None


@pytest.mark.parametrize("name", ["lora", "bitfit"])
def test_another_method_replaces_the_whole_section(read: Read, write: Write, name: str) -> None:
    write("method: {rank: 3, target_modules: [x]}\n", "a.yaml")
    method = read(f"extends: ./a.yaml\nmethod: {{name: {name}, exclude_modules: [y]}}\n").recipe
    expected = (
        LoraConfig(rank=3, target_modules=("x",), exclude_modules=("y",))
        if name == "lora"
        else BitfitConfig(exclude_modules=("y",))
    )
    assert method.method == expected


def test_fragments_with_two_methods_are_one_fault_and_the_recipe_may_choose(
    faults: Faults, read: Read, write: Write
) -> None:
    write("method: {name: lora, rank: 3}\n", "a.yaml")
    write("method: {name: bitfit, target_modules: [x]}\n", "b.yaml")
    [fault] = faults("extends: [./a.yaml, ./b.yaml]\n")
    assert "method.name: 'bitfit' here, but 'lora' in a.yaml:1" in fault
    chosen = read("extends: [./a.yaml, ./b.yaml]\nmethod: {name: bitfit}\n").recipe.method
    assert chosen == BitfitConfig(target_modules=("x",))


def test_inputs_are_relative_to_the_file_that_names_them(write: Write) -> None:
    data = write("{}", "parts/rows.jsonl").resolve()
    write("data: {train: [{path: rows.jsonl}, {path: ./later.jsonl}]}\n", "parts/data.yaml")
    path = write("extends: ../parts/data.yaml\nmodel: {name_or_path: rows.jsonl}\n", "a/r.yaml")
    recipe = load(path).recipe
    assert recipe.data.train[0].path == str(data)
    assert recipe.data.train[1].path == str(data.with_name("later.jsonl"))
    assert recipe.model.name_or_path == "rows.jsonl"


def test_a_circle_is_refused(write: Write, faults: Faults) -> None:
    write("extends: ./b.yaml\n", "a.yaml")
    write("extends: ./a.yaml\n", "b.yaml")
    [fault] = faults("extends: ./a.yaml\n")
    assert fault == "b.yaml:1: extends: goes in a circle: recipe.yaml -> a.yaml -> b.yaml -> a.yaml"


def test_a_diamond_is_fine(write: Write, read: Read) -> None:
    write("optim: {eps: 1e-6}\n", "base.yaml")
    write("extends: ./base.yaml\n", "a.yaml")
    write("extends: ./base.yaml\n", "b.yaml")
    assert read("extends: [./a.yaml, ./b.yaml]\n").recipe.optim.eps == 1e-6


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("method/qlor", "no fragment method/qlor (did you mean method/qlora"),
        ("./nothing.yaml", "no fragment ./nothing.yaml (looked in "),
        ("~nobody-here/x.yaml", "no fragment ~nobody-here/x.yaml"),
        ("recipe.yaml", "(a file of yours is written ./recipe.yaml)"),
        ("{a: 1}", "not a fragment's name or a list of them"),
        ("[method/qlora, 3]", "not a fragment's name or a list of them"),
        ("x" * 400, "no fragment xxx"),
    ],
)
def test_a_fragment_that_is_not_there(faults: Faults, value: str, expected: str) -> None:
    [fault] = faults(f"extends: {value}\n")
    assert fault.startswith("recipe.yaml:3: extends: ")
    assert expected in fault


def test_faults_of_a_fragment_have_its_lines(faults: Faults, write: Write) -> None:
    write("\noptim: {eps: x}\nwibble: 1\n", "a.yaml")
    found = faults("extends: ./a.yaml\nloss: {train_on: x}\n")
    assert [fault.split(": ")[0] for fault in found] == ["a.yaml:2", "a.yaml:3", "recipe.yaml:4"]
    write("a: [", "a.yaml")
    [fault] = faults("extends: ./a.yaml\n")
    assert fault.startswith("a.yaml:1: not valid YAML")


def test_a_broken_fragment_hides_what_may_stand_in_it(write: Write, faults: Faults) -> None:
    write("model: [", "a.yaml")
    found = faults("extends: ./a.yaml\n", whole=True)
    assert [fault.split(":")[0] for fault in found] == ["a.yaml"]


def test_empty_extends_and_empty_sections_set_nothing(read: Read) -> None:
    assert read("extends:\noptim:\ntrain:\n").recipe == load("recipe.yaml").recipe
    assert MINIMAL
