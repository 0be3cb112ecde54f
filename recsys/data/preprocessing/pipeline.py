"""From files to the processed form, as Ray Data work in few executions.

The driver lists fragments and merges summaries; tasks read, encode and lay rows down by bucket of users (one file a fragment and
bucket), then take a bucket each. Rows never pass through the driver, and executions without a shuffle cost hundredths of a
second where Ray Data's hash shuffle starts actors for seconds. Of the data's modules this one and `nodes` work with ray.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recsys.cluster.connection import connect
from recsys.cluster.shared_paths import require_on_all_nodes
from recsys.config.schema import Config
from recsys.console.verbosity import progress
from recsys.data.preprocessing.bucket_files import Plan
from recsys.data.preprocessing.checks import check_core, check_result, check_summary, has_times
from recsys.data.preprocessing.clock import describe_times, find_clock
from recsys.data.preprocessing.fingerprint import fingerprint, shaping_settings, source_checksum
from recsys.data.preprocessing.item_titles import titles_from_names, titles_of
from recsys.data.preprocessing.scan import Summary, merge, summarise
from recsys.data.preprocessing.stages import encode, find_core, find_cuts, write
from recsys.data.processed import (
    FORMAT_VERSION,
    Manifest,
    Processed,
    read_manifest,
    resolve,
    uses_candidates,
)
from recsys.data.readers.columns import wants_titles
from recsys.data.readers.formats import list_fragments
from recsys.data.readers.fragments import Fragment
from recsys.data.readers.ids import describe_blanks
from recsys.data.readers.titles import read_titles
from recsys.data.sources.layouts import Source, find_source
from recsys.data.splits import TRAIN
from recsys.storage.files import replace_folder, temporary_sibling, write_atomically
from recsys.storage.path_errors import require_writable
from recsys.storage.s3 import fetch_folder, remove, url_of

BUCKET_ROWS = 1 << 20
"""Rows of a bucket, about: what one task holds in memory."""

MAX_BUCKETS = 512
_SECONDS_A_LINE = 2.0

_COUNTS = (
    *("n_interactions", "n_positives", "n_low", "n_train", "n_validation", "n_test"),
    *("n_duplicates", "n_overlaps", "n_cold_validation_users", "n_cold_users"),
)

_log = logging.getLogger(__name__)


def prepare(config: Config, folder: Path, join: Callable[[Config], None] = connect) -> Processed:
    """The processed data of a config in `folder`, which every node must see: what lies there already, or made anew.

    `join`: joins the cluster before it is asked for anything, and may refuse it.

    Raises:
        InputError: if the source cannot be had, or the folder cannot be written; if the source, or a setting together with it,
            breaks a rule.
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
        require_on_all_nodes("folder", root.parent)
        require_on_all_nodes(
            f"data.source ({source.name})",
            *(Path(file.path) for files in source.splits.values() for file in files),
        )
        _limit_cpus(config.resources.preprocess_cpus)
        with temporary_sibling(path) as temporary:
            # In S3 tasks write into the place itself, as nothing is renamed there: with the manifest it is whole.
            target = temporary if url_of(path) is None else path
            remove(target / "manifest.json")
            made = _make(config, source, fragments, target)
            fetch_folder(target)
            files = {file.name: file.stat().st_size for file in sorted(target.glob("[!.]*"))}
            manifest = Manifest(
                format_version=FORMAT_VERSION,
                source=source.name,
                checksum=checksum,
                settings=settings,
                seconds=round(time.monotonic() - started, 3),
                files=files,
                **made,
            )
            with write_atomically(target / "manifest.json") as file:
                file.write_text(manifest.model_dump_json(indent=2) + "\n")
            if target != path:
                _put_in_place(temporary, path)
        _log.info("Prepared %s in %s (%.1f s)", source.name, path, manifest.seconds)
        for note in manifest.notes:
            _log.warning("%s: %s.", source.name, note)
    resolve(config, manifest)
    return Processed(path, name, manifest)


def _limit_cpus(n_cpus: int | None) -> None:
    """Let all executions from now on take this many CPUs at a time, all where it is None."""
    from ray.data import DataContext, ExecutionResources

    DataContext.get_current().execution_options.resource_limits = ExecutionResources.for_limits(
        cpu=n_cpus
    )


def _put_in_place(made: Path, path: Path) -> None:
    """Rename what was made to its place, unless another process made the same meanwhile: that one is being read already."""
    try:
        made.rename(path)
    except OSError:
        if read_manifest(path) is None:
            replace_folder(made, path)


def _make(
    config: Config, source: Source, fragments: Sequence[Fragment], target: Path
) -> dict[str, Any]:
    """Write the processed files into `target`; the manifest's counts and notes."""
    threshold = None if source.all_positive else config.data.positive_threshold
    read = _stream(
        len(fragments),
        lambda number: summarise(fragments[number], threshold),
        rows=lambda found: found.n_rows,
    )
    summary = merge(read)
    spans = list(summary.spans.values())
    clock = find_clock(spans)
    check_summary(summary, source, config)
    users, items = summary.users[0], summary.items[0]
    from_names = titles_from_names(summary.item_names, summary.user_names)
    from_files = (
        [read_titles(source.titles)]
        if source.titles is not None and wants_titles(config.data.columns)
        else []
    )
    titles = titles_of(items, [*summary.titles, *from_names, *from_files])
    n_buckets = min(-(-summary.n_rows // BUCKET_ROWS), MAX_BUCKETS)
    plan, n_read = _plan(config, source, summary), (len(users), len(items))
    with temporary_sibling(target) as work:
        encode(
            _run,
            fragments=fragments,
            threshold=threshold,
            ids=(users, items),
            clock=clock,
            work=work,
            n_buckets=n_buckets,
        )
        core = None
        if (
            plan.split == "temporal"
            or max(config.data.min_user_interactions, config.data.min_item_interactions) > 1
        ):
            core = find_core(_run, config, work, len(items), n_buckets)
            check_core(len(core.users), len(core.items), config)
            if plan.split == "temporal":
                validation_start, test_start = find_cuts(core, config)
                plan = replace(plan, validation_start=validation_start, test_start=test_start)
            users, items, titles = (
                users.take(core.users),
                items.take(core.items),
                titles.take(core.items),
            )
        plan = replace(plan, n_users=len(users), n_items=len(items))
        result = write(
            _run, plan=plan, core=core, work=work, target=target, n_buckets=n_buckets, n_read=n_read
        )
    check_result(result, source, config, users, len(items))
    _write_ids(users, items, titles, target)
    counts = {name: result.counts[name] for name in _COUNTS}
    notes = [*([describe_times(spans)] if spans else []), *describe_blanks(fragments, users, items)]
    if any("name" in fragment.columns for fragment in fragments) and not from_names:
        notes.append(
            "the column name may be the users' and gives no titles; data.columns.title=name takes them from it"
        )
    sizes = {
        "n_users": len(users),
        "n_items": len(items),
        "n_candidates_given": plan.n_candidates_given,
    }
    return {**sizes, **counts, "notes": notes}


def _plan(config: Config, source: Source, summary: Summary) -> Plan:
    data = config.data
    given = "given" if "validation" in source.splits else "given_without_validation"
    return Plan(
        n_users=len(summary.users[0]),
        n_items=len(summary.items[0]),
        split=given if source.split_given else data.split,  # type: ignore[arg-type]
        seed=data.split_seed,
        n_negatives=data.n_negatives,
        has_times=has_times(summary, TRAIN),
        test_fraction=data.test_fraction,
        validation_fraction=data.validation_fraction,
        n_candidates=config.evaluation.n_candidates
        if uses_candidates(config, source.candidates is not None)
        else None,
        n_candidates_given=None if source.candidates is None else summary.n_candidates,
    )


def _write_ids(users: pa.Array, items: pa.Array, titles: pa.Array, target: Path) -> None:
    user = pa.array(np.arange(len(users), dtype=np.int32))
    with write_atomically(target / "users.parquet") as file:
        pq.write_table(pa.table({"user": user, "user_id": users}), file, write_page_checksum=True)
    item = pa.array(np.arange(len(items), dtype=np.int32))
    table = pa.table({"item": item, "item_id": items, "title": titles})
    with write_atomically(target / "items.parquet") as file:
        pq.write_table(table, file, write_page_checksum=True)


def _run(n: int, task: Callable[..., Any], *shared: Any) -> list[Any]:
    """The results of `_stream`, all at once."""
    return list(_stream(n, task, *shared))


def _stream(
    n: int, task: Callable[..., Any], *shared: Any, rows: Callable[[Any], int] | None = None
) -> Iterator[Any]:
    """Run `task(0, *shared)`, ..., `task(n - 1, *shared)` as one execution of Ray Data; yield their results in this order.

    `rows`: how many rows a result stands for, shown as progress.
    """
    import ray.data

    if n == 0:
        return
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    stored = ray.put(shared)

    def apply(batch: Any) -> Any:
        # Ray Data warns that a result is no Arrow value.
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        results = np.empty(len(batch["number"]), dtype=object)
        for place, number in enumerate(batch["number"]):
            results[place] = task(int(number), *ray.get(stored))
        return {"number": batch["number"], "result": results}

    numbers = ray.data.from_items(
        [{"number": number} for number in range(n)], override_num_blocks=n
    )
    mapped = numbers.map_batches(apply, batch_size=None, batch_format="numpy", zero_copy_batch=True)
    waiting: dict[int, Any] = {}
    turn = n_done = n_rows = 0
    with progress("Preparing" if rows is None else "Reading", _SECONDS_A_LINE) as show:
        for row in mapped.iter_rows():
            waiting[row["number"]] = row["result"]
            n_done += 1
            n_rows += 0 if rows is None else rows(row["result"])
            show(f"part {n_done:,} of {n:,}" + ("" if rows is None else f", {n_rows:,} rows"))
            # What came before its turn waits; the rest is handed on, so that the driver never holds all of it.
            while turn in waiting:
                yield waiting.pop(turn)
                turn += 1
