"""Everything that defines a training run, in one place, and the recipes of our own models."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from face_landmarks.errors import InputError
from face_landmarks.layouts import get_layout
from face_landmarks.models.hourglass import HourglassConfig


@dataclass(frozen=True)
class AugmentConfig:
    """How far a training view may stray from the nominal crop.

    Shift and scale follow the noise of a detector's box, measured against the box made from the
    landmarks; the rest widens what the network has seen.

    Attributes:
        rotation: standard deviation in degrees, cut off at three of them.
        scale: standard deviation of the logarithm of the face's size in the crop.
        shift: standard deviation of the face's place, in crop sides.
        flip: share of mirrored views.
        colour: strength of the gain, contrast, saturation and gamma changes; 0 is none.
        gray: share of gray views.
        blur: share of blurred or low-resolution views.
        noise: largest standard deviation of added pixel noise.
        occlusion: share of views with a rectangle of the face hidden.
    """

    rotation: float = 18.0
    scale: float = 0.10
    shift: float = 0.035
    flip: float = 0.5
    colour: float = 0.3
    gray: float = 0.1
    blur: float = 0.25
    noise: float = 0.04
    occlusion: float = 0.4


@dataclass(frozen=True)
class TrainConfig:
    """A training run: network, crop rule, targets, losses, optimiser.

    Attributes:
        network: the network's shape.
        layout: name of the landmark layout.
        crop_scale: side of the crop in units of face box width + height.
        crop_shift: how far below the box's centre the crop's centre lies, in box heights.
        sigma: of the Gaussian targets, in cells.
        rounded: snap targets to cells, as older methods do; for the ablation.
        window: side of the local soft-argmax window, in cells.
        temperature: tau of the local soft-argmax.
        lean: how far right of the mirror-symmetric position the labels sit, as a share of the
            inter-ocular distance; mirrored labels are moved so that they lean the same way.
        steps: optimiser steps.
        batch_size: crops per step; with the Siamese term, two views of half as many faces.
        learning_rate: peak of the one-cycle cosine schedule.
        warmup: share of the steps spent rising to the peak.
        weight_decay: of AdamW, on convolution weights only.
        clip_norm: largest norm of the gradient.
        ema_decay: of the averaged weights that are validated and exported.
        coordinate_weight: of the L1 distance between decoded and true landmarks, in cells.
        siamese_weight: of the disagreement between two views' heatmaps.
        siamese_coordinate_weight: of the L1 distance between the landmarks two views decode to, in
            cells; needs a siamese_weight above 0.
        near_weight: of the squared distance, in cells, between the landmarks of two views that are the
            same but for a shift of up to `near_reach`; needs near_every above 0.
        near_every: every such step compares near views instead of independent ones; 0: none does.
        near_reach: largest shift between near views, in crop pixels along each axis.
        large_pose_share: share of each batch drawn from the secondary data (e.g. 300W-LP).
        unlabelled_share: share of each batch drawn from faces without landmarks, which take
            part in the Siamese term only.
        source_margin: side of the stored training picture, in crop sides.
        validate_every: steps between validations.
        seed: of weights, sampling and augmentation.
    """

    network: HourglassConfig
    layout: str = "ibug-68"
    crop_scale: float = 0.61
    crop_shift: float = 0.1365
    sigma: float = 1.5
    rounded: bool = False
    window: int = 5
    temperature: float = 10.0
    lean: float = 0.0098
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    steps: int = 2500
    batch_size: int = 64
    learning_rate: float = 2e-3
    warmup: float = 0.05
    weight_decay: float = 0.05
    clip_norm: float = 5.0
    ema_decay: float = 0.998
    coordinate_weight: float = 1.0
    siamese_weight: float = 0.5
    siamese_coordinate_weight: float = 0.0
    near_weight: float = 0.0
    near_every: int = 0
    near_reach: float = 1.0
    large_pose_share: float = 0.0
    unlabelled_share: float = 0.0
    source_margin: float = 1.5
    validate_every: int = 250
    seed: int = 0

    def __post_init__(self) -> None:
        if self.validate_every < 1:
            raise InputError(f"validate_every: expected at least 1, got {self.validate_every}")
        if self.near_weight and not self.near_every:
            raise InputError("near_weight: expected 0 without near_every, as no step compares near views")
        if self.siamese_coordinate_weight and not self.siamese_weight:
            raise InputError("siamese_coordinate_weight: expected 0 without siamese_weight")
        if self.batch_size % 2 and self.siamese_weight > 0:
            raise InputError(f"batch_size: expected an even number for pairs of views, got {self.batch_size}")
        if self.near_every and not self.siamese_weight > 0:
            raise InputError(
                "near_every: expected 0, as views come in pairs only where siamese_weight is above 0"
            )
        if self.large_pose_share + self.unlabelled_share >= 1:
            raise InputError("large_pose_share + unlabelled_share: expected less than 1")
        landmarks = len(get_layout(self.layout))
        if self.network.landmarks != landmarks:
            raise InputError(
                f"network.landmarks: expected {landmarks}, as in {self.layout}, got {self.network.landmarks}"
            )

    @property
    def views(self) -> Literal[1, 2]:
        """Views of each face in a step: two when they are compared."""
        return 2 if self.siamese_weight > 0 else 1


def restore_config(values: dict[str, Any]) -> TrainConfig:
    """The configuration a checkpoint was written with; settings younger than it have their defaults.

    Raises:
        InputError: a setting that this version does not know.
    """
    try:
        network = HourglassConfig(**values["network"])
        augment = AugmentConfig(**values["augment"])
        return TrainConfig(**{**values, "network": network, "augment": augment})
    except TypeError as error:
        raise InputError(f"expected the settings of this version's runs, got another: {error}") from error


RECIPES: dict[str, TrainConfig] = {
    "shr-fan-68-fast": TrainConfig(
        network=HourglassConfig(stacks=1, features=96, depth=3, crop_size=128, heatmap_size=32, norm="after"),
        steps=2600,
        validate_every=130,
    ),
    # For a CPU with bfloat16 matrix units, which a wide network feeds better than a deep one. Most of
    # its training can be done on crops of 128 px, and be gone on with from there by --init.
    "shr-fan-68": TrainConfig(
        network=HourglassConfig(
            stacks=1, features=256, depth=3, crop_size=160, heatmap_size=40, norm="after"
        ),
        steps=2000,
        batch_size=32,
        learning_rate=1e-3,
        validate_every=200,
        siamese_coordinate_weight=0.5,
    ),
    # The paper's scale, for a data-centre GPU; rehearsed for a few steps on a CPU.
    "shr-fan-68-gpu": TrainConfig(
        network=HourglassConfig(stacks=2, features=256, depth=4, crop_size=256, heatmap_size=64),
        steps=8000,
        batch_size=128,
        ema_decay=0.999,
        validate_every=400,
    ),
}


def _for_benchmark(layout: str, steps: int, **changes: Any) -> TrainConfig:
    """The paper's scale for another benchmark.

    The lean is a fact of the 300-W labels and unknown elsewhere. The crop rule is the default wherever face
    boxes reach from forehead to chin, see `benchmarks.readers`. None of these recipes has been run on its
    data.
    """
    base = RECIPES["shr-fan-68-gpu"]
    network = replace(base.network, landmarks=len(get_layout(layout)))
    changes = {"lean": 0.0, **changes}
    return replace(base, layout=layout, network=network, steps=steps, validate_every=steps // 20, **changes)


RECIPES |= {
    "shr-fan-300w": _for_benchmark("ibug-68", 8000, lean=0.0098),
    # Large poses, for the second split to start from (--init), and for COFW-68 as it is.
    "shr-fan-300w-lp": _for_benchmark("ibug-68", 20000),
    "shr-fan-300w-split2": _for_benchmark("ibug-68", 4000, lean=0.0098, learning_rate=1e-3),
    "shr-fan-cofw68": _for_benchmark("ibug-68", 20000),
    # The mean face of AFLW reaches from 0.20 to 0.93 of the height of its box; a crop is 1.4 such heights.
    "shr-fan-aflw19": _for_benchmark("aflw-19", 20000, crop_scale=0.52, crop_shift=0.065),
    "shr-fan-cofw": _for_benchmark("cofw-29", 4000),
    "shr-fan-wflw": _for_benchmark("wflw-98", 16000),
}
