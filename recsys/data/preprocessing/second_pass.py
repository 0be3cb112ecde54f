"""Second pass over the data: every row is encoded and written to the bucket of its user."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from recsys.data.preprocessing.buckets import Rows, add_rows, bucket_of
from recsys.data.preprocessing.ids import encode_ids
from recsys.data.preprocessing.tasks import Run
from recsys.data.preprocessing.time_encoding import TimeEncoding
from recsys.data.readers.formats import read
from recsys.data.readers.fragments import Fragment


def encode(
    run: Run,
    *,
    fragments: Sequence[Fragment],
    threshold: float | None,
    ids: tuple[pa.Array, pa.Array],
    encoding: TimeEncoding | None,
    work: Path,
    n_buckets: int,
) -> None:
    """Write all rows to buckets in the folder `work`, with contiguous ids and encoded times.

    Args:
        run: executes the tasks, one per fragment.
        fragments: all fragments of the source.
        threshold: least rating of a positive; None if every row is one.
        ids: the data's own user ids and item ids, sorted.
        encoding: the encoding of the times, None if no file has times.
        work: folder of the buckets.
        n_buckets: number of buckets.
    """

    def task(number: int, users: pa.Array, items: pa.Array) -> None:
        fragment = fragments[number]
        for position, batch in enumerate(read(fragment, threshold)):
            user = encode_ids(batch.user, users)
            split = np.full(len(user), fragment.split, dtype=np.int8)
            time = (
                np.zeros(len(user), dtype=np.int64)
                if encoding is None or batch.time is None
                else encoding.encode(batch.time)
            )
            item = encode_ids(batch.item, items)
            rows = Rows(user, item, batch.positive, time, batch.order, split)
            bucket = bucket_of(user, len(users), n_buckets)
            add_rows(rows, bucket, work, f"{number:06d}-{position:06d}", n_buckets)

    run(len(fragments), task, *ids)
