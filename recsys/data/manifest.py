"""Manifest of a processed folder: what its data are, and the files that it must hold."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

FORMAT_VERSION = 3
"""Version of the content and the layout of the folder. Part of the fingerprint: with a new
version, all data are prepared again."""


class Manifest(BaseModel):
    """Description of processed data, and their origin."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    format_version: int
    """`FORMAT_VERSION` of the folder."""
    source: str
    """The data set's name or path."""
    checksum: str
    """SHA-256 over the source files' contents."""
    settings: dict[str, Any]
    """Every config value that shaped the result."""
    n_users: int
    """Users, including those who only train."""
    n_items: int
    """Items, including those with only low ratings."""
    n_interactions: int
    """Distinct pairs of user and item after the filters."""
    n_positives: int
    """Interactions rated at least `data.positive_threshold`."""
    n_low: int
    """Interactions rated lower."""
    n_train: int
    """Training positives."""
    n_validation: int
    """Positives held out for validation, of users with one in train or given."""
    n_test: int
    """Positives held out for test, of users with one in train or validation, or given."""
    n_duplicates: int
    """Rows that were replaced by a later row of the same user and item in the same split."""
    n_overlaps: int
    """Rows that were dropped because a later split of the source has the same user and item."""
    n_cold_validation_users: int
    """Users with a positive in validation but none in train, whom the search cannot rank."""
    n_cold_users: int
    """Users with a positive in test but none in train or validation, whom nothing scores."""
    n_validation_users: int | None = None
    """Users who are held out whole for validation, None for a split that holds out none whole."""
    has_times: bool
    """Whether times order the interactions of train and validation."""
    n_candidates_given: int | None
    """Largest number of candidates of a test positive that the data give, None without any."""
    notes: list[str]
    """Assumptions that users should check, such as the unit of the times."""
    seconds: float
    """Duration of the preprocessing."""
    files: dict[str, int]
    """Size in bytes of each file of the folder."""

    @property
    def holds_out_users(self) -> bool:
        """Whether whole users are held out, of whom some positives are given."""
        return bool(self.n_validation_users)

    def counts(self) -> dict[str, int]:
        """Return every count by its name, such as `n_users`."""
        return {
            name: value
            for name, value in self.model_dump().items()
            if name.startswith("n_") and value is not None
        }


def read_manifest(path: Path) -> Manifest | None:
    """Return the manifest of a processed folder.

    None if the folder is missing, incomplete, damaged or of another format version.
    """
    try:
        manifest = Manifest.model_validate_json((path / "manifest.json").read_bytes())
        whole = all((path / name).stat().st_size == size for name, size in manifest.files.items())
    except (OSError, ValidationError):
        return None
    return manifest if whole and manifest.format_version == FORMAT_VERSION else None
