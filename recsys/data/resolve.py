"""The config of a run on certain data: `auto` replaced by what the data ask for, and checked."""

from collections.abc import Iterable

from recsys.config.schema import Config, replace_values
from recsys.config.variants import FOLDING_IN, Variant
from recsys.data.manifest import Manifest
from recsys.data.ranked_users import choose_every, choose_max_users
from recsys.errors import InputError


def uses_candidates(config: Config, given: bool) -> bool:
    """Return whether held-out items are ranked among candidates.

    `given`: whether the data have their own candidates.
    """
    return (
        given if config.evaluation.protocol == "auto" else config.evaluation.protocol == "sampled"
    )


def resolve(config: Config, manifest: Manifest) -> Config:
    """Return the config with each `auto` of `evaluation` replaced by what the data ask for.

    Raises:
        InputError: if a value of `evaluation.k` exceeds the number of ranked items; if the config
            needs times, and the data have none.
    """
    if config.training.recency_half_life is not None and not manifest.has_times:
        raise InputError(
            "training.recency_half_life",
            "must be none where train or validation has no times that differ",
            config.training.recency_half_life,
            "Unset it, or name the column of the times in data.columns.timestamp.",
        )
    given = manifest.n_candidates_given
    longest = max(config.evaluation.k)
    if longest > manifest.n_items:
        raise InputError(
            "evaluation.k",
            f"must be at most the number of items, {manifest.n_items}",
            longest,
            "Lower it.",
        )
    if not uses_candidates(config, given is not None):
        return _resolve_ranking(config, manifest, "full", None)
    n_candidates = config.evaluation.n_candidates
    n_candidates = n_candidates if given is None else min(given, n_candidates)
    if longest > n_candidates + 1:
        raise InputError(
            "evaluation.k",
            f"must be at most the ranked candidates, {n_candidates + 1}",
            longest,
            "Lower it.",
        )
    return _resolve_ranking(config, manifest, "sampled", n_candidates)


def resolve_trained(config: Config, manifest: Manifest) -> Config:
    """Return what `resolve` returns, for a config that is going to be trained.

    Raises:
        InputError: as `resolve`; if the data hold out whole users, and the config cannot fold in
            users.
    """
    require_fold_in([config.variant], manifest, "model.name, training.loss")
    return resolve(config, manifest)


def require_fold_in(variants: Iterable[Variant], manifest: Manifest, place: str) -> None:
    """Check that all variants can fold in users, if the data hold out whole users.

    Raises:
        InputError: if one cannot; it names `place`.
    """
    unable = [str(variant) for variant in variants if not variant.folds_in_users]
    if manifest.holds_out_users and unable:
        n_more = f" and {len(unable) - 1} more" if len(unable) > 1 else ""
        raise InputError(
            place,
            "must fold in users for data.split: users",
            f"{unable[0]}{n_more}",
            f"Use configs with {FOLDING_IN}, or another data.split.",
        )


def _resolve_ranking(
    config: Config, manifest: Manifest, protocol: str, n_candidates: int | None
) -> Config:
    """Return the config with its protocol, and with the users and the epochs that are ranked."""
    max_users, every = config.evaluation.max_users, config.evaluation.every
    if max_users == "auto":
        max_users = choose_max_users(manifest, n_candidates)
    if every == "auto":
        every = choose_every(manifest, n_candidates, max_users)
    return replace_values(
        config,
        {
            "evaluation.protocol": protocol,
            "evaluation.max_users": max_users,
            "evaluation.every": every,
        },
    )
