"""A model as GGUF: against a plain numpy pass over the file, and read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, MistralConfig, MixtralConfig

from qtune.errors import CheckError, ModelError
from qtune.gguf import model as whole
from qtune.gguf import reading, vocabulary
from qtune.gguf.names import Names
from tests.gguf import workshop
from tests.gguf.straight import Straight

IDS = torch.randint(3, 340, (24,), generator=torch.Generator().manual_seed(3)).tolist()


def write(folder: Path, path: Path, dtype: Any = None) -> whole.Source:
    source = whole.look_through(folder, dtype=dtype, place="model")
    words = vocabulary.vocabulary_of(
        workshop.byte_level(), size=source.shape.vocabulary, place="model"
    )
    whole.write_model(source, words, path, about={"name": "tiny", "license": "mit"})
    return source


@torch.no_grad()
def theirs(model: Any) -> np.ndarray:
    found: np.ndarray = model(torch.tensor([IDS])).logits[0].double().numpy()
    return found


@pytest.mark.parametrize("family", workshop.CONFIGS)
def test_a_plain_pass_over_the_file_gives_the_models_logits(family: str, tmp_path: Path) -> None:
    model = workshop.model_of(workshop.CONFIGS[family]())
    source = write(workshop.saved(tmp_path / "model", model), tmp_path / "a.gguf")
    ours = Straight(tmp_path / "a.gguf").logits(IDS)
    wanted = theirs(model)
    assert np.abs(ours - wanted).max() < 2e-5 * np.abs(wanted).max()
    file = reading.File(tmp_path / "a.gguf")
    assert whole.compare_tensors(source, file) == 0.0
    assert np.abs(theirs(reading.model_of(file)) - wanted).max() < 1e-5 * np.abs(wanted).max()


def test_rows_in_transformers_order_would_give_other_logits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = workshop.model_of(workshop.CONFIGS["llama"]())
    folder = workshop.saved(tmp_path / "model", model)
    monkeypatch.setattr(Names, "reorder", lambda *given: given[-1])
    write(folder, tmp_path / "a.gguf")
    wanted = theirs(model)
    assert np.abs(Straight(tmp_path / "a.gguf").logits(IDS) - wanted).max() > 1e-3


@pytest.mark.parametrize(("dtype", "size"), [("f16", 2.0), ("bf16", 2.0), ("q8_0", 34 / 32)])
def test_other_formats(dtype: Any, size: float, tmp_path: Path) -> None:
    model = workshop.model_of(workshop.CONFIGS["llama"]())
    source = write(workshop.saved(tmp_path / "model", model), tmp_path / "a.gguf", dtype)
    file = reading.File(tmp_path / "a.gguf")
    assert 0 <= whole.compare_tensors(source, file) <= 1
    matrix = model.model.layers[0].mlp.up_proj.weight
    stored = next(one for one in source.stored() if one.name == "blk.0.ffn_up.weight")
    assert stored.bytes == size * matrix.numel()
    plain = Straight(tmp_path / "a.gguf").logits(IDS)
    assert np.abs(theirs(reading.model_of(file)) - plain).max() < 1e-4
    assert np.abs(plain - theirs(model)).max() < 0.5
    if dtype != "q8_0":
        rounded = matrix.to({"f16": torch.float16, "bf16": torch.bfloat16}[dtype]).float()
        assert torch.equal(file.tensor("blk.0.ffn_up.weight"), rounded)


def test_pieces_of_a_few_rows_are_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = workshop.model_of(workshop.CONFIGS["llama"]())
    for dtype in ("f32", "f16", "bf16", "q8_0"):
        path = tmp_path / f"{dtype}.gguf"
        folder = workshop.saved(tmp_path / "model", model)
        source = write(folder, path, dtype)
        whole_tensor = reading.File(path).tensor("token_embd.weight")
        monkeypatch.setattr(reading, "CHUNK", 64 * 5)
        pieces = list(reading.File(path).pieces("token_embd.weight"))
        assert len(pieces) == -(-352 // 5)
        assert torch.equal(torch.cat([part for _, part in pieces]), whole_tensor)
        assert whole.compare_tensors(source, reading.File(path)) <= 1
        monkeypatch.undo()


def test_a_changed_byte_is_found(tmp_path: Path) -> None:
    model = workshop.model_of(workshop.CONFIGS["llama"]())
    source = write(workshop.saved(tmp_path / "model", model), tmp_path / "a.gguf", "q8_0")
    content = bytearray((tmp_path / "a.gguf").read_bytes())
    content[-1000] ^= 0x40
    (tmp_path / "a.gguf").write_bytes(content)
    with pytest.raises(CheckError, match="is another one in the file"):
        whole.compare_tensors(source, reading.File(tmp_path / "a.gguf"))


def test_the_head_says_what_llama_cpp_asks_for(tmp_path: Path) -> None:
    model = workshop.model_of(workshop.CONFIGS["llama 3.1"]())
    write(workshop.saved(tmp_path / "model", model), tmp_path / "a.gguf", "f16")
    fields = reading.File(tmp_path / "a.gguf").fields
    wanted = {
        "general.architecture": "llama",
        "general.type": "model",
        "general.name": "tiny",
        "general.license": "mit",
        "general.file_type": 1,
        "llama.vocab_size": 352,
        "llama.context_length": 128,
        "llama.embedding_length": 64,
        "llama.block_count": 2,
        "llama.feed_forward_length": 96,
        "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": 2,
        "llama.rope.dimension_count": 16,
        "llama.rope.freq_base": 500000.0,
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.ggml.padding_token_id": 2,
    }
    assert {key: fields.get(key) for key in wanted} == wanted
    assert fields["llama.attention.layer_norm_rms_epsilon"] == pytest.approx(1e-6)
    assert len(fields["tokenizer.ggml.tokens"]) == 352
    assert fields["tokenizer.ggml.tokens"][-1] == "[PAD351]"


def test_a_row_that_has_no_whole_blocks_stays_in_f16(tmp_path: Path) -> None:
    config = LlamaConfig(**{**workshop.SIZES, "intermediate_size": 90})
    source = write(
        workshop.saved(tmp_path / "model", workshop.model_of(config)), tmp_path / "a.gguf", "q8_0"
    )
    kinds = {one.name: one.kind for one in source.stored()}
    assert kinds["blk.0.ffn_down.weight"] == "f16"
    assert kinds["blk.0.ffn_up.weight"] == "q8_0"
    assert kinds["blk.0.attn_norm.weight"] == "f32"
    whole.compare_tensors(source, reading.File(tmp_path / "a.gguf"))


def test_a_sliding_window_ends_the_context(tmp_path: Path) -> None:
    model = workshop.model_of(MistralConfig(**workshop.SIZES, sliding_window=48))
    source = whole.look_through(
        workshop.saved(tmp_path / "model", model), dtype=None, place="model"
    )
    assert source.shape.context == 48
    assert "sliding window of 48" in source.shape.notes[0]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ({"rope_parameters": {**workshop.LINEAR, "rope_type": "dynamic"}}, "rope_type 'dynamic'"),
        ({"rope_parameters": {**workshop.YARN, "attention_factor": 2.0}}, "attention_factor"),
    ],
)
def test_what_llama_cpp_would_compute_otherwise_is_refused(
    change: dict[str, Any], match: str, tmp_path: Path
) -> None:
    config = LlamaConfig(**{**workshop.SIZES, **change})
    config.architectures = ["LlamaForCausalLM"]
    config.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=match):
        whole.look_through(tmp_path, dtype=None, place="model")


def test_experts_are_refused(tmp_path: Path) -> None:
    config = MixtralConfig(**workshop.SIZES)
    config.architectures = ["MixtralForCausalLM"]
    config.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="experts"):
        whole.look_through(tmp_path, dtype=None, place="model")


def test_numbers_too_large_for_f16_are_refused(tmp_path: Path) -> None:
    model = workshop.model_of(workshop.CONFIGS["llama"]())
    with torch.no_grad():
        model.lm_head.weight[0, 0] = 1e6
    folder = workshop.saved(tmp_path / "model", model)
    with pytest.raises(ModelError, match="f16 cannot"):
        write(folder, tmp_path / "a.gguf", "f16")
