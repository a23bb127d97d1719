"""A command that was refused stands on the page of its CI job, too."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from qtune.cli.output import news

if TYPE_CHECKING:
    from qtune.errors import QtuneError


def tell_job_page(error: QtuneError, *, verb: str) -> None:
    """Append the faults of an error to the job's page, where there is one."""
    if "GITHUB_STEP_SUMMARY" not in os.environ:
        return
    from qtune.runs.page import append, portable_text
    from qtune.runs.summary import failure

    lines = [portable_text(str(fault)) for fault in error.faults]
    unwritten = append(failure(verb, lines, int(error.code)))
    if unwritten:
        news().print(unwritten, markup=False, soft_wrap=True)
