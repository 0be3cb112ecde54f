"""First pass over the data: the ids, titles, times and counts of a source.

One task summarises each fragment. The driver merges the summaries and never holds a row.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import pyarrow as pa

from recsys.data.preprocessing.ids import merge_ids, sort_ids
from recsys.data.preprocessing.item_titles import TitleCandidates, first_titles
from recsys.data.preprocessing.time_encoding import TimeRange, range_of
from recsys.data.readers.candidates import POSITION_BITS
from recsys.data.readers.formats import read
from recsys.data.readers.fragments import CANDIDATES, Batch, Fragment
from recsys.data.sources.files import DataFile
from recsys.errors import InputError

RangeKey = tuple[int, DataFile, bool]
"""A split's code, a file of it, and whether the file's times are dates."""


@dataclass
class Summary:
    """Summary of a fragment, or of the whole source.

    Attributes:
        error: reason why the fragment cannot be read; the other attributes are then incomplete.
        n_rows: interactions.
        n_positives: interactions that are positive.
        rating_max: the largest rating, None without ratings.
        users: arrays of distinct user ids.
        items: arrays of distinct item ids.
        titles: tables of item and title.
        time_ranges: ranges of the times.
        timeless: a file without times, by the code of its split.
        n_candidates: largest number of candidates of a held-out item in a candidate file.
        item_names: values of a column `name` by item.
        user_names: values of a column `name` by user.
    """

    error: InputError | None = None
    n_rows: int = 0
    n_positives: int = 0
    rating_max: float | None = None
    users: list[pa.Array] = field(default_factory=list)
    items: list[pa.Array] = field(default_factory=list)
    titles: list[pa.Table] = field(default_factory=list)
    time_ranges: dict[RangeKey, TimeRange] = field(default_factory=dict)
    timeless: dict[int, DataFile] = field(default_factory=dict)
    n_candidates: int = 0
    item_names: TitleCandidates = field(default_factory=TitleCandidates)
    user_names: TitleCandidates = field(default_factory=TitleCandidates)


def summarise(fragment: Fragment, threshold: float | None) -> Summary:
    """Return the summary of a fragment.

    A rule that the fragment breaks is returned as `error`, not raised, so that `merge` raises the
    first error in file order.

    Args:
        fragment: the fragment to read.
        threshold: least rating of a positive; None if every row is one.
    """
    summary = Summary()
    try:
        for batch in read(fragment, threshold):
            summary.users.append(batch.user.dictionary)
            summary.items.append(batch.item.dictionary)
            if fragment.split == CANDIDATES:
                position = batch.order & ((1 << POSITION_BITS) - 1)
                summary.n_candidates = max(summary.n_candidates, int(position.max(initial=0)))
            else:
                _add(summary, batch, fragment)
    except InputError as error:
        return Summary(error=error)
    summary.users, summary.items = [merge_ids(summary.users)], [merge_ids(summary.items)]
    return summary


def _add(summary: Summary, batch: Batch, fragment: Fragment) -> None:
    """Add the rows of a batch of interactions."""
    summary.n_rows += len(batch.order)
    summary.n_positives += int(batch.positive.sum())
    summary.rating_max = _largest(summary.rating_max, batch.rating_max)
    if batch.time is None:
        summary.timeless[fragment.split] = fragment.file
    elif len(batch.order):
        key = fragment.split, fragment.file, batch.time.is_date
        _widen(summary, {key: range_of(fragment.file, batch.time)})
    if batch.title is None:
        return
    user, item = (column.dictionary.take(column.indices) for column in (batch.user, batch.item))
    if "name" in fragment.columns:
        summary.item_names.add(item, batch.title)
        summary.user_names.add(user, batch.title)
    else:
        summary.titles.append(first_titles(pa.table({"item": item, "title": batch.title})))


def merge(summaries: Iterable[Summary]) -> Summary:
    """Return the summary of the whole source, its ids sorted.

    Holds the merged summary and one more at a time.

    Raises:
        InputError: the first one in `summaries`.
    """
    total = Summary()
    for summary in summaries:
        if summary.error is not None:
            raise summary.error
        total.n_rows += summary.n_rows
        total.n_positives += summary.n_positives
        total.rating_max = _largest(total.rating_max, summary.rating_max)
        total.n_candidates = max(total.n_candidates, summary.n_candidates)
        total.users = [merge_ids(total.users + summary.users)]
        total.items = [merge_ids(total.items + summary.items)]
        total.titles += summary.titles
        total.item_names.merge(summary.item_names)
        total.user_names.merge(summary.user_names)
        _widen(total, summary.time_ranges)
        total.timeless = summary.timeless | total.timeless
    total.users, total.items = (
        [sort_ids(merge_ids(total.users))],
        [sort_ids(merge_ids(total.items))],
    )
    return total


def has_times(summary: Summary, split: int) -> bool:
    """Return whether the rows of a split (by code) have times that differ."""
    ranges = [found for (code, _, _), found in summary.time_ranges.items() if code == split]
    return bool(ranges) and min(found.first for found in ranges) < max(
        found.last for found in ranges
    )


def _largest(first: float | None, second: float | None) -> float | None:
    values = [value for value in (first, second) if value is not None]
    return max(values) if values else None


def _widen(summary: Summary, ranges: dict[RangeKey, TimeRange]) -> None:
    for key, found in ranges.items():
        known = summary.time_ranges.get(key)
        summary.time_ranges[key] = found if known is None else known | found
