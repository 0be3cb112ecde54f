"""The candidates of the NCF layout: a line `(user,item)` with the held-out pair, then its candidates, separated by tabs.

Source: He et al. 2017, arXiv:1708.05031, and the data files published with it.
"""

import re
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from recsys.data.readers.fragments import Batch, Fragment, first_order, with_ids
from recsys.data.readers.text_rows import read_chunks
from recsys.data.sources.files import open_file
from recsys.errors import InputError

_PAIR = re.compile(r"\(([^,()]+), ?([^,()]+)\)")
_CHUNK_BYTES = 1 << 22

POSITION_BITS = 16
"""Bits of an order that hold the position in a line; those above hold the line."""


def read_candidates(fragment: Fragment) -> Iterator[Batch]:
    """Candidates as rows, in batches: for each line the held-out item at position 0, then its candidates.

    Raises:
        InputError: if a line has another form.
    """
    with open_file(fragment.file) as stream:
        for chunk, line in read_chunks(stream, _CHUNK_BYTES, None, fragment.file.label, 1):
            yield _batch(fragment, chunk.decode("utf-8", errors="replace").split("\n"), line - 1)


def _batch(fragment: Fragment, lines: list[str], row: int) -> Batch:
    users: list[str] = []
    items: list[str] = []
    orders = []
    for line in lines:
        row += 1
        if not line.strip():
            continue
        head, *candidates = line.strip().split("\t")
        pair = _PAIR.fullmatch(head.strip())
        if pair is None or not candidates:
            place = f"{fragment.file.label}, row {row}"
            raise InputError(
                place,
                "must be (user,item) and candidates separated by tabs",
                f"{line[:40]!r}",
                "Correct it.",
            )
        distinct = list(
            dict.fromkeys(candidate.strip() for candidate in candidates)
        )  # a set, as in the format's own evaluation
        if len(distinct) >= 1 << POSITION_BITS:
            limit = (1 << POSITION_BITS) - 1
            place = f"{fragment.file.label}, row {row}"
            raise InputError(
                place,
                f"must have at most {limit:,} candidates",
                f"{len(distinct):,}",
                "Remove some.",
            )
        n = 1 + len(distinct)
        users += [pair[1]] * n
        items += [pair[2], *distinct]
        orders.append(first_order(fragment) + (row << POSITION_BITS) + np.arange(n, dtype=np.int64))
    order = np.concatenate(orders) if orders else np.empty(0, dtype=np.int64)
    return Batch(
        user=with_ids(pa.array(users, pa.string()).dictionary_encode()),
        item=with_ids(pa.array(items, pa.string()).dictionary_encode()),
        positive=np.ones(len(order), dtype=bool),
        rating_max=None,
        time=None,
        order=order,
    )
