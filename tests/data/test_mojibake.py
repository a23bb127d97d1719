"""Garbled text is found; correct text of many languages is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from qtune.data.mojibake import garbled
from qtune.data.row import Example, Turn
from tests.data.building import encoded

CORRECT = {
    "french": "«CAFÉ» L’été, «LIBERTÉ»… À la fête — « où ? » Ça coûte 5 €. PÂTÉ",  # noqa: RUF001
    "german": "„Über“ 5°C, ÖÄÜ ß “SCHLUß” „ja“ »SCHÖ« é”…",
    "portuguese": "“AMANHÔ NÃO, IRMÃ… coração, AMANHÃ – MAÇû, MAMÃ’s 1ª 2º",  # noqa: RUF001
    "romanian": "„â” coborâ»… ÎNCÂT „România” HOTĂRÂ» hotărâ…",
    "spanish": "¿ÁÉÍÓÚ? ¡Ñ! «ESPAÑA» 1º 2ª €",
    "swedish": "ÅÄÖ »Å« ”Ö” å–Å",  # noqa: RUF001
    "icelandic": "það er Ðe ðÞ",
    "vietnamese": "Tiếng Việt: ÂU CƠ, ÂM NHẠC, nhân dân, Ðà Nẵng",
    "turkish": "ŞÜKRÜ İSTANBUL’DA Â, kâr, hâlâ",  # noqa: RUF001
    "czech": "Žluťoučký kůň „úpěl“",
    "russian": "Привет, мир! «Да», № 3",
    "greek": "Καλημέρα «κόσμε»",
    "hebrew": "שלום עולם",
    "arabic": "مرحبا بالعالم",
    "hindi": "नमस्ते दुनिया",
    "chinese": "你好,世界!“引号”",
    "japanese": "こんにちは「世界」",
    "korean": "안녕하세요",
    "signs": "± µ ×2 ÷ © ½ 20 °C £5 ½“ ™",  # noqa: RUF001
    "emoji": "😀🎉👍🏽",
}


def of(text: str) -> Example:
    return Example("f", 1, (Turn("user", "plain"), Turn("assistant", text, train=True)))


def as_cp1252(text: str) -> str:
    """As web pages are read: bytes that cp1252 does not know are controls."""
    letters = []
    for byte in text.encode():
        try:
            letters.append(bytes([byte]).decode("cp1252"))
        except UnicodeDecodeError:
            letters.append(chr(byte))
    return "".join(letters)


@pytest.mark.parametrize("language", CORRECT)
def test_correct_text_is_not_garbled(language: str) -> None:
    assert not garbled(of(CORRECT[language]))


@pytest.mark.parametrize("language", CORRECT)
def test_the_same_text_read_wrongly_is(language: str) -> None:
    text = CORRECT[language]
    assert garbled(of(as_cp1252(text)))
    assert garbled(of(text.encode().decode("latin-1")))


@pytest.mark.parametrize("text", ["“", "it’s", "wait…", "a – b", "é", "5 €", "½", "😀", "→", "≤"])  # noqa: RUF001
def test_a_single_letter_is_enough(text: str) -> None:
    assert garbled(of(as_cp1252(f"so {text} so")))


def test_a_lost_third_byte_of_a_closing_quote() -> None:
    assert garbled(of("said, â€œLetâ€™s go!â€ and"))
    assert garbled(of("go!â€ and"))


def test_garbled_rows_are_counted_with_the_first_place(tmp_path: Path) -> None:
    rows = [{"text": text} for text in ("fine – é", "Itâ€™s", "fine", "cafÃ©")]  # noqa: RUF001
    report = encoded(tmp_path, rows).report
    source = report.train_sources[0]
    assert (source.garbled, source.garbled_first) == (2, "train.jsonl:2")
    (line,) = (line for line in report.lines() if "cp1252" in line)
    assert line.startswith("  warning: 2 rows hold UTF-8 that was read as cp1252")
    assert line.endswith("; the first: train.jsonl:2")
    assert encoded(tmp_path, rows[:1]).report.train_sources[0].garbled == 0
