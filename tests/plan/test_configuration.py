from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from qtune.errors import ExitCode, ModelError
from qtune.plan import read_config, shape_of
from qtune.plan.shape import StoredQuantization
from tests.plan.given import LLAMA_65B, TINY

if TYPE_CHECKING:
    from pathlib import Path


def fault_of(config: dict[str, Any]) -> ModelError:
    with pytest.raises(ModelError) as caught:
        shape_of(config, place="base/config.json")
    assert caught.value.code == ExitCode.MODEL
    assert str(caught.value).startswith("base/config.json: ")
    return caught.value


def test_the_65b_shape() -> None:
    shape = shape_of(LLAMA_65B)
    # per layer: four attention matrices and three of the MLP
    matrices = 80 * (4 * 8192 * 8192 + 3 * 8192 * 22016)
    assert shape.linear_parameters == matrices == 64_760_053_760
    assert shape.total_parameters == matrices + 2 * 32000 * 8192 + (2 * 80 + 1) * 8192
    assert len(shape.linears) == 560
    assert shape.linears[24].name == "model.layers.3.self_attn.o_proj"


@pytest.mark.parametrize(
    "key",
    ["hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size"],
)
@pytest.mark.parametrize("value", [None, "64", -1, 0, 2.5, True, [8]])
def test_a_faulty_value_is_named(key: str, value: object) -> None:
    assert key in str(fault_of({**TINY, key: value}))


def test_a_missing_value_is_named() -> None:
    for key in ("hidden_size", "vocab_size"):
        error = fault_of({name: value for name, value in TINY.items() if name != key})
        assert f"{key} is missing" in str(error)


def test_flags_are_true_or_false() -> None:
    assert "tie_word_embeddings is 'yes'" in str(fault_of({**TINY, "tie_word_embeddings": "yes"}))


def test_heads_that_cannot_be_shared_are_refused() -> None:
    assert "num_key_value_heads is 3" in str(fault_of({**TINY, "num_key_value_heads": 3}))
    gpt2 = {"model_type": "gpt2", "n_embd": 64, "n_layer": 1, "n_head": 5, "vocab_size": 9}
    assert "n_head is 5" in str(fault_of(gpt2))


def test_an_unknown_family_says_which_are_known() -> None:
    error = fault_of({**TINY, "model_type": "mamba"})
    assert "'mamba'" in str(error)
    assert "llama" in error.faults[0].hint
    assert "gpt_neox" in fault_of({**TINY, "model_type": "gptneox"}).faults[0].hint
    assert "model_type is missing" in str(fault_of({"hidden_size": 8}))


def test_a_multimodal_model_is_refused_with_its_reason() -> None:
    error = fault_of({"model_type": "gemma3", "text_config": TINY, "vision_config": {}})
    assert "images or sound" in str(error)


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (
            {
                "quant_method": "bitsandbytes",
                "load_in_4bit": True,
                "bnb_4bit_quant_type": "nf4",
                "bnb_4bit_use_double_quant": True,
            },
            StoredQuantization(4, "nf4", double_quant=True),
        ),
        ({"load_in_4bit": True}, StoredQuantization(4, "fp4", double_quant=False)),
        (
            {"quant_method": "bitsandbytes", "load_in_8bit": True, "load_in_4bit": False},
            StoredQuantization(8),
        ),
    ],
)
def test_a_quantised_checkpoint_is_recognised(
    stored: dict[str, Any], expected: StoredQuantization
) -> None:
    assert shape_of({**TINY, "quantization_config": stored}).stored == expected


def test_a_foreign_quantisation_is_refused() -> None:
    assert "gptq" in str(fault_of({**TINY, "quantization_config": {"quant_method": "gptq"}}))
    assert "'yes'" in str(fault_of({**TINY, "quantization_config": "yes"}))


def test_a_folder_is_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(TINY))
    assert read_config(str(tmp_path)) == TINY


def _read(name: str | Path) -> ModelError:
    with pytest.raises(ModelError) as caught:
        read_config(str(name))
    assert caught.value.code == ExitCode.MODEL
    assert str(name) in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("files", "said", "hint"),
    [
        ({}, "holds no config.json", "name the folder"),
        (
            {"adapter_config.json": '{"base_model_name_or_path": "org/base-7b"}'},
            "is an adapter",
            "org/base-7b",
        ),
        ({"adapter_config.json": "[]"}, "is an adapter", ""),
        ({"recipe.yaml": "", "plan.json": "{}"}, "is a run folder", "base model"),
        ({"model-q4.gguf": ""}, "GGUF", "16-bit checkpoint"),
        ({"params.json": "{}", "consolidated.00.pth": ""}, "original layout", "convert"),
    ],
)
def test_a_folder_that_is_no_model_says_what_it_is(
    tmp_path: Path, files: dict[str, str], said: str, hint: str
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    error = _read(tmp_path)
    assert said in error.faults[0].message
    assert hint in error.faults[0].hint


def test_a_model_with_an_adapter_beside_it_is_a_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(TINY))
    (tmp_path / "adapter_config.json").write_text("{}")
    assert read_config(str(tmp_path)) == TINY


def test_broken_json_has_a_line(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{\n "hidden_size": 64,\n}')
    assert f"{tmp_path / 'config.json'}:3" in str(_read(tmp_path))


@pytest.mark.parametrize("text", ["[1, 2]", "null", '"llama"'])
def test_json_that_is_no_object_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    assert "not a JSON object" in str(_read(tmp_path))


def test_a_config_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(b"\xff\xfe\x00{")
    assert "not valid JSON" in str(_read(tmp_path))


def test_a_file_is_not_a_model(tmp_path: Path) -> None:
    for name, said in (("model.gguf", "GGUF"), ("model.safetensors", "not a file")):
        (tmp_path / name).write_text("")
        assert said in str(_read(tmp_path / name))


@pytest.mark.parametrize("name", ["{tmp}/absent", "./absent-model", "../absent-model", "~/absent"])
def test_a_path_that_is_not_there_is_not_looked_up_on_the_hub(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelError, match="no such folder"):
        read_config(name.replace("{tmp}", str(tmp_path)))


def test_offline_and_not_cached_is_said_clearly() -> None:
    error = _read("some-owner/some-model-that-is-nowhere")
    assert "not in the local cache" in str(error)
    assert "HF_HUB_OFFLINE" in str(error)
    assert "hf download" in error.faults[0].hint


def test_the_revision_is_named() -> None:
    with pytest.raises(ModelError, match="some-owner/nowhere at revision v2"):
        read_config("some-owner/nowhere", "v2")


def test_what_is_no_hub_id_is_said_clearly() -> None:
    assert "neither a folder nor" in str(_read("llama 7b"))


def test_a_cached_model_is_found_without_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants

    commit = "0123456789abcdef0123456789abcdef01234567"
    cached = tmp_path / "models--some-owner--cached"
    (cached / "snapshots" / commit).mkdir(parents=True)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit)
    (cached / "snapshots" / commit / "config.json").write_text(json.dumps(TINY))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    # with or without HF_HUB_OFFLINE: what is cached asks no network
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", None)
    assert read_config("some-owner/cached") == TINY
    assert read_config("some-owner/cached", commit) == TINY
