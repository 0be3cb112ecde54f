"""The folder of a saved model: its place, and its files.

    model.safetensors   weights, with a checksum in the header
    config.yaml         the complete config, and the models and trainings of an ensemble's members
    users.parquet       user, user_id, seen (all its items), trained (false: no training positive)
    items.parquet       item, item_id, title (null for none)
    metrics.json        scores of final training, and facts about its data

No file is unpickled or executed.
"""

from pathlib import Path

from recsys.errors import InputError
from recsys.storage.files import require_readable
from recsys.storage.s3 import fetch_folder, list_folder

FILES = ("model.safetensors", "config.yaml", "users.parquet", "items.parquet", "metrics.json")


def find_model(model: Path, folder: Path) -> Path:
    """Return the folder of a model by its path, or by its name in `folder`/models.

    Raises:
        InputError: if neither exists; if a folder above it is not readable.
    """
    for path in (model, folder / "models" / model):
        fetch_folder(path)
        with require_readable(path):
            if path.is_dir():
                return path
    names = sorted(name for name in list_folder(folder / "models") if not name.startswith("."))
    remedy = (
        f"Models here: {', '.join(names)}." if names else "Train one with `python -m recsys.train`."
    )
    raise InputError(
        model,
        f"must be a model's folder or a name in {folder / 'models'}",
        "no such folder",
        remedy,
    )


def require_replaceable(folder: Path) -> None:
    """Check that a model may be written to `folder`: it does not exist, is empty or has a model.

    A folder in S3 is fetched first.

    Raises:
        InputError: if anything else is there.
    """
    fetch_folder(folder)
    blocking = next(
        (parent for parent in folder.parents if parent.exists() and not parent.is_dir()), None
    )
    if blocking is not None:
        raise InputError(
            folder,
            "must have only folders above it",
            f"the file {blocking}",
            "Choose another folder.",
        )
    if not folder.exists():
        return
    if not folder.is_dir():
        found = "a file"
    elif foreign := sorted(path.name for path in folder.iterdir() if path.name not in FILES):
        found = f"a folder with {foreign[0]}"
    else:
        return
    raise InputError(
        folder, "must be new, empty or a model's folder", found, "Choose another folder."
    )


def require_files(folder: Path) -> None:
    """Check that a folder has all files of a model, readable, and no others.

    Raises:
        InputError: if the folder or a file is missing; if there is any other file, or a link.
        PermissionError: if the folder or a file is not readable.
    """
    if not folder.is_dir():
        raise InputError(
            folder,
            "must be a model's folder",
            "no such folder",
            "Train a model with `python -m recsys.train`.",
        )
    for name in FILES:
        path = folder / name
        if not path.is_file():
            raise InputError(path, "must exist", "no such file", "Train the model again.")
        # pyarrow and safetensors report an unreadable file as damaged or missing: open it first.
        path.open("rb").close()
    foreign = sorted(
        path.name for path in folder.iterdir() if path.name not in FILES or path.is_symlink()
    )
    if foreign:
        raise InputError(
            folder, "must have only a model's own files", foreign[0], "Train the model again."
        )
