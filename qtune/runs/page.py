"""The page of a CI job: GitHub shows the Markdown of the file that GITHUB_STEP_SUMMARY names."""

from __future__ import annotations

import os
import re
from pathlib import Path

PAGE = "GITHUB_STEP_SUMMARY"


def append(text: str) -> str:
    """Append to the page where there is one; returns why that was not possible, or nothing."""
    page = os.environ.get(PAGE)
    if not page:
        return ""
    try:
        with Path(page).open("a", encoding="utf-8") as stream:
            stream.write(text + "\n")
    except OSError as error:
        return f"{PAGE} cannot be written: {error.strerror}"
    return ""


def portable_text(text: str) -> str:
    """A message without this machine's folders: every absolute path is cut to its last part."""
    return re.sub(r"(?<![\w.:/~])~?/(?:[^\s/:'\"]+/)+", "", text)
