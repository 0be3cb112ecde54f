"""`python -m recsys.recommend`, which recommends unseen items to some users, or to all."""

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
from recsys.errors import InputError, naming
from recsys.storage.path_errors import require_writable

if TYPE_CHECKING:
    import pyarrow as pa

_FLAGS = {"k": "-k", "user_id": "--user"}
"""Flag of each argument that an error may name."""


@click.command(help="Recommend the best unseen items to some users, or to all.")
@model_option("--model", required=True, help="Folder or name of a saved model.")
@click.option(
    "--user", "users", multiple=True, metavar="ID", help="User id, as in the data. May be repeated."
)
@click.option("--all-users", is_flag=True, help="Recommend to all users.")
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
    k: int,
    output: Path | None,
    folder: Path,
    as_json: bool,
) -> int:
    """Recommend, print or write, and return the exit code."""
    _check_options(users, output, all_users=all_users)
    import numpy as np

    from recsys.serving import model_folder, saved_model
    from recsys.serving.recommend import find_users, recommend_to

    saved = saved_model.load(model_folder.find_model(model, folder))
    with progress("Recommending"):
        chosen = np.flatnonzero(saved.is_trained) if all_users else find_users(saved, users)
        table = recommend_to(saved, chosen, k)
    if all_users and (n_untrained := int(np.count_nonzero(~saved.is_trained))):
        note(f"{n_untrained:,} users without a positive in the training data are left out.")
    if output is not None:
        print_result(_write(table, output), as_json, _written_text)
    else:
        print_result(_by_user(table), as_json, _text)
    return 0


def _check_options(users: Sequence[str], output: Path | None, *, all_users: bool) -> None:
    if bool(users) == all_users:
        got = "both" if users else "neither"
        raise InputError(
            "command line", "must have --user or --all-users", got, "Give exactly one."
        )
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
