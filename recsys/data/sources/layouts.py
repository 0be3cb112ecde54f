"""Layouts of data sets: which files hold the interactions of a split, candidates and titles.

The first step from a data set's name or path to its rows. A layout is recognised from the names of
files; their formats and columns are found later, by the readers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path, PurePosixPath

from recsys.config.sections import DataConfig, FilesConfig
from recsys.data.sources.catalog import CATALOG, EMBEDDED, find_download, find_embedded
from recsys.data.sources.files import DataFile, archive_members, open_raw
from recsys.data.splits import SPLITS, Split
from recsys.errors import InputError
from recsys.storage.files import require_readable

_TITLES = {
    "u.data": "u.item",
    "ratings.dat": "movies.dat",
    "ratings.csv": "movies.csv",
    "ratings.parquet": "movies.parquet",
}
"""MovieLens' rating files, each with the file of its movies."""


@dataclass(frozen=True)
class Source:
    """The files of a data set.

    `splits`: the files of each split, in the order in which they are read; only "train" if the
    data set has no split of its own. `candidates`: the NCF layout's test.negative. `titles`:
    MovieLens' file of movies. `all_positive`: every row is a positive, whatever its rating.
    """

    name: str
    splits: dict[Split, tuple[DataFile, ...]]
    candidates: DataFile | None = None
    titles: DataFile | None = None
    all_positive: bool = False

    @property
    def split_given(self) -> bool:
        """Whether the data set has a split of its own."""
        return len(self.splits) > 1


def find_source(data: DataConfig) -> Source:
    """Return the files of `data.source` or `data.files`; download them if the catalog has them.

    Raises:
        InputError: if a path does not exist, the files have no known layout, or a download fails.
    """
    if data.files is not None:
        return _given_splits(data.files)
    if data.source == EMBEDDED:
        return _recognise(find_embedded(), EMBEDDED)
    if data.source in CATALOG:
        return _recognise(find_download(data.source), data.source)
    return source_at(data.source, "data.source")


def source_at(text: str, place: str) -> Source:
    """Return the files at a path. `place`: what an error names.

    Raises:
        InputError: if the path does not exist; if the files have no known layout.
    """
    return _recognise(_existing(text, place), text)


def _given_splits(given: FilesConfig) -> Source:
    splits: dict[Split, tuple[DataFile, ...]] = {}
    titles = None
    for split in SPLITS:
        text = getattr(given, split)
        if text is None:
            continue
        source = _recognise(_existing(text, f"data.files.{split}"), text)
        if source.split_given:
            raise InputError(
                f"data.files.{split}",
                "must hold one split",
                found=f"{text} holds {' and '.join(source.splits)}",
                remedy="Pass it as data.source.",
            )
        splits[split] = source.splits["train"]
        titles = titles or source.titles
    return Source(given.train, splits, titles=titles)


def _existing(text: str, place: str) -> Path:
    path = Path(text).expanduser()
    with require_readable(path):
        if path.exists():
            return path
        siblings = list(path.parent.iterdir()) if path.parent.is_dir() else []
    names = [*CATALOG, EMBEDDED] if place == "data.source" else []
    beside = [str(path.parent / entry.name) for entry in siblings]
    near = get_close_matches(text, [*names, *beside], n=1)
    hint = f"Did you mean {near[0]}?" if near else "Check the path."
    if names and not near:
        hint = f"Check the path, or choose one of {', '.join(sorted(names))}."
    raise InputError(
        place, f"must be {('a data set or ' if names else '')}a path that exists", f"{text!r}", hint
    )


def _recognise(path: Path, name: str) -> Source:
    """Return the files of a folder, a zip or a single file; `name`: the source's."""
    if path.is_dir():
        with require_readable(path):
            names = _visible_files(path)
        files = {entry: DataFile(str((path / entry).absolute())) for entry in names}
        return _recognise_names(names, files, path.name, name)
    with open_raw(path) as stream:
        head = stream.read(4)
    if not head:
        raise InputError(
            path.name,
            "must hold interactions",
            found="the file is empty",
            remedy="Give a file with user and item columns.",
        )
    if head == b"PK\x03\x04":
        names = archive_members(path)
        files = {entry: DataFile(str(path.absolute()), entry) for entry in names}
        return _recognise_names(names, files, path.name, name)
    titles = None
    beside = _TITLES.get(path.name.removesuffix(".gz"))
    if beside is not None and path.with_name(beside).is_file():
        titles = DataFile(str(path.with_name(beside).absolute()))
    return Source(name, {"train": (DataFile(str(path.absolute())),)}, titles=titles)


def _visible_files(folder: Path) -> list[str]:
    """Return the relative paths of a folder's files, except any in or named `.NAME` or `_NAME`."""
    names = sorted(
        entry.relative_to(folder).as_posix() for entry in folder.rglob("*") if entry.is_file()
    )
    return [
        name
        for name in names
        if not any(step.startswith((".", "_")) for step in PurePosixPath(name).parts)
    ]


def _recognise_names(
    names: Sequence[str], files: dict[str, DataFile], label: str, name: str
) -> Source:
    """Return the files of a folder or a zip with these names; `label`: its own, for errors."""
    by_depth = sorted(names, key=lambda entry: (entry.count("/"), entry))
    for entry in by_depth:
        stem = entry.removesuffix(".train.rating")
        if stem != entry and f"{stem}.test.rating" in files:
            return Source(
                name,
                {"train": (files[entry],), "test": (files[f"{stem}.test.rating"],)},
                candidates=files.get(f"{stem}.test.negative"),
                all_positive=True,
            )
    for entry in by_depth:
        beside = _TITLES.get(PurePosixPath(entry).name.removesuffix(".gz"))
        if beside is not None:
            titles = files.get(str(PurePosixPath(entry).with_name(beside)))
            return Source(name, {"train": (files[entry],)}, titles=titles)
    parquet = [entry for entry in names if entry.endswith((".parquet", ".pq"))]
    if parquet or len(names) == 1:
        return Source(name, {"train": tuple(files[entry] for entry in parquet or names)})
    listed = ", ".join(by_depth[:5]) + (", ..." if len(names) > 5 else "") if names else "nothing"
    raise InputError(
        label,
        "must hold u.data, ratings.dat, ratings.csv, Parquet files or NAME.train.rating with "
        "NAME.test.rating",
        found=f"holds {listed}",
        remedy="Pass the file with the interactions.",
    )
