"""Checks of the data as a whole, after the first pass, after a k-core, and at the end."""

from collections.abc import Sequence

import pyarrow as pa

from recsys.config.schema import Config
from recsys.data.preprocessing.first_pass import Summary, has_times
from recsys.data.preprocessing.processed_files import BucketResult
from recsys.data.sources.layouts import Source
from recsys.data.splits import SPLITS
from recsys.errors import InputError


def check_summary(summary: Summary, source: Source, config: Config) -> None:
    """Check the summary of the first pass.

    Raises:
        InputError: if there is no row, fewer than two users or no positive, if the split strategy
            needs times and there are none, or if only some files of a split have times.
    """
    if summary.n_rows == 0:
        raise InputError(
            source.name,
            "must hold interactions",
            found="has no row",
            remedy="Give a file with at least one row.",
        )
    n_users = len(summary.users[0])
    if n_users < 2:
        raise InputError(
            source.name,
            "must hold at least 2 users",
            n_users,
            "Check that data.columns.user names the users' column.",
        )
    if summary.n_positives == 0:
        raise InputError(
            "data.positive_threshold",
            f"must be at most the largest rating, {summary.rating_max:g}",
            f"{config.data.positive_threshold:g}",
            "Lower it, so that there are positives.",
        )
    _check_times(summary, source, config)


def _check_times(summary: Summary, source: Source, config: Config) -> None:
    for split, file, _ in summary.time_ranges:
        if (timeless := summary.timeless.get(split)) is not None:
            raise InputError(
                timeless.label,
                f"must have times like {file.label}",
                found="has no column with times",
                remedy="Name it with data.columns.timestamp.",
            )
    needs_times = not source.split_given and config.data.split in ("leave_one_out", "temporal")
    if needs_times and not has_times(summary, 0):
        why = "all its times are equal" if summary.time_ranges else "it has no column with times"
        raise InputError(
            "data.split",
            f"{config.data.split} needs times",
            found=f"{source.name} has none: {why}",
            remedy="Name the column with data.columns.timestamp, or set data.split to random.",
        )


def check_core(n_users: int, n_items: int, config: Config) -> None:
    """Check the size of a k-core.

    Raises:
        InputError: if it has fewer than two users or no item.
    """
    if n_users < 2 or n_items < 1:
        asked = f"{config.data.min_user_interactions} and {config.data.min_item_interactions}"
        left = f"{n_users} user{'s' * (n_users != 1)} and {n_items} item{'s' * (n_items != 1)}"
        raise InputError(
            "data.min_user_interactions, data.min_item_interactions",
            "must leave at least 2 users and 1 item",
            found=f"{asked} leave {left}",
            remedy="Lower them.",
        )


def check_result(
    result: BucketResult, source: Source, config: Config, users: pa.Array, n_items: int
) -> None:
    """Check the total of all buckets' results.

    `users`: the data's own user ids by contiguous id, to name users.

    Raises:
        InputError: if a user has too few unseen items or lacks given candidates, or if a split has
            no positive.
    """
    if result.saturated:
        raise InputError(
            source.name,
            "each user must have an item left to draw as a negative",
            found=f"{_named(result.saturated, users)} interacted with all {n_items} items",
            remedy=f"Remove {'it' if len(result.saturated) == 1 else 'them'}.",
        )
    if result.short:
        wanted = config.evaluation.n_candidates
        raise InputError(
            "evaluation.n_candidates",
            "must be at most the unseen items of each held-out user",
            found=f"{_named(result.short, users)} have fewer than {wanted}",
            remedy="Lower it, or set evaluation.protocol to full.",
        )
    if result.unmatched:
        label = source.candidates.label if source.candidates is not None else source.name
        raise InputError(
            label,
            "must have a line for each test pair",
            found=f"{_named(result.unmatched, users)} lack one",
            remedy="Add the lines.",
        )
    _check_splits(result, source, config)


def _check_splits(result: BucketResult, source: Source, config: Config) -> None:
    remedies = {
        "leave_one_out": "It takes a user with 3 positives. Lower data.positive_threshold, or set "
        "data.split to random.",
        "random": "Raise data.test_fraction and data.validation_fraction, or give more data.",
        "temporal": "Raise data.test_fraction and data.validation_fraction, or set data.split to "
        "leave_one_out.",
        "users": "It takes users with 2 positives. Change data.test_fraction, "
        "data.validation_fraction or data.split_seed, or give more data.",
    }
    remedy = (
        "Give users of test and validation a positive in train."
        if source.split_given
        else remedies[config.data.split]
    )
    for split in SPLITS:
        if result.counts[f"n_{split}"] == 0:
            n_cold = result.counts[f"n_{split}_cold"]
            why = (
                f"none is left ({n_cold} are of users without one in an earlier split)"
                if n_cold
                else "there is none"
            )
            raise InputError(
                source.name, f"must have a positive in {split}", found=why, remedy=remedy
            )


def _named(codes: Sequence[int], users: pa.Array) -> str:
    """Return the number of users and the names of the first few."""
    names = ", ".join(str(users[code].as_py()) for code in codes[:5])
    more = ", ..." if len(codes) > 5 else ""
    return f"{len(codes)} user{'s' * (len(codes) != 1)} ({names}{more})"
