"""Rows to token batches: read, format, encode, batch."""

from qtune.data.prepare import Prepared, Streamed, prepare, prepare_stream, read_eval
from qtune.data.prompts import Prompter, prompter
from qtune.data.report import DataReport
from qtune.data.row import Turn
from qtune.data.rows import EncodedRow, Rows

__all__ = [
    "DataReport",
    "EncodedRow",
    "Prepared",
    "Prompter",
    "Rows",
    "Streamed",
    "Turn",
    "prepare",
    "prepare_stream",
    "prompter",
    "read_eval",
]
