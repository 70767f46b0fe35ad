"""Every number a reader may change, with its bounds, by the sections of `params.yaml`; `param_file` reads that."""

import difflib
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from vars_core.errors import InputError

Count = Annotated[int, Field(ge=1)]
Several = Annotated[int, Field(ge=2)]
Share = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Epsilon = Annotated[int, Field(ge=1, le=255, description="ε in 8-bit steps, 1 to 255")]
Epsilons = Annotated[list[Epsilon], Field(min_length=1)]
Budget = Annotated[float, Field(gt=0, le=255, allow_inf_nan=False, description="ε in 8-bit steps, up to 255")]
Name = Annotated[str, Field(min_length=1)]


class ParameterError(InputError, ValueError):
    """The parameter file is wrong; the message has one line per problem."""


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Data(Section):
    """Where the catalogue comes from and how it is split."""

    source: Literal["synthetic", "folder"] = "synthetic"
    path: str | None = None
    image_size: Annotated[int, Field(ge=16, le=1024)] = 64
    items: Annotated[int, Field(ge=20)] = 2000
    users: Annotated[int, Field(ge=20)] | None = None
    interactions_per_user: Annotated[int, Field(ge=3)] = 12
    taste_strength: Weight = 1.0
    taste_columns: list[Name] | None = None
    taste_extractor: Name | None = None
    taste_weights: Name | None = None
    taste_features: Weight = 1.6
    k_core: Count = 5
    cold_share: Share = 0.1
    max_items: Annotated[int, Field(ge=20)] | None = None
    max_rejected_share: Annotated[float, Field(ge=0, le=1)] = 0.05

    @model_validator(mode="after")
    def _weights_of_something(self):
        if self.taste_weights and not self.taste_extractor:
            raise ValueError(f"taste_weights belong to taste_extractor, which is null; got {self.taste_weights!r}")
        return self


class Recommender(Section):
    """The feature extractor and the victims; `k` is the list length of every exposure figure."""

    extractor: Name = "small_cnn"
    pretrained: bool | str = False
    extractor_epochs: Annotated[int, Field(ge=0)] = 12
    factors: Count = 20
    visual_factors: Count = 20
    epochs: Count = 60
    batch_size: Count = 2048
    learning_rate: Positive = 1e-2
    l2: Weight = 0.03
    visual_l2: Weight = 0.3
    amr_epsilon: Weight = 0.1
    amr_weight: Weight = 1.0
    dvbpr_epochs: Count = 30
    neighbours: Count = 5
    seeds: Count = 3
    k: Count = 20


class Attacks(Section):
    """Budgets of the attackers."""

    epsilons: Epsilons = [1, 2, 4, 8, 16]
    steps: Count = 10
    items: Several = 150
    attacker_users: Share = 0.5
    hooks: Count = 20
    few: Count = 24
    queries: Annotated[int, Field(ge=34)] = 660
    unseen_epsilons: Epsilons = [3, 6, 12]
    other_extractor: Name | None = None
    other_pretrained: bool | str = False

    @model_validator(mode="after")
    def _weights_of_something(self):
        if self.other_pretrained and not self.other_extractor:
            raise ValueError(f"other_pretrained are other_extractor's, which is null; got {self.other_pretrained!r}")
        return self


class Reconstruction(Section):
    """The global ViT filter, its training and its losses."""

    patch: Count = 4
    width: Annotated[int, Field(ge=4, multiple_of=4)] = 64
    depth: Count = 3
    heads: Count = 2
    channels: Count = 24
    blocks: Annotated[int, Field(ge=0)] = 0
    steps: Count = 220
    seeds: Count = 3
    batch_size: Count = 32
    learning_rate: Positive = 3e-3
    epsilons: Epsilons = [2, 4, 8, 16]
    attack_steps: Count = 4
    pixel_weight: Weight = 1.0
    feature_weight: Weight = 10.0
    identity_weight: Weight = 1.0
    ranking_weight: Weight = 0.1
    gate_weight: Weight = 1.0
    adaptive_steps: Count = 120
    adaptive_share: Share = 0.8
    adaptive_ranking_weight: Weight = 100.0
    robust_steps: Count = 100
    start: Literal["pretrained"] | None = None
    started_share: Share = 0.25
    sigmas: Annotated[list[Positive], Field(min_length=1)] = [0.25, 0.5, 1.0]
    denoiser_patch: Count = 8
    denoiser_width: Annotated[int, Field(ge=4, multiple_of=4)] = 96
    denoiser_steps: Count = 600
    denoiser_ranking_weight: Weight = 10.0
    unet_widths: list[Count] = []

    @model_validator(mode="after")
    def _divides(self):
        for name in ("width", "denoiser_width"):
            if getattr(self, name) % self.heads:
                raise ValueError(f"{name} is a multiple of heads; got {getattr(self, name)} and {self.heads}")
        return self

    def length(self, steps: int, started: bool) -> int:
        """How many of `steps` a training takes: all, or `started_share` of them from weights that were trained."""
        return max(1, round(self.started_share * steps)) if started else steps

    @property
    def shape(self) -> dict[str, int]:
        """The arguments of `filters.GlobalViT`."""
        return {name: getattr(self, name) for name in ("patch", "width", "depth", "heads", "channels", "blocks")}

    @property
    def denoiser_shape(self) -> dict[str, int]:
        """The same of a filter that removes noise: there is no faint detail to keep, so patches may be larger."""
        return self.shape | {"patch": self.denoiser_patch, "width": self.denoiser_width}

    @property
    def adaptive(self) -> "Reconstruction":
        """With the losses of the adaptive regime, in which only features and scores count: whoever knows the filter
        is not hindered by giving back the photo's pixels, while smoothing that costs little accuracy hinders them."""
        return self.model_copy(update={"pixel_weight": 0.0, "ranking_weight": self.adaptive_ranking_weight})


class Detection(Section):
    """The detectors and the joint fine-tuning."""

    steps: Count = 100
    joint_steps: Count = 50
    matrix_steps: Count = 20
    magnet_steps: Count = 300
    batch_size: Several = 32
    epsilons: Epsilons = [2, 4, 8]
    learning_rate: Positive = 2e-3
    joint_learning_rate: Positive = 1e-3
    temperature: Positive = 0.1
    edit_weight: Weight = 0.3


class Ablations(Section):
    """Training steps of each variant."""

    steps: Count = 60


class Adaptive(Section):
    """Budgets of the attackers who know the defence."""

    epsilons: Epsilons = [2, 4, 8]
    steps: Count = 30
    items: Several = 12
    queries: Count = 100
    penalties: Annotated[list[Weight], Field(min_length=1)] = [0.1, 1.0]
    checked: Several = 4
    expectation: Count = 4
    served: Several = 32
    upload_draws: Several = 64
    served_error: Share = 0.001

    @model_validator(mode="after")
    def _enough_draws(self):
        if (least := 0.5**self.upload_draws) > self.served_error:
            raise ValueError(
                f"served_error: {self.upload_draws} draws give {least:.2g} at best; got {self.served_error}"
            )
        return self


class Certificate(Section):
    """What a shop that adds noise promises, how sure it is of it, and the attacks that try to exceed it."""

    epsilons: Annotated[list[Budget], Field(min_length=1)] = [0.5, 1, 2, 4, 8]
    items: Several = 60
    draws: Several = 600
    confidence: Share = 0.999
    attacked: Several = 12
    steps: Count = 30
    expectation: Count = 4
    queries: Count = 100


class Study(Section):
    """A whole parameter file."""

    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    data: Data
    recommender: Recommender
    attacks: Attacks
    reconstruction: Reconstruction
    detection: Detection
    ablations: Ablations
    adaptive: Adaptive
    certificate: Certificate


def explain(error: ValidationError, section: str | None = None) -> str:
    """One line per problem: section.parameter, what is expected, what was given, and close names."""
    return "\n".join(dict.fromkeys(_line(problem, section or error.title.lower()) for problem in error.errors()))


def _line(problem: dict, section: str) -> str:
    where = [str(part) for part in problem["loc"] if part not in ("bool", "str")]
    place = ".".join(where if section == "study" else [section, *where])
    if problem["type"] == "extra_forbidden":
        names = place.split(".")
        model = Study if len(names) == 1 else Study.model_fields[names[0]].annotation
        return unknown(place, model.model_fields)
    if problem["type"] == "missing":
        return f"{place}: missing"
    if problem["type"] == "value_error":
        return f"{place}: {problem['ctx']['error']}"
    given = problem["input"]
    if problem["loc"][-1] in ("bool", "str"):
        return f"{place}: expected true, false, package or a file's path; got {given!r}"
    if any("epsilon" in part for part in where) and not isinstance(given, list):
        return f"{place}: ε in 8-bit steps, 1 to 255; got {given!r}"
    expected = problem["msg"].removeprefix("Input should be ").removeprefix("a valid ")
    return f"{place}: expected {expected}; got {given!r}"


def unknown(place: str, known) -> str:
    """What to say of `place`, section.parameter or section, which isn't one of the names `known`."""
    close = difflib.get_close_matches(place.split(".")[-1], list(known), n=2, cutoff=0.5)
    hint = f"; did you mean {' or '.join(close)}?" if close else f"; known: {', '.join(known)}"
    return f"{place}: unknown parameter{hint}" if "." in place else f"{place}: unknown section{hint}"
