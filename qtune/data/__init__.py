"""Rows to token batches: read, format, encode, batch."""
