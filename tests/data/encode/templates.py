"""Chat templates written for the tests, one for each habit that real templates have."""

from __future__ import annotations

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# The system text goes into the first user turn; a blank stands before each answer.
INST = (
    "{{ bos_token }}{% set s = messages[0].content + '\n\n' if messages[0].role == 'system' %}"
    "{% for m in messages %}{% if m.role == 'user' %} [INST] {{ s if loop.index0 < 2 else '' }}"
    "{{ m.content }} [/INST]{% elif m.role == 'assistant' %} {{ m.content }}{{ eos_token }}"
    "{% endif %}{% endfor %}"
)
# The content is trimmed, the end token has a second one behind it at the end of all.
TRIMMED = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content | trim }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% else %}{{ eos_token }}{% endif %}"
)
# The last answer gets an empty thinking block that the generation prompt does not write.
THINKING = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}"
    "{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Answers end with nothing.
ENDLESS = (
    "{% for m in messages %}{{ m.role | upper }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
# Only the last answer has an end; the next turn begins with the same character.
LAST_END = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% else %}{{ eos_token }}{% endif %}"
)
# The prompt of a generation is not how a finished conversation begins.
OTHER_PROMPT = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|><think>{% endif %}"
)
MARKED = (
    "{% for m in messages %}<|{{ m.role }}|>{% if m.role == 'assistant' %}{% generation %}"
    "{{ m.content }}<|end|>{% endgeneration %}{% else %}{{ m.content }}<|end|>{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|><think>{% endif %}"
)
REWRITING = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content | upper }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
# The system text moves to the last user turn, so earlier prompts change with the conversation.
MOVING = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST]"
    "{% if messages[0].role == 'system' and (loop.last or loop.index0 == messages | length - 2) %}"
    "{{ messages[0].content }} {% endif %}{{ m.content }}[/INST]"
    "{% elif m.role == 'assistant' %}{{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
TWO_BEGINNINGS = "{{ bos_token }}" + INST
REFUSING = "{{ raise_exception('System role not supported') }}"
SPECIALS = ["<|im_start|>", "<|im_end|>", "<|end|>", "<|user|>", "<|assistant|>", "[INST]"]
# Reasoning is kept in the last answer only, and the prompt opens the thought (Qwen 3, DeepSeek R1).
REASONING = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if loop.last and m.reasoning_content %}<think>\n{{ m.reasoning_content }}\n</think>\n\n"
    "{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)
# Reasoning is also taken out of the text of an answer, and kept in the last one only (Qwen 3).
SPLITTING = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% set said = m.content.split('</think>') %}"
    "{% set thought = m.reasoning_content or said[0].split('<think>')[-1].strip('\n') %}"
    "{% if loop.last and m.role == 'assistant' %}"
    "<think>\n{{ thought }}\n</think>\n\n{% endif %}{{ said[-1].lstrip('\n') }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Tools in front, the calls of an answer behind its text, ids that Mistral's templates insist on.
TOOLED = (
    "{% if tools %}[TOOLS]{{ tools | tojson }}[/TOOLS]{% endif %}"
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}"
    "{% for c in m.tool_calls or [] %}{% if not c.id or c.id | length != 9 %}"
    "{{ raise_exception('ids have nine characters') }}{% endif %}"
    "[CALL]{{ c.function.name }}{{ c.function.arguments | tojson }}#{{ c.id }}{% endfor %}"
    "{% if m.role == 'tool' %}#{{ m.tool_call_id }}{% endif %}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
