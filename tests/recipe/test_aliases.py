from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from pathlib import Path
from typing import Any

import pytest

from qtune.errors import UsageError
from qtune.recipe import foreign, load
from qtune.recipe.inputs import SourceSection
from qtune.recipe.keys import SECTIONS, is_key
from tests.recipe.conftest import Faults, Read, Write


def test_every_alias_means_a_real_key_and_hides_none() -> None:
    for name, key in foreign.FLAT.items():
        assert is_key(key), name
        assert name not in SECTIONS or name in foreign.TEXT_SECTIONS
    for name, key in foreign.NEAR.items():
        assert is_key(key), name
        assert not is_key(name)
        assert name.split(".")[0] == key.split(".")[0]
    for key in (*foreign.BY_KEY, *foreign.TEXT_SECTIONS.values()):
        assert is_key(key)
    assert foreign.BY_NAME.keys() <= foreign.FLAT.keys()
    assert not foreign.NOT_HERE.keys() & foreign.FLAT.keys()


def test_no_name_has_two_meanings() -> None:
    names = [name for names in foreign._FLAT.values() for name in names.split()]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("lora_r: 8", "method.rank", 8),
        ("lora_rank: 8", "method.rank", 8),
        ("chat_template: chatml", "model.chat_template", "chatml"),
        ("chat_template: tokenizer_default", "model.chat_template", None),
        ("template: llama3", "model.chat_template", "llama-3"),
        ("method: {r: 8}", "method.rank", 8),
        ("method: {lora_alpha: 32}", "method.alpha", 32.0),
        ("lora_dropout: 0", "method.dropout", 0.0),
        ("lora_target_linear: true", "method.target_modules", "all-linear"),
        ("lora_target: all", "method.target_modules", "all-linear"),
        ("lora_target: q_proj,v_proj", "method.target_modules", ("q_proj", "v_proj")),
        ("lora_target_modules: [q_proj]", "method.target_modules", ("q_proj",)),
        ("adapter: qlora", "method.name", "lora"),
        ("sequence_len: 64", "data.max_length", 64),
        ("max_seq_length: 64", "data.max_length", 64),
        ("cutoff_len: 64", "data.max_length", 64),
        ("load_in_8bit: true", "quantization.bits", 8),
        ("load_in_4bit: false\nload_in_8bit: false", "quantization.bits", 16),
        ("load_in_8bit: false\nload_in_4bit: true", "quantization.bits", 4),
        ("quantization_bit: 8", "quantization.bits", 8),
        ("double_quantization: false", "quantization.double_quant", False),
        ("num_epochs: 2", "train.num_train_epochs", 2.0),
        ("train: {epochs: 2}", "train.num_train_epochs", 2.0),
        ("max_steps: -1", "train.max_steps", None),
        ("lr: 1e-5", "optim.learning_rate", 1e-5),
        ("optim: {lr: 1e-5}", "optim.learning_rate", 1e-5),
        ("optim: sgd", "optim.name", "sgd"),
        ("optimizer: adamw_torch", "optim.name", "adamw"),
        ("optim: {name: adamw_bnb_8bit}", "optim.name", "adamw_8bit"),
        ("lr_scheduler: constant_with_warmup", "optim.lr_scheduler_type", "constant"),
        ("warmup_steps: 5", "optim.warmup_steps", 5),
        ("val_set_size: 0.1", "data.val_size", 0.1),
        ("gradient_checkpointing: true", "memory.activations", "layer"),
        ("disable_gradient_checkpointing: true", "memory.activations", "none"),
        ("output_dir: out", "train.output_dir", "out"),
        ("train_on_inputs: true", "loss.train_on", "all"),
        ("seed: 7", "train.seed", 7),
        ("report_to: none", "logging.report_to", ()),
        ("logging: {report_to: no}", "logging.report_to", ()),
        ("report_to: wandb", "logging.report_to", ("wandb",)),
        ("bf16: auto", "quantization.compute_dtype", "bfloat16"),
        ("bf16: true\ntorch_dtype: bfloat16", "quantization.compute_dtype", "bfloat16"),
        ("flash_attention: true", "model.attn_implementation", "flash_attention_2"),
    ],
)
def test_foreign_names_and_values(read: Read, text: str, key: str, value: Any) -> None:
    loaded = read(text)
    assert reduce(getattr, key.split("."), loaded.recipe) == value
    if value is not None and loaded.origins[key].kind != "default":
        assert loaded.origins[key].kind == "alias"
        assert loaded.origins[key].note.startswith("written ")


def test_micro_batch_times_accumulation_is_the_batch(read: Read) -> None:
    loaded = read("micro_batch_size: 2\ngradient_accumulation_steps: 4\n")
    assert loaded.recipe.train.batch_size == 8
    assert loaded.recipe.memory.micro_batch_size == 2
    note = loaded.origins["train.batch_size"].note
    assert note == "written micro_batch_size x gradient_accumulation_steps"


@pytest.mark.parametrize("name", ["per_device_train_batch_size", "gradient_accumulation_steps"])
def test_half_of_the_batch_is_refused(faults: Faults, name: str) -> None:
    [fault] = faults(f"{name}: 4\n")
    assert fault.startswith(f"recipe.yaml:3: {name}: alone it does not say")


def test_a_micro_batch_beside_the_batch_is_clear(read: Read) -> None:
    recipe = read("micro_batch_size: 2\ntrain: {batch_size: 8}\n").recipe
    assert (recipe.memory.micro_batch_size, recipe.train.batch_size) == (2, 8)


@pytest.mark.parametrize(
    "text",
    [
        "method: {rank: 8}\nlora_r: 8\n",
        "lora_r: 8\nmethod:\n  rank: 8\n",
        "lora_r: 8\nlora_rank: 16\n",
        "micro_batch_size: 2\ngradient_accumulation_steps: 2\ntrain: {batch_size: 4}\n",
    ],
)
def test_two_names_for_one_key_are_a_fault(faults: Faults, text: str) -> None:
    [fault] = faults(text)
    assert "set twice, first in recipe.yaml:" in fault


def test_an_empty_alias_is_no_second_name(read: Read) -> None:
    assert read("method: {rank: 8}\nlora_r:\n").recipe.method.rank == 8  # type: ignore[union-attr]


def test_sources_of_other_tools(faults: Faults, write: Write) -> None:
    text = "model: {name_or_path: m}\ndatasets:\n  - {path: a/b, type: chat_template, name: c}\n"
    write(text, "other.yaml")
    [source] = load("other.yaml").recipe.data.train
    assert (source.path, source.format, source.config) == ("a/b", "messages", "c")
    [fault] = faults("datasets: [{path: c/d}]\n")
    assert fault.startswith("recipe.yaml:3: data.train (written datasets): set twice")


@pytest.mark.parametrize(
    ("kind", "ours"),
    [("llama3.ultra", "auto"), ("chat_template.argilla", "auto"), ("alpaca:chat", "alpaca")],
)
def test_kinds_of_rows_of_other_tools(write: Write, kind: str, ours: str) -> None:
    text = f"model: {{name_or_path: m}}\ndatasets:\n  - {{path: a/b, type: '{kind}'}}\n"
    write(text, "other.yaml")
    [source] = load("other.yaml").recipe.data.train
    assert source.format == ours


def test_keys_of_other_tools_sources(faults: Faults, write: Write) -> None:
    text = "model: {name_or_path: m}\ndatasets:\n  - {path: a/b, formatting: sharegpt, subset: c}\n"
    write(text, "other.yaml")
    [source] = load("other.yaml").recipe.data.train
    assert (source.format, source.config) == ("sharegpt", "c")
    [fault] = faults("model: m\ndata: {train: [{path: x, field_messages: chat}]}\n", whole=True)
    assert fault.endswith("(write columns: {messages: ...}, for sharegpt {conversations: ...})")
    known = {*SourceSection.model_fields, *foreign.SOURCE_NAMES}
    assert not known & foreign.SOURCE_NOT_HERE.keys()


def test_of_many_words_the_nearest_is_enough(faults: Faults) -> None:
    [fault] = faults("model: m\ndata: {train: [{path: x, format: preferense}]}\n", whole=True)
    assert fault == (
        "recipe.yaml:2: data.train.0.format: 'preferense' is not known (did you mean preference?)"
    )
    [fault] = faults("model: m\ndata: {train: [{path: x, format: qqqq}]}\n", whole=True)
    assert "is not one of auto, alpaca, messages" in fault


def test_foreign_keys_without_a_meaning_say_why(faults: Faults) -> None:
    found = faults("pad_to_sequence_len: true\ntrust_remote_code: true\nevals_per_epoch: 4\n")
    assert [fault.split(":")[1] for fault in found] == ["3", "4", "5"]
    assert "rows are not packed" in found[0]
    assert "code of a model repository is not run" in found[1]


def test_a_fault_names_the_written_name(faults: Faults) -> None:
    [fault] = faults("lr: fast\n")
    assert fault == "recipe.yaml:3: optim.learning_rate (written lr): 'fast' is not a number"


def test_value_tables_lead_to_values_that_differ() -> None:
    for values in (*foreign.BY_NAME.values(), *foreign.BY_KEY.values()):
        if isinstance(values, Mapping):
            assert all(type(a) is not type(b) or a != b for a, b in values.items())


REAL = Path(__file__).parents[3] / "shared" / "real" / "foreign_recipes"


@pytest.mark.skipif(not REAL.is_dir(), reason="the collection of real recipes is not here")
def test_real_recipes_of_other_tools_get_lines_a_person_can_follow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(REAL)
    for path in sorted(Path().iterdir()):
        with pytest.raises(UsageError) as caught:
            load(path)
        for fault in caught.value.faults:
            assert len(str(fault)) - len(fault.place) < 200
        whole = len(caught.value.faults) == 1
        assert whole or all(":" in f.place or "missing" in f.message for f in caught.value.faults)


def test_a_type_without_a_name_is_the_method(read: Read) -> None:
    assert read("method: {type: bitfit}").recipe.method.name == "bitfit"
    assert read("method: {name: peft, type: VERA}").recipe.method.name == "peft"
