"""Rows to token batches: read, format, encode, batch."""

from qtune.data.prepare import Prepared, Progress, prepare, read_eval
from qtune.data.report import DataReport
from qtune.data.rows import EncodedRow, Rows

__all__ = ["DataReport", "EncodedRow", "Prepared", "Progress", "Rows", "prepare", "read_eval"]
