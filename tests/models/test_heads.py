"""A classifier's heads: which they are, in fp32, new ones the same each time, stored ones kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
)

from qtune.errors import ModelError
from qtune.models import load
from qtune.ops.linears import class_heads, linear_modules
from qtune.recipe.inputs import ModelSection, QuantizationSection
from tests.tiny import save_tiny, tiny_tokenizer

SIZES = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 320,
    "pad_token_id": 2,
}
LABELS = ("a", "b", "c")


def loaded(folder: Path, *, bits: int = 16, labels: tuple[str, ...] = LABELS) -> Any:
    section = ModelSection(name_or_path=str(folder), task="classification", labels=labels)
    quantization = QuantizationSection.model_validate({"bits": bits, "compute_dtype": "float32"})
    base = load(section, quantization, device=torch.device("cpu"), activations="none")
    return base.model.eval()


def bert(folder: Path, kind: Any = BertForMaskedLM, **settings: Any) -> Path:
    torch.manual_seed(0)
    kind(BertConfig(**SIZES, **settings)).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("bert", ["bert.pooler", "classifier"]),
        ("roberta", ["classifier"]),
        ("modernbert", ["head", "classifier"]),
        ("llama", ["score"]),
        ("gpt2", ["score"]),
    ],
)
def test_heads_by_family(family: str, expected: list[str]) -> None:
    sizes = {**SIZES, "bos_token_id": 0, "eos_token_id": 1, "cls_token_id": 0, "sep_token_id": 1}
    config = AutoConfig.for_model(family, num_labels=3, **sizes)
    with torch.device("meta"):
        network = AutoModelForSequenceClassification.from_config(config)
    assert class_heads(network) == expected
    assert not [n for n in linear_modules(network) if n.startswith(tuple(expected))]


def test_a_language_model_has_none() -> None:
    with torch.device("meta"):
        network = AutoModelForMaskedLM.from_config(BertConfig(**SIZES))
    assert class_heads(network) == []


def test_new_heads_are_in_fp32_and_the_same_each_time(tmp_path: Path) -> None:
    folder = bert(tmp_path / "bert")
    one, other = (loaded(folder, bits=bits) for bits in (4, 16))
    assert one.classifier.weight.dtype is torch.float32
    assert 0.01 < float(one.classifier.weight.std()) < 0.03
    torch.testing.assert_close(one.classifier.weight, other.classifier.weight, rtol=0, atol=0)
    torch.testing.assert_close(one.bert.pooler.dense.weight, other.bert.pooler.dense.weight)
    assert not one.classifier.bias.any()
    assert one.config.id2label == {0: "a", 1: "b", 2: "c"}
    quantised = [type(module).__name__ for module in one.modules()].count("Linear4bit")
    assert quantised == 12


def test_stored_heads_are_kept_for_as_many_labels(tmp_path: Path) -> None:
    folder = bert(tmp_path / "bert", BertForSequenceClassification, num_labels=3)
    plain = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    ids, mask = torch.tensor([[5, 6, 7], [8, 2, 2]]), torch.tensor([[1, 1, 1], [1, 0, 0]])
    same, fewer = loaded(folder), loaded(folder, labels=("a", "b"))
    with torch.no_grad():
        expected = plain(input_ids=ids, attention_mask=mask).logits
        torch.testing.assert_close(same(input_ids=ids, attention_mask=mask).logits, expected)
    assert fewer.classifier.weight.shape == (2, 64)
    torch.testing.assert_close(fewer.bert.pooler.dense.weight, plain.bert.pooler.dense.weight)


def test_a_decoder_finds_the_last_token_without_a_padding_id(tmp_path: Path) -> None:
    from tests.tiny import tiny_llama

    network = loaded(save_tiny(tmp_path / "llama", tiny_llama(pad_token_id=None)))
    assert network.config.pad_token_id == 1  # the end of sequence
    short, padded = torch.tensor([[5, 6]]), torch.tensor([[5, 6, 1, 1]])
    mask = torch.tensor([[1, 1, 0, 0]])
    with torch.no_grad():
        torch.testing.assert_close(
            network(input_ids=short).logits,
            network(input_ids=padded, attention_mask=mask).logits,
        )


def test_what_is_missing_in_the_base_is_still_told(tmp_path: Path) -> None:
    folder = bert(tmp_path / "bert")
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if name.endswith("layer.1.output.dense.weight"))
    weights["bert.encoder.layer.1.output.thick.weight"] = weights.pop(name)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"missing in the checkpoint: .*output\.dense\.weight"):
        loaded(folder)
