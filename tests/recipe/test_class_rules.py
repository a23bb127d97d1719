"""What a classification cannot have, and what nothing else has."""

from __future__ import annotations

import pytest

from tests.recipe.conftest import Faults, Read

TASK = "task: classification\n"


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("method: {name: prompt}", "method.name"),
        ("method: {name: long_lora}", "method.name"),
        ("packing: true", "data.packing"),
        ("overlong: split", "data.overlong"),
        ("memory: {base: stream}", "memory.base"),
        ("val_size: 9\ncheckpoint: {metric: exact_match}", "checkpoint.metric"),
        ("val_size: 9\ngates: {max_perplexity: 2}", "gates.max_perplexity"),
        ("memory: {loss_chunk_size: 64}", "memory.loss_chunk_size"),
        ("loss: {train_on: all}", "loss.train_on"),
        ("val_size: 9\neval: {generate_rows: 3}", "eval.generate_rows"),
    ],
)
def test_a_classification_refuses(faults: Faults, text: str, key: str) -> None:
    assert any(f" {key}" in fault for fault in faults(f"{TASK}{text}\n"))


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("val_size: 9\ngates: {min_accuracy: 0.5}", "gates.min_accuracy"),
        ("val_size: 9\ncheckpoint: {metric: macro_f1}", "checkpoint.metric"),
    ],
)
def test_a_language_model_refuses(faults: Faults, text: str, key: str) -> None:
    [fault] = faults(f"{text}\n")
    assert f" {key}: " in fault
    assert "task: classification" in fault


def test_the_task_may_stand_at_the_top(read: Read) -> None:
    more = "method: {name: dylora}\nval_size: 9\ncheckpoint: {metric: matthews}\n"
    assert read(f"{TASK}{more}").recipe.model.task == "classification"
