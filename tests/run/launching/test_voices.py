"""The lines of processes other than the first."""

from __future__ import annotations

import os

from qtune.run.launching.voices import Voices


def test_lines_are_whole_whatever_the_pieces() -> None:
    said: list[str] = []
    voices = Voices(said.append, held=False)
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    for piece in (b"Trace", b"back:\n\n", b"1 of 2\r2 of 2\nthe \xff end"):
        os.write(writer, piece)
        assert voices.read(3, reader)
    assert voices.read(3, reader)  # nothing there, though more may come
    os.close(writer)
    assert not voices.read(3, reader)
    os.close(reader)
    assert said == [
        "rank 3: Traceback:",
        "rank 3: 1 of 2",
        "rank 3: 2 of 2",
        "rank 3: the \ufffd end",
    ]


def test_on_a_terminal_they_wait_for_the_panel_to_go() -> None:
    said: list[str] = []
    voices = Voices(said.append, held=True)
    reader, writer = os.pipe()
    os.write(writer, b"".join(b"line %d\n" % number for number in range(1000)))
    voices.read(1, reader)
    assert said == []
    voices.release()
    assert len(said) == 200
    assert said[-1] == "rank 1: line 999"
    os.write(writer, b"late\n")
    voices.read(1, reader)
    assert said[-1] == "rank 1: late"
    os.close(writer)
    os.close(reader)
