from __future__ import annotations

import stat
from pathlib import Path

import pytest

from qtune.errors import ExitCode, UsageError
from qtune.recipe import load
from tests.recipe.conftest import MINIMAL, Write

CONDA = "name: qlora\nchannels: [pytorch]\ndependencies:\n  - python=3.10\n  - pip: [torch]\n"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (CONDA, "not a recipe: its keys (name, channels, dependencies) are none of a recipe"),
        ('[{"a": 1}]', "holds a list, not a recipe"),
        ("", "an empty file, not a recipe"),
        ("# nothing\n\n", "an empty file, not a recipe"),
        ("just text", "holds only 'just text', not a recipe"),
        ("12", "holds only 12, not a recipe"),
        (b"a: b\0", "a binary file, not a recipe"),
        (bytes(range(256)) * 5000, "a binary file, not a recipe"),
        (b"a" * 1_000_001, "larger than 1 MB"),
        ("model: {_component_: torchtune.models.x}\n", "a torchtune configuration"),
        ("data: {class_path: litgpt.data.Alpaca}\n", "a litgpt configuration"),
    ],
)
def test_a_wrong_file_gets_one_line(write: Write, content: str | bytes, expected: str) -> None:
    path = write(content, "environment.yaml")
    with pytest.raises(UsageError) as caught:
        load(path)
    assert str(caught.value).startswith(f"environment.yaml: {expected}")
    assert len(caught.value.faults) == 1
    assert caught.value.code == ExitCode.USAGE


def test_text_that_is_not_utf_8_names_the_line(write: Write) -> None:
    path = write(b"model: x\nname: caf\xe9\n")
    with pytest.raises(UsageError, match=r"recipe\.yaml:2: byte 0xe9 is not UTF-8 text"):
        load(path)


def test_a_byte_order_mark_and_crlf_are_fine(write: Write) -> None:
    text = b"\xef\xbb\xbf" + MINIMAL.replace("\n", "\r\n").encode()
    assert load(write(text)).recipe.model.name_or_path == "org/model"


def test_a_folder_names_the_recipes_inside(write: Write) -> None:
    write(MINIMAL, "folder/inner.yaml")
    with pytest.raises(UsageError, match=r"folder: a folder, not a recipe \(inside it: inner\.ya"):
        load("folder")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("recipy.yaml", "did you mean recipe.yaml"),
        ("nowhere/recipe.yaml", "there is no folder nowhere"),
        ("llama-8b-24g", "did you mean llama-8b-24gb"),
        ("x" * 300, "cannot be read"),
    ],
)
def test_a_missing_file_names_its_neighbours(write: Write, name: str, hint: str) -> None:
    write(MINIMAL)
    with pytest.raises(UsageError) as caught:
        load(name)
    assert hint in str(caught.value)


def test_a_file_that_may_not_be_read(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(MINIMAL)
    path.chmod(stat.S_IWUSR)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # root may read everything
    with pytest.raises(UsageError, match=r"recipe\.yaml: cannot be read: Permission denied"):
        load(path)
