"""The pipeline from the files of a source to processed data.

Every step is an execution of Ray Data tasks: the first pass, the second pass, rounds of a k-core
if asked for, and the output of the buckets. The driver lists fragments and merges summaries; rows
never pass through it.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from recsys.cluster.connection import connect
from recsys.cluster.shared_paths import require_on_all_nodes
from recsys.config.schema import Config
from recsys.data.manifest import FORMAT_VERSION, Manifest, read_manifest
from recsys.data.preprocessing.bucket_splits import Plan, make_plan
from recsys.data.preprocessing.buckets import read_bucket
from recsys.data.preprocessing.checks import check_core, check_result, check_summary
from recsys.data.preprocessing.fingerprint import fingerprint, shaping_settings, source_checksum
from recsys.data.preprocessing.first_pass import Summary, merge, summarise
from recsys.data.preprocessing.ids import Ids, write_ids
from recsys.data.preprocessing.item_titles import titles_from_names, titles_of
from recsys.data.preprocessing.k_core import Core, find_core, new_codes, recode_bucket
from recsys.data.preprocessing.processed_files import BucketResult, total_result, write_bucket
from recsys.data.preprocessing.second_pass import encode
from recsys.data.preprocessing.split_strategies import temporal_cuts
from recsys.data.preprocessing.tasks import limit_cpus, run_tasks, stream_tasks
from recsys.data.preprocessing.time_encoding import choose_encoding, describe_times
from recsys.data.processed import Processed
from recsys.data.readers.columns import wants_titles
from recsys.data.readers.formats import list_fragments
from recsys.data.readers.fragments import Fragment
from recsys.data.readers.ids import describe_blanks
from recsys.data.readers.titles import read_titles
from recsys.data.resolve import resolve
from recsys.data.sources.layouts import Source, find_source
from recsys.errors import Argument
from recsys.storage.files import replace_folder, temporary_sibling, write_atomically
from recsys.storage.path_errors import require_writable
from recsys.storage.s3 import fetch_folder, remove, url_of

BUCKET_ROWS = 1 << 20
"""Approximate rows of a bucket, which a task holds in memory."""
MAX_BUCKETS = 512

_COUNTS = (
    *("n_interactions", "n_positives", "n_low", "n_train", "n_validation", "n_test"),
    *("n_duplicates", "n_overlaps", "n_cold_validation_users", "n_cold_users"),
)
"""Counts of the buckets that the manifest holds."""

_log = logging.getLogger(__name__)


def prepare(config: Config, folder: Path, join: Callable[[Config], None] = connect) -> Processed:
    """Return the processed data of a config: those in `folder`, or new ones that are written there.

    Args:
        config: the config.
        folder: folder of experiments, which every node must see.
        join: joins the cluster before anything runs on it; may raise.

    Raises:
        InputError: if the source cannot be read, if `folder` cannot be written, or if the source
            breaks a rule, alone or together with a setting.
    """
    started = time.monotonic()
    require_writable(folder)
    source = find_source(config.data)
    root = folder.absolute() / "processed"
    checksum = source_checksum(source, root / "checksums.json")
    settings = shaping_settings(config, source)
    name = fingerprint(checksum, settings)
    path = root / name
    fetch_folder(path)
    manifest = read_manifest(path)
    if manifest is None:
        fragments = list_fragments(source, config.data.columns)
        join(config)
        _require_paths(source, root.parent)
        limit_cpus(config.resources.preprocess_cpus)
        about = {"source": source.name, "checksum": checksum, "settings": settings}
        manifest = _create(config, source, fragments, path, about, started=started)
        _log.info("Prepared %s in %s (%.1f s)", source.name, path, manifest.seconds)
        for note in manifest.notes:
            _log.warning("%s: %s.", source.name, note)
    resolve(config, manifest)
    return Processed(path, name, manifest)


def _require_paths(source: Source, folder: Path) -> None:
    """Check that all nodes see the folder and the source's files."""
    require_on_all_nodes(Argument("folder"), folder)
    files = [file for files in source.splits.values() for file in files]
    paths = (Path(file.path) for file in [*files, source.candidates] if file is not None)
    require_on_all_nodes(f"data.source ({source.name})", *paths)


def _create(
    config: Config,
    source: Source,
    fragments: Sequence[Fragment],
    path: Path,
    about: dict[str, Any],
    *,
    started: float,
) -> Manifest:
    """Write the processed folder `path`; return its manifest, of which `about` is a part."""
    with temporary_sibling(path) as temporary:
        # Nothing can be renamed in S3: tasks write into the folder itself. It counts as missing
        # until it has its manifest, which is written last.
        target = temporary if url_of(path) is None else path
        remove(target / "manifest.json")
        made = _make(config, source, fragments, target)
        fetch_folder(target)
        manifest = Manifest(
            format_version=FORMAT_VERSION,
            seconds=round(time.monotonic() - started, 3),
            files={file.name: file.stat().st_size for file in sorted(target.glob("[!.]*"))},
            **about,
            **made,
        )
        with write_atomically(target / "manifest.json") as file:
            file.write_text(manifest.model_dump_json(indent=2) + "\n")
        if target != path:
            _move(temporary, path)
    return manifest


def _move(made: Path, path: Path) -> None:
    """Rename a new folder, unless another process has made the same, which may be in use."""
    try:
        made.rename(path)
    except OSError:
        if read_manifest(path) is None:
            replace_folder(made, path)


def _make(
    config: Config, source: Source, fragments: Sequence[Fragment], target: Path
) -> dict[str, Any]:
    """Write the processed files into `target`; return the manifest's counts and notes."""
    threshold = None if source.all_positive else config.data.positive_threshold
    summaries = stream_tasks(
        len(fragments),
        lambda number: summarise(fragments[number], threshold),
        rows=lambda found: found.n_rows,
    )
    summary = merge(summaries)
    ranges = list(summary.time_ranges.values())
    encoding = choose_encoding(ranges)
    check_summary(summary, source, config)
    ids, notes = _collect_ids(config, source, summary, fragments)
    n_buckets = min(-(-summary.n_rows // BUCKET_ROWS), MAX_BUCKETS)
    with temporary_sibling(target) as work:
        encode(
            run_tasks,
            fragments=fragments,
            threshold=threshold,
            ids=(ids.users, ids.items),
            encoding=encoding,
            work=work,
            n_buckets=n_buckets,
        )
        plan = make_plan(config, source, summary)
        core = _filter(plan, config, work, ids, n_buckets)
        result, ids = _write_buckets(plan, core, ids, work=work, target=target, n_buckets=n_buckets)
    check_result(result, source, config, ids.users, len(ids.items))
    write_ids(ids, target)
    times = [describe_times(ranges)] if ranges else []
    return {
        "n_users": len(ids.users),
        "n_items": len(ids.items),
        "has_times": plan.has_times,
        "n_candidates_given": plan.n_candidates_given,
        **{name: result.counts[name] for name in _COUNTS},
        "n_validation_users": result.counts.get("n_validation_users"),
        "notes": [*times, *describe_blanks(fragments, ids.users, ids.items), *notes],
    }


def _collect_ids(
    config: Config, source: Source, summary: Summary, fragments: Sequence[Fragment]
) -> tuple[Ids, list[str]]:
    """Return the ids and titles of the source, and notes on the titles."""
    from_names = titles_from_names(summary.item_names, summary.user_names)
    from_files = (
        [read_titles(source.titles)]
        if source.titles is not None and wants_titles(config.data.columns)
        else []
    )
    users, items = summary.users[0], summary.items[0]
    ids = Ids(users, items, titles_of(items, [*summary.titles, *from_names, *from_files]))
    if any("name" in fragment.columns for fragment in fragments) and not from_names:
        return ids, [
            "the column name may be the users' and gives no titles; "
            "data.columns.title=name takes them from it"
        ]
    return ids, []


def _filter(plan: Plan, config: Config, work: Path, ids: Ids, n_buckets: int) -> Core | None:
    """Return the k-core if one is asked for, or if a temporal split needs its times; else None."""
    least = max(config.data.min_user_interactions, config.data.min_item_interactions)
    if least == 1 and plan.strategy != "temporal":
        return None
    core = find_core(run_tasks, config, work, len(ids.items), n_buckets)
    check_core(len(core.users), len(core.items), config)
    return core


def _write_buckets(
    plan: Plan, core: Core | None, ids: Ids, *, work: Path, target: Path, n_buckets: int
) -> tuple[BucketResult, Ids]:
    """Write the files of all buckets; return their total and the ids that are left."""
    n_items_read, codes = len(ids.items), None
    if core is not None:
        codes = new_codes(core.users, len(ids.users)), new_codes(core.items, n_items_read)
        ids = ids.take(core.users, core.items)
        plan = replace(plan, n_users=len(ids.users), n_items=len(ids.items))
        if plan.strategy == "temporal":
            validation_start, test_start = temporal_cuts(
                core.times, core.time_counts, plan.test_fraction, plan.validation_fraction
            )
            plan = replace(plan, validation_start=validation_start, test_start=test_start)

    def task(number: int) -> BucketResult:
        bucket = read_bucket(work, number, n_items_read)
        if codes is not None:
            bucket = recode_bucket(bucket, *codes)
        return write_bucket(bucket, plan, target, number)

    result = total_result(run_tasks(n_buckets, task))
    result.counts += Counter() if core is None else core.counts
    return result, ids
