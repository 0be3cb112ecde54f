"""Texts of trials for people: durations, parameters, the searched metric, and tables of trials.

The progress, the opening lines and the leaderboard use them.
"""

from typing import Any

from rich.table import Table
from rich.text import Text

from recsys.config.components import METRICS
from recsys.config.schema import Config
from recsys.evaluation.evaluate import protocol_name
from recsys.search.record.summaries import TrialSummary


def trial_table(config: Config, *further: str) -> Table:
    """Return an empty table of trials with further columns, for `add_trial`."""
    return Table(
        "trial",
        "state",
        "epochs",
        metric_title(config),
        *further,
        "parameters",
        box=None,
        header_style="bold",
    )


def add_trial(table: Table, trial: TrialSummary, state: str, *cells: str) -> None:
    """Add a trial as a row.

    `cells`: the texts between the state and the parameters; by default the number of epochs and the
    best value.
    """
    value, error = trial.best_known
    best = "" if value is None else f"{value:.4f}"
    if error is not None:
        best += f" ± {error:.4f}"
    if trial.on_all_users is not None:
        best += " on all users"
    parameters = Text(show_params(trial.params), overflow="ellipsis", no_wrap=True)
    shown = cells or (str(trial.epochs), best)
    blanks = [""] * (len(table.columns) - len(shown) - 3)
    table.add_row(str(trial.number), state, *shown, *blanks, parameters)


def metric_title(config: Config) -> str:
    """Return the searched metric as shown to the user, such as `NDCG@10 (full)`."""
    return (
        f"{METRICS[config.study.metric].title}@{config.evaluation.k[0]} ({protocol_name(config)})"
    )


def show_params(params: dict[str, Any]) -> str:
    """Return parameters in one line, named by their paths without the section."""
    shown = {path.partition(".")[2]: value for path, value in params.items()}
    return " ".join(
        f"{name}={value:.3g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in shown.items()
    )


def show_duration(seconds: float) -> str:
    """Return a time as minutes and seconds, such as `2:05`, or with hours, such as `1:02:05`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def show_bytes(n: float) -> str:
    """Return an amount of memory, such as `1.5 GiB`."""
    return f"{n / 2**30:.1f} GiB" if n >= 2**30 else f"{n / 2**20:.0f} MiB"
