"""One straight-line function per command."""
