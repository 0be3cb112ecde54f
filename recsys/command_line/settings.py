"""The config of a command, from `--config`, `--data`, `--set` and the command's own flags.

The commands call it; `config.files` does the reading.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from recsys.config.files import Override, load_config, parse_override
from recsys.config.schema import Config
from recsys.config.yaml_text import parse_yaml
from recsys.errors import naming


def read_config(
    base: Path | Config | None,
    data: str | None,
    settings: Sequence[str],
    flags: Mapping[str, tuple[str, str | None]] | None = None,
) -> tuple[Config, set[str]]:
    """Return the config of a command, and the config paths that its flags and `--set` set.

    A flag takes precedence over `--set`, which takes precedence over the environment and `base`.

    Args:
        base: the value of `--config`, or a config that was chosen otherwise.
        data: the value of `--data`. It replaces a split that is given as files.
        settings: the values of `--set`.
        flags: config path -> (flag, its text or None) for the command's own flags; texts are YAML.

    Raises:
        InputError: if there is no such file; if values are wrong, with every mistake.
    """
    overrides = [parse_override(text, "--set") for text in settings]
    if data is not None:
        overrides.append(Override("data.source", data, "--data"))
    for path, (flag, text) in (flags or {}).items():
        if text is not None:
            overrides.append(Override(path, parse_yaml(text, flag), flag))
    paths = {override.path for override in overrides}
    if data is not None:
        overrides.append(Override("data.files", None, "--data"))
    return load_config(base, overrides), paths


def naming_data(data: str | None) -> AbstractContextManager[None]:
    """Show `data.source` as `--data` in errors, if that flag is given."""
    return naming({} if data is None else {"data.source": "--data"})


def read_storage(settings: Sequence[str]) -> str | None:
    """Return the study's database that `--set` or the environment names, None if neither does.

    Raises:
        InputError: if it is no URL of a database.
    """
    texts = [text for text in settings if text.startswith("study.storage=")]
    config, _ = read_config(None, None, texts)
    return config.study.storage
