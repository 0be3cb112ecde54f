"""Name of a processed folder: a hash of everything that shapes its content."""

import hashlib
import json
from collections.abc import Sequence
from io import BufferedReader
from pathlib import Path
from typing import Any, cast

from recsys.config.schema import Config
from recsys.data.manifest import FORMAT_VERSION
from recsys.data.resolve import uses_candidates
from recsys.data.sources.files import open_raw
from recsys.data.sources.layouts import Source
from recsys.storage.files import write_atomically
from recsys.storage.s3 import fetch


def shaping_settings(config: Config, source: Source) -> dict[str, Any]:
    """Return every config value that shapes the processed data of a source, by config path."""
    data = config.data
    names = [
        "columns",
        "positive_threshold",
        "min_user_interactions",
        "min_item_interactions",
        "split_seed",
        "n_negatives",
    ]
    if not source.split_given:
        names += ["split"] + ["test_fraction", "validation_fraction"] * (
            data.split != "leave_one_out"
        )
    tree = data.model_dump()
    settings = {f"data.{name}": tree[name] for name in names}
    if source.all_positive:
        settings["data.positive_threshold"] = None
    if uses_candidates(config, source.candidates is not None):
        settings["evaluation.n_candidates"] = config.evaluation.n_candidates
    return settings


def source_checksum(source: Source, memory: Path) -> str:
    """Return a SHA-256 over the contents of the source's files and their roles.

    `memory`: JSON file that keeps checksums by path, size and time of change, so that big files are
    read once.
    """
    fetch(memory)
    checksums = _read_memory(memory)
    before = dict(checksums)
    digest = hashlib.sha256()
    for split, files in source.splits.items():
        for file in files:
            digest.update(
                f"{split} {file.member} {_file_checksum(file.path, checksums)}\n".encode()
            )
    for role, extra in (("candidates", source.candidates), ("titles", source.titles)):
        if extra is not None:
            digest.update(f"{role} {extra.name} {_file_checksum(extra.path, checksums)}\n".encode())
    if checksums != before:
        with write_atomically(memory) as temporary:
            temporary.write_text(json.dumps(checksums))
    return digest.hexdigest()


def fingerprint(checksum: str, settings: dict[str, Any]) -> str:
    """Return the folder name of data with this content and these settings."""
    text = json.dumps([FORMAT_VERSION, checksum, settings], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _read_memory(memory: Path) -> dict[str, Sequence[Any]]:
    try:
        checksums = json.loads(memory.read_bytes())
    except (OSError, ValueError):
        return {}
    return checksums if isinstance(checksums, dict) else {}


def _file_checksum(path: str, checksums: dict[str, Sequence[Any]]) -> str:
    status = Path(path).stat()
    entry = checksums.get(path)
    if (
        isinstance(entry, list)
        and len(entry) == 3
        and entry[:2] == [status.st_size, status.st_mtime_ns]
    ):
        return str(entry[2])
    with open_raw(path) as stream:
        checksum = hashlib.file_digest(cast(BufferedReader, stream), "sha256").hexdigest()
    checksums[path] = [status.st_size, status.st_mtime_ns, checksum]
    return checksum
