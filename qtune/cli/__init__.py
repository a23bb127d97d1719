"""Typer commands, tables, JSON, exit codes."""
