"""Equal rows: within the training rows, and between training and evaluation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from qtune.data.rows import Rows

    Numbers = NDArray[np.int64]


def repeated(rows: Rows) -> Numbers:
    """The numbers of rows whose tokens and mask equal those of an earlier row."""
    first = np.unique(identities(rows.digests), return_index=True)[1]
    return np.delete(np.arange(len(rows)), first)


def shared(rows: Rows, others: Rows) -> Numbers:
    """The numbers of rows that stand among the others too."""
    known = identities(np.concatenate([rows.digests, others.digests]))
    return np.flatnonzero(np.isin(known[: len(rows)], known[len(rows) :]))


def without(rows: Rows, numbers: Numbers) -> Rows:
    """The rows but for some numbers."""
    return rows.take(np.delete(np.arange(len(rows)), numbers))


def identities(digests: NDArray[np.uint64]) -> Numbers:
    """A number for each of some digests [N, 2], the same for equal ones and no others."""
    order = np.lexsort((digests[:, 1], digests[:, 0]))
    ordered = digests[order]
    found = np.zeros(len(digests), dtype=np.int64)
    found[order[1:]] = np.cumsum((ordered[1:] != ordered[:-1]).any(axis=1))
    return found
