"""Golden masks: whole rows written out by hand, ⟦what is learnt⟧ in double brackets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from qtune.data import EncodedRow
from tests.data.building import encoded
from tests.data.encode.builtins import BEGINNING, SPECIALS, built_in

ALPACA = {"instruction": "Add.", "input": "1 → 2", "output": "née\n3"}
COMPLETION = {"prompt": "1 + 2 =", "completion": " 3 née"}
MESSAGES = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi?"},
        {"role": "assistant", "content": "Hello\n\nyou, née"},
        {"role": "user", "content": "2 + 2?"},
        {"role": "assistant", "content": "Four."},
    ]
}
SHAREGPT = {
    "conversations": [
        {"from": "human", "value": "Who?"},
        {"from": "gpt", "value": "Me → you"},
        {"from": "human", "value": "Why?"},
        {"from": "gpt", "value": "So."},
    ]
}
ROWS = {"alpaca": ALPACA, "messages": MESSAGES, "sharegpt": SHAREGPT}
VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the user's questions. "
)
STANFORD = (
    "Below is an instruction that describes a task. Write a response that appropriately completes "
    "the request.\n\n"
)
CHATML = {
    "alpaca": "<|im_start|>user\nAdd.\n\n1 → 2<|im_end|>\n"
    "<|im_start|>assistant\n⟦née\n3<|im_end|>⟧\n",
    "messages": "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi?<|im_end|>\n"
    "<|im_start|>assistant\n⟦Hello\n\nyou, née<|im_end|>⟧\n<|im_start|>user\n2 + 2?<|im_end|>\n"
    "<|im_start|>assistant\n⟦Four.<|im_end|>⟧\n",
    "sharegpt": "<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\n⟦Me → you<|im_end|>⟧\n"
    "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n⟦So.<|im_end|>⟧\n",
}
GOLDEN = {
    "alpaca": {
        "alpaca": f"<s>{STANFORD}### Instruction:\nAdd.\n\n1 → 2\n\n### Response:\n"
        "⟦née\n3</s>⟧\n\n",
        "messages": "<s>Be brief.\n\n### Instruction:\nHi?\n\n### Response:\n"
        "⟦Hello\n\nyou, née</s>⟧\n\n### Instruction:\n2 + 2?\n\n### Response:\n⟦Four.</s>⟧\n\n",
        "sharegpt": f"<s>{STANFORD}### Instruction:\nWho?\n\n### Response:\n⟦Me → you</s>⟧\n\n"
        "### Instruction:\nWhy?\n\n### Response:\n⟦So.</s>⟧\n\n",
    },
    "chatml": CHATML,
    "gemma": {
        "alpaca": "<s><start_of_turn>user\nAdd.\n\n1 → 2<end_of_turn>\n"
        "<start_of_turn>model\n⟦née\n3<end_of_turn>⟧\n",
        "messages": "<s><start_of_turn>user\nBe brief.\n\nHi?<end_of_turn>\n"
        "<start_of_turn>model\n⟦Hello\n\nyou, née<end_of_turn>⟧\n"
        "<start_of_turn>user\n2 + 2?<end_of_turn>\n<start_of_turn>model\n⟦Four.<end_of_turn>⟧\n",
        "sharegpt": "<s><start_of_turn>user\nWho?<end_of_turn>\n"
        "<start_of_turn>model\n⟦Me → you<end_of_turn>⟧\n"
        "<start_of_turn>user\nWhy?<end_of_turn>\n<start_of_turn>model\n⟦So.<end_of_turn>⟧\n",
    },
    "llama-3": {
        "alpaca": "<s><|start_header_id|>user<|end_header_id|>\n\nAdd.\n\n1 → 2<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n⟦née\n3<|eot_id|>⟧",
        "messages": "<s><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nHi?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n⟦Hello\n\nyou, née<|eot_id|>⟧"
        "<|start_header_id|>user<|end_header_id|>\n\n2 + 2?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n⟦Four.<|eot_id|>⟧",
        "sharegpt": "<s><|start_header_id|>user<|end_header_id|>\n\nWho?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n⟦Me → you<|eot_id|>⟧"
        "<|start_header_id|>user<|end_header_id|>\n\nWhy?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n⟦So.<|eot_id|>⟧",
    },
    "mistral": {
        "alpaca": "<s>[INST] Add.\n\n1 → 2 [/INST]⟦ née\n3</s>⟧",
        "messages": "<s>[INST] Be brief.\n\nHi? [/INST]⟦ Hello\n\nyou, née</s>⟧"
        "[INST] 2 + 2? [/INST]⟦ Four.</s>⟧",
        "sharegpt": "<s>[INST] Who? [/INST]⟦ Me → you</s>⟧[INST] Why? [/INST]⟦ So.</s>⟧",
    },
    "phi": {
        "alpaca": "<|user|>\nAdd.\n\n1 → 2<|end|>\n<|assistant|>\n⟦née\n3<|end|>⟧\n",
        "messages": "<|system|>\nBe brief.<|end|>\n<|user|>\nHi?<|end|>\n"
        "<|assistant|>\n⟦Hello\n\nyou, née<|end|>⟧\n<|user|>\n2 + 2?<|end|>\n"
        "<|assistant|>\n⟦Four.<|end|>⟧\n",
        "sharegpt": "<|user|>\nWho?<|end|>\n<|assistant|>\n⟦Me → you<|end|>⟧\n"
        "<|user|>\nWhy?<|end|>\n<|assistant|>\n⟦So.<|end|>⟧\n",
    },
    "qwen": CHATML,
    "vicuna": {
        "alpaca": f"<s>{VICUNA}USER: Add.\n\n1 → 2 ASSISTANT:⟦ née\n3</s>⟧",
        "messages": "<s>Be brief. USER: Hi? ASSISTANT:⟦ Hello\n\nyou, née</s>⟧"
        "USER: 2 + 2? ASSISTANT:⟦ Four.</s>⟧",
        "sharegpt": f"<s>{VICUNA}USER: Who? ASSISTANT:⟦ Me → you</s>⟧USER: Why? ASSISTANT:"
        "⟦ So.</s>⟧",
    },
    "zephyr": {
        "alpaca": "<s><|user|>\nAdd.\n\n1 → 2</s>\n<|assistant|>\n⟦née\n3</s>⟧\n",
        "messages": "<s><|system|>\nBe brief.</s>\n<|user|>\nHi?</s>\n"
        "<|assistant|>\n⟦Hello\n\nyou, née</s>⟧\n<|user|>\n2 + 2?</s>\n"
        "<|assistant|>\n⟦Four.</s>⟧\n",
        "sharegpt": "<s><|user|>\nWho?</s>\n<|assistant|>\n⟦Me → you</s>⟧\n"
        "<|user|>\nWhy?</s>\n<|assistant|>\n⟦So.</s>⟧\n",
    },
}


def shown(row: EncodedRow, tokenizer: PreTrainedTokenizerFast) -> str:
    """The row as text with brackets around each learnt stretch, token for token."""
    pieces: list[tuple[bool, list[int]]] = []
    for token, label in zip(row.input_ids, row.labels, strict=True):
        assert label in (-100, token)
        learnt = label != -100
        if not pieces or pieces[-1][0] != learnt:
            pieces.append((learnt, []))
        pieces[-1][1].append(token)
    texts = [(on, tokenizer.decode(ids, skip_special_tokens=False)) for on, ids in pieces]
    return "".join(f"⟦{text}⟧" if learnt else text for learnt, text in texts)


def only_row(folder: Path, value: Any, tokenizer: PreTrainedTokenizerFast) -> EncodedRow:
    (row,) = encoded(folder, [value], tokenizer=tokenizer).train
    return row


@pytest.mark.parametrize("kind", ROWS)
@pytest.mark.parametrize("name", GOLDEN)
def test_a_row_is_what_was_written_out_by_hand(tmp_path: Path, name: str, kind: str) -> None:
    made = built_in(name)
    row = only_row(tmp_path, ROWS[kind], made)
    assert shown(row, made) == GOLDEN[name][kind]
    begins = GOLDEN[name][kind].startswith("<s>")
    assert [n for n, token in enumerate(row.input_ids) if token == made.bos_token_id] == [
        0
    ] * begins


@pytest.mark.parametrize("name", GOLDEN)
def test_prompt_and_completion_need_no_template(tmp_path: Path, name: str) -> None:
    made = built_in(name)
    begin = "<s>" if name in BEGINNING else ""
    assert shown(only_row(tmp_path, COMPLETION, made), made) == f"{begin}1 + 2 =⟦ 3 née</s>⟧"


@pytest.mark.parametrize("name", GOLDEN)
def test_the_marks_of_a_template_are_single_tokens(tmp_path: Path, name: str) -> None:
    made = built_in(name)
    row = only_row(tmp_path, MESSAGES, made)
    whole = GOLDEN[name]["messages"].replace("⟦", "").replace("⟧", "")
    for mark in [*SPECIALS[name], "</s>"]:
        assert row.input_ids.count(made.convert_tokens_to_ids(mark)) == whole.count(mark)
