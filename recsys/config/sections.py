"""Groups of settings that say what is trained: the data, the model, the training, the ranking.

Each setting has its type, its default, its bounds and a short meaning. `Config` in `schema` holds
one of each group, of these and of `run_sections`.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from recsys.config.components import LOSSES, MODELS, OneOf
from recsys.config.values import Column, Cutoffs, Fraction


class Section(BaseModel):
    """Frozen group of settings that refuses unknown names."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class FilesConfig(Section):
    """Files of a data set that comes with its own split."""

    train: str
    """File or folder with the training interactions."""
    validation: str | None = None
    """File or folder with the validation interactions. If absent, they are split off train."""
    test: str
    """File or folder with the test interactions."""


class ColumnsConfig(Section):
    """Columns of the user's files, each by its name or by its position from 0."""

    user: Column | None = None
    """Column with the user ids."""
    item: Column | None = None
    """Column with the item ids."""
    rating: Column | None = None
    """Column with the ratings."""
    timestamp: Column | None = None
    """Column with the times: numbers of any one unit, or dates."""
    title: Column | None = None
    """Column with the items' titles, or `none` to read no titles."""


class DataConfig(Section):
    """The interactions, and how they are split."""

    source: str = "ml-latest-small"
    """Data set of the catalog by name, or path of your own file or folder."""
    files: FilesConfig | None = None
    """Files of your own split: `train`, `validation` (optional) and `test`. Replaces `data.source`.
    """
    columns: ColumnsConfig | None = None
    """Columns of the files: `user`, `item`, `rating`, `timestamp` and `title`, each by its name or
    by its position from 0. A column that is not set is recognised by its name. `title: none` reads
    no titles."""
    positive_threshold: float = 4.0
    """Ratings of at least this value are positives."""
    low_ratings: Literal["negative", "ignore"] = "negative"
    """Treatment of ratings below the threshold: the bce loss trains on them as negatives, or
    ignores them."""
    min_user_interactions: int = Field(default=1, ge=1)
    """Remove users with fewer interactions. Repeated, together with `data.min_item_interactions`,
    until nothing changes (k-core)."""
    min_item_interactions: int = Field(default=1, ge=1)
    """Remove items with fewer interactions. Repeated, together with `data.min_user_interactions`,
    until nothing changes (k-core)."""
    split: Literal["leave_one_out", "random", "temporal", "users"] = "leave_one_out"
    """Split strategy for data that has no split of its own. `users` holds out whole users. It needs
    a model that can fold in users."""
    test_fraction: Fraction = 0.2
    """Share of the interactions that a random or temporal split holds out for test, or of the users
    that `data.split: users` does."""
    validation_fraction: Fraction = 0.1
    """Share of the rest that these splits hold out for validation."""
    split_seed: int = Field(default=0, ge=0)
    """Seed of the split, the fixed negatives and the candidates."""
    n_negatives: int = Field(default=4, ge=1)
    """Fixed negatives per positive in the processed data."""


class ModelConfig(Section):
    """The model."""

    name: Annotated[str, OneOf(MODELS)] = "neumf"
    """Variant of neural collaborative filtering."""
    embedding_dim: int = Field(default=16, ge=1)
    """Width d of the embedding of a user or an item; neumf has two of each. In autoencoder and
    diffusion: of a user's latent."""
    n_layers: int = Field(default=3, ge=0)
    """Hidden layers. In mlp and neumf: of the tower, at least 1, with widths 2d, d, d/2 and so on.
    In autoencoder and diffusion: on each side of the latent, of width `model.hidden_dim`."""
    hidden_dim: int = Field(default=256, ge=1)
    """Width of the hidden layers of autoencoder and diffusion."""
    bottleneck: Literal["none", "gaussian"] = "none"
    """Latent of autoencoder: a vector, or in training a draw from a normal distribution
    (variational autoencoder)."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout after each hidden layer of the tower. In autoencoder and diffusion: of a user's
    positives, before the model reads them."""
    noise_steps: int = Field(default=5, ge=1)
    """Steps of diffusion, from the noisiest row of a user to the row itself."""
    noise_scale: float = Field(default=0.01, ge=0, le=1)
    """Scale s of diffusion's noise. Its variance grows from 0.0001 s at the first step to 0.02 s at
    the last; 0 adds none."""
    n_levels: int = Field(default=4, ge=2, le=8)
    """Codes of an item in rqvae, one of each level."""
    n_codes: int = Field(default=64, ge=16, le=256)
    """Codes of a level to choose from in rqvae, at most a quarter of the items."""
    commitment_weight: float = Field(default=0.25, ge=0)
    """Weight in rqvae's loss of the squared residuals that an item's codes leave."""
    reconstruction_weight: float = Field(default=0.1, ge=0)
    """Weight in rqvae's loss of the squared distance of an item's vector to its start."""
    bias: bool = True
    """Add biases: a global one, one per user and one per item; in autoencoder and diffusion one per
    item."""
    init_std: float = Field(default=0.01, gt=0)
    """Standard deviation of the normal distribution that initialises the embeddings."""
    similarity: Literal["dot", "cosine"] = "dot"
    """Product of the embeddings in inner_product, gmf and autoencoder: the dot product, or the
    cosine, which softmax divides by `training.temperature`."""


class TrainingConfig(Section):
    """The training of the model."""

    loss: Annotated[str, OneOf(LOSSES)] = "bce"
    """Binary cross-entropy, Bayesian personalised ranking, softmax, or squared error over all pairs
    (solved by least squares)."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Step size of Adam in the first epoch."""
    learning_rate_decay: Literal["linear", "cosine"] | None = None
    """Decay of the step size towards 0 over `training.max_epochs`."""
    l2: float = Field(default=0.0, ge=0)
    """Weight of L2 regularisation. It adds to the loss of a row the squared embedding of the user
    plus the mean over its items; with `training.negative_sampling: all`, plus the positive item's.
    """
    temperature: float = Field(default=0.1, gt=0)
    """Softmax divides the scores of a model with `model.similarity: cosine` by it. Otherwise it has
    no effect."""
    kl_weight: float = Field(default=0.2, ge=0)
    """With `model.bottleneck: gaussian`: weight of the divergence of the latent from the standard
    normal distribution. It grows from 0 over the first half of `training.max_epochs`."""
    top_k_weight: float | None = Field(default=None, gt=0)
    """Weigh a positive by sigmoid((s - b) / w), where s is its logit, b is its user's logit at the
    first rank of `evaluation.k`, and w is this value. none for equal weights. Needs
    `training.negative_sampling: all`."""
    batch_size: int = Field(default=2048, ge=1)
    """Positives per gradient step, each with its negatives."""
    n_negatives: int = Field(default=4, ge=1)
    """Negatives per positive in training."""
    negative_sampling: Literal["uniform", "popularity", "all"] = "uniform"
    """Distribution of the negatives over the user's unseen items. `all` draws none: every unseen
    item counts, with the weight of its share of `training.n_negatives` draws."""
    popularity_alpha: float = Field(default=0.75, ge=0)
    """Exponent of the popularity of an item in `training.negative_sampling: popularity`."""
    resample_negatives: bool = True
    """Draw new negatives in each epoch. If false, use the fixed ones of the processed data."""
    balance: bool = False
    """Give a positive the same weight as all its negatives together (bce only)."""
    max_epochs: int = Field(default=20, ge=1)
    """Maximum epochs of a training."""
    patience: Annotated[int, Field(ge=1)] | Literal["auto"] | None = "auto"
    """End a training after this many epochs without a better validation value. `auto` is 5 for the
    trials of a search, and none for a training without a study."""
    recency_half_life: float | None = Field(default=None, gt=0)
    """Number of later positives of the same user that halve the weight of a positive; none for
    equal weights. The data must have times."""
    recency_floor: float = Field(default=0.1, ge=1e-6, le=1)
    """Least weight of a positive, relative to that of its user's last one. Without
    `training.recency_half_life` it has no effect."""


class EvaluationConfig(Section):
    """The ranking of held-out items, and its scores."""

    k: Cutoffs = (10,)
    """Lengths of the ranked lists that are scored. The search maximises the metric at the first."""
    protocol: Literal["auto", "full", "sampled"] = "auto"
    """Rank a held-out item among all items (full) or among candidates (sampled). `auto` is sampled
    if the data brings its own candidates, else full."""
    n_candidates: int = Field(default=99, ge=1)
    """Distinct candidates per held-out item."""
    max_users: Annotated[int, Field(ge=1)] | Literal["auto"] | None = "auto"
    """Rank only this many users during the search, drawn by a seed; none for all. `auto` is as many
    as the data ask for, 1,000 to 10,000: ranking an epoch then takes at most a quarter of training,
    except where few interactions meet many items. A trial that trains to its end ranks all users
    once. Final scores always use all."""
    every: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Rank after every so many epochs of a trial, and after its last. `auto` is 1, or up to 3 where
    ranking takes more than a quarter of training an epoch."""

    @property
    def user_limit(self) -> int | None:
        """Users that are ranked during the search; None for all, also before `auto` is resolved."""
        return None if self.max_users == "auto" else self.max_users

    @property
    def period(self) -> int:
        """Epochs from one ranking to the next; 1 before `auto` is resolved."""
        return 1 if self.every == "auto" else self.every
