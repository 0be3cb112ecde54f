"""Data that all peers get: the embedded ratings of at least 4, split by leave-one-out, as CSV."""

from importlib import resources
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from benchmarks.peers.task import SPLITS
from recsys.data.preprocessing.split_strategies import leave_one_out

THRESHOLD = 4.0


def write_splits(folder: Path) -> None:
    """Write each split's positives as SPLIT.csv: contiguous user_id and item_id, sorted by both."""
    with resources.as_file(
        resources.files("recsys.data") / "ml-latest-small" / "ratings.parquet"
    ) as path:
        user, item, rating, time = (column.to_numpy() for column in pq.read_table(path).columns)
    positive = rating >= THRESHOLD
    user, item = (np.unique(ids[positive], return_inverse=True)[1] for ids in (user, item))
    order = np.lexsort((item, user))
    user, item, time = user[order], item[order], time[positive][order].astype(np.float64)
    split = leave_one_out(user, np.ones(len(user), dtype=bool), time, order)
    for code, name in enumerate(SPLITS):
        rows = split == code
        pa.csv.write_csv(
            pa.table({"user_id": user[rows], "item_id": item[rows]}), folder / f"{name}.csv"
        )
