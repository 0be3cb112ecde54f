"""Reader of the NCF layout's candidates.

A line holds `(user,item)`, the held-out pair, and then its candidates, separated by tabs.

Source: He et al. 2017, arXiv:1708.05031, and the data files published with it.
"""

import re
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from recsys.data.readers.fragments import Batch, Fragment
from recsys.data.readers.ids import as_id_column
from recsys.data.readers.text_rows import read_chunks
from recsys.data.sources.files import open_file
from recsys.errors import InputError

_PAIR = re.compile(r"\(([^,()]+), ?([^,()]+)\)")
_CHUNK_BYTES = 1 << 22

POSITION_BITS = 16
"""Bits of `Batch.order` that hold the position in a line; the bits above hold the row."""


def read_candidates(fragment: Fragment) -> Iterator[Batch]:
    """Yield candidates as rows: for each line the held-out item at position 0, then the candidates.

    Raises:
        InputError: if a line has another form, or too many candidates.
    """
    label = fragment.file.label
    with open_file(fragment.file) as stream:
        for chunk, line in read_chunks(stream, _CHUNK_BYTES, None, label, 1):
            yield _batch(fragment, chunk.decode("utf-8", errors="replace").split("\n"), line - 1)


def _batch(fragment: Fragment, lines: list[str], row: int) -> Batch:
    """Return the rows of lines; `row`: the number of the row before them."""
    users: list[str] = []
    items: list[str] = []
    orders = []
    for line in lines:
        row += 1
        if not line.strip():
            continue
        user, line_items = _parse_line(line, f"{fragment.file.label}, row {row}")
        n = len(line_items)
        users += [user] * n
        items += line_items
        orders.append(fragment.first_order + (row << POSITION_BITS) + np.arange(n, dtype=np.int64))
    order = np.concatenate(orders) if orders else np.empty(0, dtype=np.int64)
    return Batch(
        user=as_id_column(pa.array(users, pa.string()).dictionary_encode()),
        item=as_id_column(pa.array(items, pa.string()).dictionary_encode()),
        positive=np.ones(len(order), dtype=bool),
        rating_max=None,
        time=None,
        order=order,
    )


def _parse_line(line: str, place: str) -> tuple[str, list[str]]:
    """Return the user of a line, and its held-out item followed by its distinct candidates."""
    head, *candidates = line.strip().split("\t")
    pair = _PAIR.fullmatch(head.strip())
    if pair is None or not candidates:
        raise InputError(
            place,
            "must be (user,item) and candidates separated by tabs",
            f"{line[:40]!r}",
            "Correct it.",
        )
    # As in the format's own evaluation, a repeated candidate counts once.
    distinct = list(dict.fromkeys(candidate.strip() for candidate in candidates))
    limit = (1 << POSITION_BITS) - 1
    if len(distinct) > limit:
        raise InputError(
            place, f"must have at most {limit:,} candidates", f"{len(distinct):,}", "Remove some."
        )
    return pair[1], [pair[2], *distinct]
