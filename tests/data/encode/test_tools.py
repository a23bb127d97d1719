"""Tools, their calls and results in a conversation: written out by hand, or refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from qtune.data import prepare
from qtune.data.encode.chat import ChatLayout
from qtune.data.encode.settings import ChatSettings
from qtune.data.encode.tokens import Tokens
from qtune.data.row import Example, Turn
from qtune.errors import DataError
from tests.data.building import recipe, spans
from tests.data.encode import templates
from tests.data.encode.builtins import built_in
from tests.data.test_real import REAL, needs_real, real_templates, with_template
from tests.tiny import tiny_tokenizer

TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


def call(**arguments: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "weather", "arguments": arguments}}


ROUND = (
    Turn("user", "Warm?"),
    Turn("assistant", "", train=True, tool_calls=(call(city="Zürich"),)),
    Turn("tool", "21 C", name="weather"),
    Turn("assistant", "Yes.", train=True),
)


def written(
    tokenizer: PreTrainedTokenizerFast, *turns: Turn, thinking: bool = True, tools: Any = (TOOL,)
) -> list[str]:
    """The rows of a conversation, ⟦what is learnt⟧ in double brackets."""
    layout = ChatLayout(Tokens(tokenizer), ChatSettings(thinking=thinking))
    rows = layout.write(Example("x", 1, turns, tools=tuple(tools)))
    texts = [[f"⟦{s.text}⟧" if s.trained else s.text for s in row.segments] for row in rows]
    return ["".join(text).replace("⟧⟦", "") for text in texts]


def with_specials(template: str) -> PreTrainedTokenizerFast:
    made = tiny_tokenizer()
    made.add_special_tokens({"additional_special_tokens": templates.SPECIALS})
    made.chat_template = template
    return made


SYSTEM = (
    "<|im_start|>system\n# Tools\n\nYou may call one or more functions to assist with the user "
    "query.\n\nYou are provided with function signatures within <tools></tools> XML tags:\n"
    '<tools>\n{"type": "function", "function": {"name": "weather", "description": "Of a city", '
    '"parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}}\n</tools>\n\n'
    "For each function call, return a json object with function name and arguments within "
    "<tool_call></tool_call> XML tags:\n<tool_call>\n"
    '{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call><|im_end|>\n'
)


def test_qwen_writes_tools_calls_and_results() -> None:
    assert written(built_in("qwen"), *ROUND) == [
        f"{SYSTEM}<|im_start|>user\nWarm?<|im_end|>\n<|im_start|>assistant\n"
        '⟦<tool_call>\n{"name": "weather", "arguments": {"city": "Zürich"}}\n</tool_call>'
        "<|im_end|>⟧\n<|im_start|>user\n<tool_response>\n21 C\n</tool_response><|im_end|>\n"
        "<|im_start|>assistant\n⟦Yes.<|im_end|>⟧\n"
    ]


def test_text_and_several_calls_are_learnt_together() -> None:
    calls = (call(city="Bern"), call(city="Uri"))
    turns = (ROUND[0], Turn("assistant", "I look.", train=True, tool_calls=calls))
    (row,) = written(built_in("qwen"), *turns)
    assert row.removeprefix(SYSTEM) == (
        "<|im_start|>user\nWarm?<|im_end|>\n<|im_start|>assistant\n⟦I look.\n"
        '<tool_call>\n{"name": "weather", "arguments": {"city": "Bern"}}\n</tool_call>\n'
        '<tool_call>\n{"name": "weather", "arguments": {"city": "Uri"}}\n</tool_call><|im_end|>⟧\n'
    )


@pytest.mark.parametrize("learns", [True, False])
def test_the_reasoning_in_front_of_a_call(learns: bool) -> None:
    turn = Turn("assistant", "", True, thinking="Ask it.", tool_calls=(call(city="Bern"),))
    (row,) = written(built_in("qwen"), ROUND[0], turn, thinking=learns)
    thought = "<think>\nAsk it.\n</think>\n\n"
    assert row.split("assistant\n")[1] == (
        ("⟦" + thought if learns else thought + "⟦")
        + '<tool_call>\n{"name": "weather", "arguments": {"city": "Bern"}}\n</tool_call>'
        "<|im_end|>⟧\n"
    )


def test_a_template_that_insists_on_ids_gets_them() -> None:
    (row,) = written(with_specials(templates.TOOLED), *ROUND, tools=[])
    assert row == (
        "<|user|>Warm?<|end|><|assistant|>"
        '⟦[CALL]weather{"city": "Zürich"}#call00001<|end|>⟧'
        "<|tool|>21 C#call00001<|end|><|assistant|>⟦Yes.<|end|>⟧"
    )


def test_special_tokens_in_arguments_and_results_stay_text() -> None:
    turns = (
        ROUND[0],
        Turn("assistant", "", train=True, tool_calls=(call(city="<|im_end|>"),)),
        Turn("tool", "</s>", name="weather"),
        ROUND[3],
    )
    layout = ChatLayout(Tokens(built_in("qwen")))
    (row,) = layout.write(Example("x", 1, turns, tools=(TOOL,)))
    plain = [segment.text for segment in row.segments if segment.plain]
    assert plain == ["<|im_end|>", "</s>"]
    assert row.typed == 2


@pytest.mark.parametrize(
    ("name", "left_out"),
    [
        ("chatml", "leaves out the call of weather in turn 2"),
        ("llama-3", "leaves out the call of weather in turn 2"),
        ("mistral", "leaves out the call of weather in turn 2"),
    ],
)
def test_a_template_without_tools_is_refused(name: str, left_out: str) -> None:
    with pytest.raises(DataError) as caught:
        written(built_in(name), *ROUND)
    assert left_out in str(caught.value)
    assert "qwen writes tools" in caught.value.faults[0].hint


@pytest.mark.parametrize(
    ("template", "turns", "left_out"),
    [
        (templates.CHATML, (ROUND[0], ROUND[3]), "leaves out the tools of the row"),
        (
            "{% for m in messages if m.role != 'tool' %}" + templates.CHATML[26:],
            (ROUND[0], ROUND[2], ROUND[3]),
            "leaves out the result of a tool in turn 2",
        ),
    ],
    ids=["tools", "result"],
)
def test_what_a_template_drops_is_told(
    template: str, turns: tuple[Turn, ...], left_out: str
) -> None:
    with pytest.raises(DataError, match=left_out):
        written(with_specials(template), *turns, tools=[TOOL] if "tools" in left_out else [])


# Those of the real templates that write tools, calls and results; the others leave something out.
TOOLED = {
    "command_a_tool_use": "<|END_ACTION|><|END_OF_TURN_TOKEN|>",
    "exaone4": "[|endofturn|]",
    "gemma4": "<|tool_response></s>",
    "gemma4_unified": "<|tool_response></s>",
    "jamba": "<|eom|>",
    "llama3_2_vision": "<|eot_id|>",
    "llama4": "<|eot|>",
    "mistral_v2v3": "</s>",
    "mistral_v3_tekken": "</s>",
    "qwen3": "<|im_end|>",
    "qwen3_5": "<|im_end|>",
    "qwen_25": "<|im_end|>",
}


@needs_real
@pytest.mark.parametrize("path", real_templates(), ids=lambda path: path.stem)
def test_real_templates_write_tools_or_are_refused(path: Any) -> None:
    if path.stem not in TOOLED:
        with pytest.raises(DataError, match=r"leaves out the (call|tools)"):
            written(with_template(path), *ROUND)
        return
    rows = written(with_template(path), *ROUND)
    learnt = [part.split("⟧")[0] for row in rows for part in row.split("⟦")[1:]]
    assert len(learnt) == 2
    assert learnt[0].endswith(TOOLED[path.stem])
    assert learnt[1].strip().startswith("Yes.")
    before = rows[0].split("⟦")[0]
    assert "Of a city" in before
    assert "Warm?" in before
    assert "Zürich" in learnt[0]
    assert "21 C" in rows[-1]
    assert "21 C" not in "".join(learnt)


@needs_real
def test_a_real_file_of_tool_calls_is_learnt_answer_by_answer() -> None:
    path = REAL / "data" / "glaive_toolcall_en_demo.json"
    made = built_in("qwen")
    rows = prepare(recipe(path, max_length=100_000), made).train
    values = json.loads(path.read_text())
    assert len(rows) == len(values) == 300
    calls = 0
    for row, value in zip(rows, values, strict=True):
        expected = []
        for turn in value["conversations"]:
            if turn["from"] == "gpt":
                expected.append(f"{turn['value']}<|im_end|>")
            if turn["from"] == "function_call":
                calls += 1
                one = json.loads(turn["value"])
                arguments = json.dumps(one["arguments"], ensure_ascii=False)
                body = f'{{"name": "{one["name"]}", "arguments": {arguments}}}'
                expected.append(f"<tool_call>\n{body}\n</tool_call><|im_end|>")
        assert spans(row, made) == expected
    assert calls > 100


def test_no_row_is_written_otherwise_for_what_came_before_it() -> None:
    """Ids are for the rows that the template refuses without."""
    mild = (
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}"
        "{% for c in m.tool_calls or [] %}[CALL]{{ c.function.name }}"
        "{% if c.id %}#{{ c.id }}{% endif %}{% endfor %}"
        "{% if m.role == 'tool' and not m.tool_call_id %}{{ raise_exception('no id') }}{% endif %}"
        "<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    layout = ChatLayout(Tokens(with_specials(mild)))
    alone, whole = Example("x", 1, ROUND[:2]), Example("x", 2, ROUND)
    before, with_ids = layout.write(alone), layout.write(whole)
    assert layout.write(alone) == before
    assert "weather#call00001" in "".join(segment.text for segment in with_ids[0].segments)
    assert "#" not in "".join(segment.text for segment in before[0].segments)
