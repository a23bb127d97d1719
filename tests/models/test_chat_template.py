"""model.chat_template: built-ins, files and texts, set on the tokenizer or refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from qtune.errors import ModelError, UsageError
from qtune.models import load_tokenizer
from qtune.recipe.inputs import ModelSection
from qtune.templates import ENDS, text_of
from tests.tiny import CHAT_TEMPLATE, tiny_tokenizer


def template_of(folder: Path, value: str | None) -> str:
    section = ModelSection(name_or_path=str(folder), chat_template=value)
    return str(load_tokenizer(section).chat_template)


def refused(folder: Path, value: str) -> UsageError:
    with pytest.raises(UsageError) as caught:
        template_of(folder, value)
    return caught.value


@pytest.mark.parametrize("name", sorted(name for name, end in ENDS.items() if not end))
def test_a_built_in_that_ends_with_the_end_of_sequence_fits_all(whole: Path, name: str) -> None:
    assert template_of(whole, name) == text_of(name)


@pytest.mark.parametrize("name", sorted(name for name, end in ENDS.items() if end))
def test_an_end_mark_that_is_no_token_is_refused_with_what_fits(whole: Path, name: str) -> None:
    error = refused(whole, name)
    assert f"{name} ends answers with {ENDS[name]}" in str(error)
    assert error.faults[0].place == "model.chat_template"
    assert error.faults[0].hint == "fitting this tokenizer: alpaca, mistral, vicuna, zephyr"


def test_an_end_mark_that_is_a_token_is_taken(folder: Path) -> None:
    made = tiny_tokenizer()
    made.add_special_tokens({"additional_special_tokens": ["<|im_end|>"]})
    made.save_pretrained(folder)
    assert template_of(folder, "chatml") == text_of("chatml")


def test_a_file_and_a_text(whole: Path, tmp_path: Path) -> None:
    text = "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}"
    file = tmp_path / "own.jinja"
    file.write_text(text)
    assert template_of(whole, str(file)) == text
    assert template_of(whole, text) == text
    assert template_of(whole, None) == CHAT_TEMPLATE


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{{ a }}\n{% if %}", "the chat template is no Jinja: Expected an expression"),
        (b"\xff\xfe{{ a }}", "is not UTF-8"),
        (b" \n", "the chat template is empty"),
        (b"x" * 65_537, "has 65,537 bytes, at most 65,536 are read"),
        (b"{{ " + b"(" * 20_000 + b" }}", "is nested too deeply"),
        (None, "No such file"),
    ],
    ids=["syntax", "bytes", "empty", "large", "deep", "missing"],
)
def test_a_faulty_file_is_refused(
    whole: Path, tmp_path: Path, content: bytes | None, message: str
) -> None:
    file = tmp_path / "own.jinja"
    if content is not None:
        file.write_bytes(content)
    error = refused(whole, str(file))
    assert message in str(error)
    assert error.faults[0].place in (str(file), f"{file}:2")


def test_the_own_template_of_a_tokenizer_may_not_be_large_either(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("x" * 65_537)
    with pytest.raises(ModelError, match="at most 65,536 are read") as caught:
        template_of(folder, None)
    assert caught.value.faults[0].hint
    assert template_of(folder, "zephyr") == text_of("zephyr")
