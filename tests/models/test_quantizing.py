"""Copies in 4 bits: the same bits as quantising on the fly, in qtune and in plain transformers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from qtune import durable
from qtune.errors import ModelError, ResourceError, UsageError
from qtune.models import fingerprint, quantizing
from qtune.models.quantizing import prepare, write
from qtune.models.skeleton import disarm_repacking
from qtune.ops.linears import linear_modules
from qtune.recipe.inputs import ModelSection, QuantizationSection
from tests import tiny
from tests.models.workshop import edit_tensors, load_folder, logits
from tests.tiny import save_tiny, tiny_llama

if TYPE_CHECKING:
    from pathlib import Path

SIZES = tiny.SIZES | {"intermediate_size": 192}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {"tie_word_embeddings": True},
    "gemma2": {"head_dim": 16},
    "gpt_neox": {},
    "phi": {},
}


def _source(folder: Path, family: str = "llama") -> Path:
    torch.manual_seed(3)
    config = AutoConfig.for_model(family, **SIZES, **FAMILIES[family])
    network = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    return save_tiny(folder / "source", network.bfloat16(), max_shard_size="100KB")


def _copy(source: Path, target: Path, **quantization: Any) -> Path:
    section = QuantizationSection(**quantization)
    work = prepare(ModelSection(name_or_path=str(source), attn_implementation="eager"), section)
    write(work, target, source="source")
    return target


def _bits(model: Any) -> dict[str, bytes]:
    """Every tensor of a model with all constants, as bytes; a state's JSON as its values."""
    found: dict[str, bytes] = {}
    for name, tensor in model.state_dict().items():
        raw = bytes(tensor.contiguous().reshape(-1).view(torch.uint8).tolist())
        if ".quant_state." in name:
            raw = json.dumps(json.loads(raw), sort_keys=True).encode()
        found[name] = raw
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_the_model_quantised_on_the_fly(family: str, tmp_path: Path) -> None:
    source = _source(tmp_path, family)
    copy = _copy(source, tmp_path / "copy")
    made = load_folder(source, compute_dtype="bfloat16")
    read = load_folder(copy, compute_dtype="bfloat16")
    assert _bits(made.model) == _bits(read.model)
    assert torch.equal(logits(made.model), logits(read.model))
    assert made.inventory == read.inventory


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"double_quant": False},
        {"quant_type": "fp4"},
        {"skip_modules": ["o_proj"]},
        {"compute_dtype": "float32"},
    ],
    ids=str,
)
def test_plain_transformers_reads_the_same_bits(settings: dict[str, Any], tmp_path: Path) -> None:
    source = _source(tmp_path)
    copy = _copy(source, tmp_path / "copy", **settings)
    ours = load_folder(source, **{"compute_dtype": "bfloat16", **settings}).model
    theirs = AutoModelForCausalLM.from_pretrained(copy)
    assert _bits(theirs) == _bits(ours)
    for module in theirs.modules():
        disarm_repacking(module)  # or another kernel, with other roundings, evaluates it
    assert torch.equal(logits(theirs), logits(ours))
    assert AutoTokenizer.from_pretrained(copy).chat_template


def test_its_tensors_are_those_that_transformers_would_write(tmp_path: Path) -> None:
    source = _source(tmp_path)
    copy = _copy(source, tmp_path / "copy")
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    model = AutoModelForCausalLM.from_pretrained(
        source, dtype=torch.bfloat16, quantization_config=config
    )
    model.save_pretrained(tmp_path / "theirs")
    assert _stored(copy).keys() == _stored(tmp_path / "theirs").keys()
    assert _stored(copy) == _stored(tmp_path / "theirs")


def _stored(folder: Path) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
    """dtype and shape of each stored tensor; the JSON of a state may have spaces behind it."""
    found = {}
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - no mapping
                tensor = file.get_tensor(name)
                shape = () if ".quant_state." in name else tuple(tensor.shape)
                found[name] = (tensor.dtype, shape)
    return found


def test_tensors_are_aligned_and_split_over_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantizing, "SHARD_BYTES", 60_000)
    source = _source(tmp_path)
    copy = _copy(source, tmp_path / "copy")
    files = list(copy.glob("*.safetensors"))
    assert len(files) > 2
    for path in files:
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(length))
        starts = [entry["data_offsets"][0] for entry in header.values() if "shape" in entry]
        wide = [
            entry["data_offsets"][0] % 4 for entry in header.values() if entry.get("dtype") == "F32"
        ]
        assert length % 8 == 0
        assert set(wide) <= {0}
        assert len(starts) == len(set(starts))
    plain = load_folder(source, compute_dtype="bfloat16").model
    assert _bits(load_folder(copy, compute_dtype="bfloat16").model) == _bits(plain)


def test_an_adapter_of_one_is_an_adapter_of_the_other(tmp_path: Path) -> None:
    source = _source(tmp_path)
    copy = _copy(source, tmp_path / "copy")
    assert fingerprint(copy) == fingerprint(source)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 0.5}))
    assert fingerprint(copy) != fingerprint(source)


def test_one_tensor_is_in_memory_at_a_time(tmp_path: Path) -> None:
    work = prepare(ModelSection(name_or_path=str(_source(tmp_path))), QuantizationSection())
    before = _alive(work.network)
    write(work, tmp_path / "copy", source="source")
    assert _alive(work.network) == before == 0
    assert not work._ready


def _alive(network: Any) -> int:
    parameters = [*network.parameters(), *network.buffers()]
    states = [getattr(module, "quant_state", None) for module in linear_modules(network).values()]
    return sum(p.device.type != "meta" for p in parameters if p.dim()) + sum(
        state is not None for state in states
    )


def test_a_quantised_model_is_refused(tmp_path: Path) -> None:
    copy = _copy(_source(tmp_path), tmp_path / "copy")
    with pytest.raises(ModelError, match="is quantised already"):
        prepare(ModelSection(name_or_path=str(copy)), QuantizationSection())


def test_other_bits_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="4 bits, not 8"):
        prepare(ModelSection(name_or_path=str(_source(tmp_path))), QuantizationSection(bits=8))


def test_a_nan_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    def spoil(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.norm.weight"][3] = float("nan")

    source = edit_tensors(save_tiny(tmp_path / "source", tiny_llama()), spoil)
    work = prepare(ModelSection(name_or_path=str(source)), QuantizationSection())
    with pytest.raises(ModelError, match=r"model\.norm\.weight holds nan"):
        write(work, tmp_path / "copies" / "copy", source="source")
    assert list((tmp_path / "copies").iterdir()) == []


def test_too_little_room_is_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = prepare(ModelSection(name_or_path=str(_source(tmp_path))), QuantizationSection())
    monkeypatch.setattr(durable, "free_bytes", lambda _: 1000)
    with pytest.raises(ResourceError, match=r"the copy takes .* of disk, 1\.00 kB are free"):
        write(work, tmp_path / "copy", source="source")
    assert not (tmp_path / "copy").exists()
