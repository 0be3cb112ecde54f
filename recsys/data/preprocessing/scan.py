"""First walk over the data: what ids, titles, times and counts there are.

Each fragment is summarised by a task; the driver merges the summaries and never sees a row.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys.data.preprocessing.clock import Span, span_of
from recsys.data.preprocessing.item_titles import Names, first_titles
from recsys.data.readers.candidates import POSITION_BITS
from recsys.data.readers.formats import read
from recsys.data.readers.fragments import CANDIDATES, Fragment
from recsys.data.sources.files import DataFile
from recsys.errors import InputError


@dataclass
class Summary:
    """What a fragment, or the whole source, holds.

    `error`: why the fragment cannot be read, everything else then being incomplete. `users`, `items`: arrays of distinct ids.
    `titles`: table of item and title. `spans`: times by part, file and whether they are dates. `timeless`: a file
    without times by part. `n_candidates`: most candidates of a held-out item in a candidate file.
    `item_names`, `user_names`: what a column `name` calls them.
    """

    error: InputError | None = None
    n_rows: int = 0
    n_positives: int = 0
    rating_max: float | None = None
    users: list[pa.Array] = field(default_factory=list)
    items: list[pa.Array] = field(default_factory=list)
    titles: list[pa.Table] = field(default_factory=list)
    spans: dict[tuple[int, DataFile, bool], Span] = field(default_factory=dict)
    timeless: dict[int, DataFile] = field(default_factory=dict)
    n_candidates: int = 0
    item_names: Names = field(default_factory=Names)
    user_names: Names = field(default_factory=Names)


def summarise(fragment: Fragment, threshold: float | None) -> Summary:
    """Summarise a fragment. What breaks a rule is returned as `error`, so that the first one in file order can be shown."""
    summary = Summary()
    try:
        for batch in read(fragment, threshold):
            summary.users.append(batch.user.dictionary)
            summary.items.append(batch.item.dictionary)
            if fragment.split == CANDIDATES:
                summary.n_candidates = max(
                    summary.n_candidates,
                    int((batch.order & ((1 << POSITION_BITS) - 1)).max(initial=0)),
                )
                continue
            summary.n_rows += len(batch.order)
            summary.n_positives += int(batch.positive.sum())
            summary.rating_max = _largest(summary.rating_max, batch.rating_max)
            if batch.time is None:
                summary.timeless[fragment.split] = fragment.file
            elif len(batch.order):
                place = fragment.split, fragment.file, batch.time.is_date
                _widen(summary, {place: span_of(fragment.file, batch.time)})
            if batch.title is not None:
                user, item = (
                    column.dictionary.take(column.indices) for column in (batch.user, batch.item)
                )
                if "name" in fragment.columns:
                    summary.item_names.add(item, batch.title)
                    summary.user_names.add(user, batch.title)
                else:
                    summary.titles.append(
                        first_titles(pa.table({"item": item, "title": batch.title}))
                    )
    except InputError as error:
        return Summary(error=error)
    summary.users, summary.items = [merge_ids(summary.users)], [merge_ids(summary.items)]
    return summary


def merge(summaries: Iterable[Summary]) -> Summary:
    """The summary of the whole source, ids sorted. Holds one summary at a time beside what it has merged.

    Raises:
        InputError: if a fragment could not be read: the error of the first one.
    """
    total = Summary()
    for summary in summaries:
        if summary.error is not None:
            raise summary.error
        total.n_rows += summary.n_rows
        total.n_positives += summary.n_positives
        total.rating_max = _largest(total.rating_max, summary.rating_max)
        total.n_candidates = max(total.n_candidates, summary.n_candidates)
        total.users, total.items = (
            [merge_ids(total.users + summary.users)],
            [merge_ids(total.items + summary.items)],
        )
        total.titles += summary.titles
        total.item_names.merge(summary.item_names)
        total.user_names.merge(summary.user_names)
        _widen(total, summary.spans)
        total.timeless = summary.timeless | total.timeless
    total.users, total.items = [_sorted(merge_ids(total.users))], [_sorted(merge_ids(total.items))]
    return total


def merge_ids(arrays: Sequence[pa.Array]) -> pa.Array:
    """Distinct ids of all arrays: integers where all of them are, text otherwise."""
    if not arrays:
        return pa.array([], pa.int64())
    filled = [array for array in arrays if len(array)] or [arrays[0]]
    if any(array.type == pa.string() for array in filled):
        filled = [pc.cast(array, pa.string()) for array in filled]
    return pc.unique(pa.chunked_array(filled))


def codes_of(
    column: pa.DictionaryArray, ids: pa.Array
) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    """Contiguous ids (n,) int32 of a column, by place in the sorted `ids`.

    Raises:
        RuntimeError: if an id is not among them: the files changed between the two walks.
    """
    code = pc.index_in(pc.cast(column.dictionary, ids.type), value_set=ids)
    if code.null_count:
        raise RuntimeError("The source files changed while they were read. Start again.")
    result: np.ndarray[tuple[int], np.dtype[np.int32]] = code.to_numpy()[column.indices.to_numpy()]
    return result


def _sorted(ids: pa.Array) -> pa.Array:
    return ids.take(pc.sort_indices(ids))


def _largest(first: float | None, second: float | None) -> float | None:
    values = [value for value in (first, second) if value is not None]
    return max(values) if values else None


def _widen(summary: Summary, spans: dict[tuple[int, DataFile, bool], Span]) -> None:
    for place, span in spans.items():
        summary.spans[place] = summary.spans[place] | span if place in summary.spans else span
