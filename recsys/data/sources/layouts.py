"""From a path to the files that make a data set: which hold interactions of which part, candidates and titles.

Stands behind the catalog and before the readers. Layouts are recognised from content and name.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path, PurePosixPath

from recsys.config.sections import DataConfig
from recsys.data.sources.catalog import CATALOG, EMBEDDED, find_download, find_embedded
from recsys.data.sources.files import DataFile, archive_members, open_raw
from recsys.data.splits import SPLITS, Split
from recsys.errors import InputError

_TITLES = {
    "u.data": "u.item",
    "ratings.dat": "movies.dat",
    "ratings.csv": "movies.csv",
    "ratings.parquet": "movies.parquet",
}
"""MovieLens' rating files, each with the file of its movies."""


@dataclass(frozen=True)
class PartFiles:
    """The files of one part, read in this order."""

    part: Split
    files: tuple[DataFile, ...]


@dataclass(frozen=True)
class Source:
    """The files of a data set.

    `parts`: a single "train" where the data brings no split. `candidates`: the NCF layout's test.negative. `titles`: MovieLens'
    file of movies. `all_positive`: every row is a positive whatever its rating.
    """

    name: str
    parts: tuple[PartFiles, ...]
    candidates: DataFile | None = None
    titles: DataFile | None = None
    all_positive: bool = False

    @property
    def split_given(self) -> bool:
        """Whether the data brings its own test part."""
        return len(self.parts) > 1

    @property
    def files(self) -> tuple[DataFile, ...]:
        """Every file that shapes the result."""
        extra = [file for file in (self.candidates, self.titles) if file is not None]
        return (*(file for part in self.parts for file in part.files), *extra)


def find_source(data: DataConfig) -> Source:
    """The files that `data.source` or `data.files` mean; a data set of the catalog is downloaded where it must be.

    Raises:
        InputError: if a path is not there; if the files are in no layout that is known; if a download fails.
    """
    if data.files is None:
        if data.source == EMBEDDED:
            return _recognise(find_embedded(), EMBEDDED)
        path = (
            find_download(data.source)
            if data.source in CATALOG
            else _existing(data.source, "data.source")
        )
        return _recognise(path, data.source)
    parts: list[PartFiles] = []
    titles = None
    given = (data.files.train, data.files.validation, data.files.test)
    for part, text in zip(SPLITS, given, strict=True):
        if text is not None:
            source = _recognise(_existing(text, f"data.files.{part}"), text)
            if source.split_given:
                raise InputError(
                    f"data.files.{part}",
                    "must be one part",
                    found=f"{text} holds a split",
                    remedy="Pass it as data.source.",
                )
            parts.append(PartFiles(part, source.parts[0].files))
            titles = titles or source.titles
    return Source(data.files.train, tuple(parts), titles=titles)


def _existing(text: str, place: str) -> Path:
    path = Path(text).expanduser()
    if path.exists():
        return path
    names = [*CATALOG, EMBEDDED] if place == "data.source" else []
    beside = (
        [str(path.parent / entry.name) for entry in path.parent.iterdir()]
        if path.parent.is_dir()
        else []
    )
    near = get_close_matches(text, [*names, *beside], n=1)
    hint = f"Did you mean {near[0]}?" if near else "Check the path."
    if names and not near:
        hint = f"Check the path, or choose one of {', '.join(sorted(names))}."
    raise InputError(
        place, f"must be {('a data set or ' if names else '')}a path that exists", f"{text!r}", hint
    )


def _recognise(path: Path, name: str) -> Source:
    if path.is_dir():
        names = sorted(
            entry.relative_to(path).as_posix() for entry in path.rglob("*") if entry.is_file()
        )
        names = [
            entry
            for entry in names
            if not any(part.startswith((".", "_")) for part in PurePosixPath(entry).parts)
        ]
        return _recognise_folder(
            names,
            {entry: DataFile(str((path / entry).absolute())) for entry in names},
            path.name,
            name,
        )
    with open_raw(path) as stream:
        start = stream.read(4)
    if not start:
        raise InputError(
            path.name,
            "must hold interactions",
            found="the file is empty",
            remedy="Give a file with user and item columns.",
        )
    if start == b"PK\x03\x04":
        names = archive_members(path)
        return _recognise_folder(
            names,
            {entry: DataFile(str(path.absolute()), entry) for entry in names},
            path.name,
            name,
        )
    beside = _TITLES.get(path.name.removesuffix(".gz"))
    titles = path.with_name(beside) if beside is not None else None
    titles_file = (
        DataFile(str(titles.absolute())) if titles is not None and titles.is_file() else None
    )
    return Source(
        name, (PartFiles("train", (DataFile(str(path.absolute())),)),), titles=titles_file
    )


def _recognise_folder(
    names: Sequence[str], files: dict[str, DataFile], label: str, name: str
) -> Source:
    """The layout of a folder, or of a zip, from the names in it."""
    by_depth = sorted(names, key=lambda entry: (entry.count("/"), entry))
    for entry in by_depth:
        stem = entry.removesuffix(".train.rating")
        if stem != entry and f"{stem}.test.rating" in files:
            parts = (
                PartFiles("train", (files[entry],)),
                PartFiles("test", (files[f"{stem}.test.rating"],)),
            )
            return Source(
                name, parts, candidates=files.get(f"{stem}.test.negative"), all_positive=True
            )
    for entry in by_depth:
        beside = _TITLES.get(PurePosixPath(entry).name.removesuffix(".gz"))
        if beside is not None:
            titles = files.get(str(PurePosixPath(entry).with_name(beside)))
            return Source(name, (PartFiles("train", (files[entry],)),), titles=titles)
    parquet = [entry for entry in names if entry.endswith((".parquet", ".pq"))]
    if parquet:
        return Source(name, (PartFiles("train", tuple(files[entry] for entry in parquet)),))
    if len(names) == 1:
        return Source(name, (PartFiles("train", (files[names[0]],)),))
    listed = ", ".join(by_depth[:5]) + (", ..." if len(names) > 5 else "") if names else "nothing"
    raise InputError(
        label,
        "must hold u.data, ratings.dat, ratings.csv, Parquet files or NAME.train.rating with NAME.test.rating",
        found=f"holds {listed}",
        remedy="Pass the file with the interactions.",
    )
