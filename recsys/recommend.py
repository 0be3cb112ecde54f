"""`python -m recsys.recommend`, which recommends unseen items to users.

The users are the model's own, some or all, or those of a file of histories.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Group, RenderableType
from rich.table import Table

from recsys.command_line.options import common_options, model_option
from recsys.command_line.results import escaped, print_result
from recsys.command_line.run import run_command
from recsys.console.verbosity import note, progress
from recsys.errors import Argument, InputError, naming
from recsys.storage.path_errors import require_writable

if TYPE_CHECKING:
    import pyarrow as pa

    from recsys.serving.saved_model import SavedModel

_FLAGS = {"k": "-k", "user_id": "--user", "history": "--history", "model": "--model"}
"""Flag of each argument that an error may name."""


@click.command(help="Recommend the best unseen items to users.")
@model_option("--model", required=True, help="Folder or name of a saved model.")
@click.option(
    "--user", "users", multiple=True, metavar="ID", help="User id, as in the data. May be repeated."
)
@click.option("--all-users", is_flag=True, help="Recommend to all users.")
@click.option(
    "--history",
    type=Path,
    metavar="FILE",
    help="Recommend to the users of a file, new or known, from their interactions in it.",
)
@click.option(
    "-k",
    type=click.IntRange(min=1),
    metavar="N",
    default=10,
    show_default=True,
    help="Items per user.",
)
@click.option(
    "--output", type=Path, metavar="FILE", help="Write a Parquet file instead of printing."
)
@common_options
def recommend(
    *,
    model: Path,
    users: tuple[str, ...],
    all_users: bool,
    history: Path | None,
    k: int,
    output: Path | None,
    folder: Path,
    as_json: bool,
) -> int:
    """Recommend, print or write, and return the exit code."""
    _check_options(users, output, history, all_users=all_users)
    import numpy as np

    from recsys.serving import model_folder, saved_model
    from recsys.serving.recommend import find_users, recommend_to

    saved = saved_model.load(model_folder.find_model(model, folder))
    with progress("Recommending"):
        if history is not None:
            saved = _with_histories(saved, history)
        chosen = find_users(saved, users) if users else np.flatnonzero(saved.is_trained)
        table = recommend_to(saved, chosen, k)
    if not users and (n_left_out := int(np.count_nonzero(~saved.is_trained))):
        where = "in the training data" if history is None else "on an item of the training data"
        note(f"Left out users without a positive {where}: {n_left_out:,}.")
    if output is not None:
        print_result(_write(table, output), as_json, _written_text)
    else:
        print_result(_by_user(table), as_json, _text)
    return 0


def _with_histories(saved: "SavedModel", history: Path) -> "SavedModel":
    """Return the model with the users of the history in place of its own."""
    from recsys.data.preprocessing.histories import read_histories
    from recsys.serving.fold_in import require_fold_in, with_users

    require_fold_in(saved)
    threshold = saved.metrics.get("positive_threshold")
    found = read_histories(history, saved.config.data.columns, threshold, saved.item_ids)
    if found.n_unknown:
        note(f"Ignored interactions with items that are not in the data: {found.n_unknown:,}.")
    folded = with_users(saved, found.user_ids, found.interactions)
    if not folded.is_trained.any():
        raise InputError(
            Argument("history"),
            "must have a positive with an item of the training data",
            "none",
            "Check the item ids and the ratings.",
        )
    return folded


def _check_options(
    users: Sequence[str], output: Path | None, history: Path | None, *, all_users: bool
) -> None:
    given = {"--user": bool(users), "--all-users": all_users, "--history": history is not None}
    chosen = [flag for flag, is_given in given.items() if is_given]
    if len(chosen) != 1:
        raise InputError(
            "command line",
            "must have one of --user, --all-users and --history",
            " and ".join(chosen) or "none",
            "Give exactly one.",
        )
    if history is not None and history.parts[:1] == ("s3:",):
        raise InputError("--history", "must be on a disk", history, "Download it first.")
    if output is None:
        return
    if output.suffix != ".parquet":
        raise InputError("--output", "must end in .parquet", output, "Rename it.")
    if output.is_dir() or output.parts[0] == "s3:":
        raise InputError("--output", "must be a file on a disk", output, "Give another path.")
    with naming({"folder": "--output"}):
        require_writable(output.parent)


def _write(table: "pa.Table", output: Path) -> dict[str, Any]:
    """Write the recommendations as Parquet; return the command's answer."""
    import pyarrow.parquet as pq

    from recsys.storage.files import write_atomically

    with write_atomically(output) as file:
        pq.write_table(table, file)
    n_users = len(table.column("user_id").unique())
    return {"output": str(output), "users": n_users, "rows": len(table)}


def _written_text(answer: Mapping[str, Any]) -> str:
    return f"{answer['rows']:,} rows of {answer['users']:,} users: {answer['output']}"


def _by_user(table: "pa.Table") -> dict[str, list[dict[str, Any]]]:
    """Return user id -> recommended items, the best first."""
    answer: dict[str, list[dict[str, Any]]] = {}
    for row in table.to_pylist():
        item = {name: row[name] for name in ("item_id", "score", "title")}
        answer.setdefault(str(row["user_id"]), []).append(item)
    return answer


def _text(answer: Mapping[str, Any]) -> RenderableType:
    tables = []
    for user_id, items in answer.items():
        table = Table(
            *("rank", "item", "score", "title"),
            box=None,
            header_style="bold",
            title=f"user {escaped(user_id)}",
            title_justify="left",
        )
        for rank, item in enumerate(items, start=1):
            table.add_row(
                str(rank), str(item["item_id"]), f"{item['score']:.3f}", item["title"] or ""
            )
        tables.append(table)
    return Group(*tables)


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command(recommend, argv, _FLAGS)


if __name__ == "__main__":
    sys.exit(main())
