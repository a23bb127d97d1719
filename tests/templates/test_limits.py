"""A template may neither hang, nor flood the memory, nor write without end."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest
from transformers import PreTrainedTokenizerFast

from qtune.data.encode.settings import ChatSettings
from qtune.data.encode.template import Template
from qtune.data.encode.tokens import Tokens
from qtune.errors import DataError
from qtune.templates.limits import Limits
from qtune.templates.watch import TakesTooLong, Watch
from tests.tiny import tiny_tokenizer

MESSAGES = [{"role": "user", "content": "a"}]


def tokenizer(template: str) -> PreTrainedTokenizerFast:
    made = tiny_tokenizer()
    made.chat_template = template
    return made


def refused(template: str) -> DataError:
    made = Tokens(tokenizer(template))
    with pytest.raises(DataError) as caught:
        Template(made, ChatSettings(name="own.jinja")).render(MESSAGES)
    assert "own.jinja" in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    "template",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% macro f(n) %}{% for i in range(99999) %}{% if i == n %}x{% endif %}{% endfor %}"
        "{% endmacro %}{% for i in range(99999) %}{% set x = f(i) %}{% endfor %}",
        "{% set n = namespace(l=[]) %}{% for a in range(99999) %}{% for b in range(99999) %}"
        "{% set n.l = [b] %}{% endfor %}{% endfor %}",
    ],
    ids=["loops", "macro", "lists"],
)
def test_endless_loops_end(template: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Limits.__init__, "__defaults__", (0.2, 1 << 30))
    assert "takes more than 0.2 s" in str(refused(template))


@pytest.mark.parametrize(
    "template",
    [
        "{% set n = 9999999999 %}{{ 'a' * n }}",
        "{{ 'a' * 9999999999 }}",
        "{{ 'a'.ljust(9999999999) }}",
        "{{ '%09999999999d' % 1 }}",
        "{% set n = namespace(s='a' * 1000000) %}{% for i in range(40) %}"
        "{% set n.s = n.s ~ n.s %}{% endfor %}",
        "{% for i in range(99999) %}{{ 'a' * (100000 + i) }}{% endfor %}",
        "{{ ([0] * 9999999999) | length }}",
    ],
    ids=["late", "folded", "method", "format", "doubling", "pieces", "list"],
)
def test_floods_of_memory_meet_a_ceiling(template: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Limits.__init__, "__defaults__", (60.0, 128 << 20))
    assert "takes more than 128 MiB" in str(refused(template))


def test_a_large_output_is_refused_but_a_large_row_is_not() -> None:
    assert "writes 1,100,000 characters" in str(refused("{{ 'a' * 1100000 }}"))
    template = Template(Tokens(tokenizer("{{ messages[0].content }}")), ChatSettings())
    long = "a" * 1_100_000
    assert template.render([{"role": "user", "content": long}]) == long


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ 10 ** 10 ** 10 }}", "raises to a power (**), which it may not (line 1)"),
        ("{{ 'a' }}\n{% if %}", "is no Jinja: Expected an expression"),
        ("a" * 65_537, "has 65,537 bytes, at most 65,536 are read"),
        ("{{ " + "-" * 30_000 + "1 }}", "is nested too deeply"),
        ("{{ range(9999999999) }}", "refuses this conversation: Range too big"),
        ("{{ ''.__class__.__mro__ }}", "refuses this conversation: "),
        ("{{ messages.append(1) }}", "refuses this conversation: "),
    ],
    ids=["power", "syntax", "large", "deep", "range", "class", "append"],
)
def test_other_faults_of_a_template(template: str, message: str) -> None:
    assert message in str(refused(template))


def test_nothing_is_raised_after_a_call_that_was_in_time() -> None:
    watch = Watch(0.15)

    def spin(seconds: float) -> str:
        end = time.thread_time() + seconds
        while time.thread_time() < end:
            pass
        return "done"

    for _ in range(3):
        assert watch.call(lambda: spin(0.05)) == "done"
        with pytest.raises(TakesTooLong):
            watch.call(lambda: spin(60.0))
    spin(0.4)


def test_sleep_is_no_work() -> None:
    def slept() -> str:
        time.sleep(0.4)
        return "done"

    assert Watch(0.1).call(slept) == "done"


def test_a_watch_works_in_any_thread() -> None:
    ended = []

    def run() -> None:
        try:
            Watch(0.1).call(lambda: "".join(str(n) for n in iter(int, 1)))
        except TakesTooLong:
            ended.append(True)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(60)
    assert ended == [True]


GROWING = """
from qtune.templates.ceiling import Ceiling
ceiling = Ceiling(64 << 20)
assert ceiling.call(lambda: len(b"a" * (32 << 20))) == 32 << 20
kept = bytearray(128 << 20)
assert ceiling.call(lambda: len(b"a" * (32 << 20))) == 32 << 20
try:
    ceiling.call(lambda: len(b"a" * (96 << 20)))
except MemoryError:
    print("refused", len(bytes(96 << 20)) < len(kept))
"""


def test_a_ceiling_follows_a_process_that_grows() -> None:
    """In a process of its own: what other tests freed would be taken again below any ceiling."""
    done = subprocess.run([sys.executable, "-c", GROWING], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("refused True\n", "")
