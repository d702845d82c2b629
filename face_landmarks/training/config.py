"""Everything that defines a training run, in one place, and the recipes of our own models."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from numbers import Integral, Real
from typing import Any, Literal, get_args

from face_landmarks._system.arguments import as_number
from face_landmarks.errors import InputError
from face_landmarks.layouts import get_layout
from face_landmarks.models.hourglass import HourglassConfig

CoordinateNorm = Literal["l1", "l2", "star"]


@dataclass(frozen=True)
class AugmentConfig:
    """How much a training view may differ from the nominal crop.

    The defaults of shift and scale follow the errors of a detector's boxes, measured against boxes made
    from the landmarks; the others add variety.

    Attributes:
        rotation: standard deviation in degrees; draws are clipped at three standard deviations.
        scale: standard deviation of the logarithm of the face's size in the crop.
        shift: standard deviation of the face's position, in crop sides.
        flip: share of mirrored views.
        colour: strength of the brightness, contrast, saturation and gamma changes, from 0 (none) to 1.
        gray: share of gray views.
        blur: share of blurred views.
        noise: largest standard deviation of added pixel noise.
        occlusion: share of views with a rectangle of the face hidden.
        turned: share of views turned by any angle, uniformly, and shifted three times as far.
        stretch: standard deviation of the logarithm by which a face is made wider and, by as much, lower.

    Raises:
        InputError: a share outside [0, 1], or a negative strength.
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
    turned: float = 0.0
    stretch: float = 0.0

    def __post_init__(self) -> None:
        for name in ("flip", "colour", "gray", "blur", "occlusion", "turned"):
            _require(f"augment.{name}", getattr(self, name), "a number from 0 to 1", least=0, most=1)
        for name in ("rotation", "scale", "shift", "noise", "stretch"):
            _require(f"augment.{name}", getattr(self, name), "a number, 0 or more", least=0)


@dataclass(frozen=True)
class TrainConfig:
    """A training run: network, crop rule, targets, losses, optimiser.

    Attributes:
        network: the network's shape.
        layout: name of the landmark layout.
        crop_scale: side of the crop in units of face box width + height.
        crop_shift: how far below the box's centre the crop's centre lies, in box heights.
        sigma: of the Gaussian targets, in cells.
        rounded: round targets to whole cells, as older methods do; for comparison only.
        window: side of the local soft-argmax window, in cells.
        temperature: tau of the local soft-argmax.
        lean: how far right of the mirror-symmetric position the labels are, as a share of the
            inter-ocular distance; mirrored labels are moved so that they are as far right.
        steps: optimiser steps.
        batch_size: crops per step; where views are compared, two views of half as many faces.
        learning_rate: peak of the one-cycle cosine schedule.
        warmup: share of the steps spent rising to the peak.
        weight_decay: of AdamW, on convolution weights only.
        clip_norm: largest norm of the gradient.
        ema_decay: of the averaged weights that are validated and exported.
        coordinate_weight: of the distance between decoded and true landmarks, in cells.
        coordinate_norm: of that distance: "l1", "l2", or "star", see `losses.coordinate_loss`.
        siamese_weight: of the disagreement between two views' heatmaps.
        siamese_coordinate_weight: of the L1 distance between the landmarks two views decode to, in
            cells; needs a siamese_weight above 0.
        near_weight: of the squared distance, in squared cells, between the landmarks of two views that
            differ only by a shift of up to `near_reach`; needs near_every above 0.
        near_every: every such step compares near views instead of independent ones; 0: no step does.
        near_reach: largest shift between near views, in crop pixels along each axis.
        teacher_weight: of the squared difference between the network's heatmaps and a teacher's.
        teacher_coordinate_weight: of the distance, by coordinate_norm, between the landmarks that the
            network's heatmaps and the teacher's decode to, in cells.
        large_pose_share: share of each batch drawn from the secondary data (e.g. 300W-LP).
        unlabelled_share: share of each batch drawn from faces without landmarks, which take
            part in the terms that compare views or follow a teacher only.
        source_margin: side of the stored training picture, in crop sides.
        source_scale: pixels of the stored training picture per pixel of the crop; above 1 for a teacher
            with larger crops than the network's.
        validate_every: steps between validations.
        seed: of weights, sampling and augmentation.

    Raises:
        InputError: an impossible value, or values that contradict each other; the message names them.
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
    coordinate_norm: CoordinateNorm = "l1"
    siamese_weight: float = 0.5
    siamese_coordinate_weight: float = 0.0
    near_weight: float = 0.0
    near_every: int = 0
    near_reach: float = 1.0
    teacher_weight: float = 0.0
    teacher_coordinate_weight: float = 0.0
    large_pose_share: float = 0.0
    unlabelled_share: float = 0.0
    source_margin: float = 1.5
    source_scale: float = 1.0
    validate_every: int = 250
    seed: int = 0

    def __post_init__(self) -> None:
        self._check_values()
        if self.near_weight and not self.near_every:
            raise InputError("near_weight: expected 0 without near_every, as no step compares near views")
        if self.near_every and not self.near_weight:
            raise InputError("near_every: expected 0 without near_weight, as nothing would compare the views")
        if self.siamese_coordinate_weight and not self.siamese_weight:
            raise InputError("siamese_coordinate_weight: expected 0 without siamese_weight")
        if self.batch_size % self.views:
            raise InputError(f"batch_size: expected an even number for pairs of views, got {self.batch_size}")
        if self.counts(large_pose=True, unlabelled=True)[0] < 1:
            raise InputError(
                "large_pose_share + unlabelled_share: expected less than 1, and a labelled face in each "
                f"batch, got {self.large_pose_share} + {self.unlabelled_share} of "
                f"{self.batch_size // self.views} faces"
            )
        landmarks = len(get_layout(self.layout))
        if self.network.landmarks != landmarks:
            raise InputError(
                f"network.landmarks: expected {landmarks}, as in {self.layout}, got {self.network.landmarks}"
            )

    def _check_values(self) -> None:
        for name in ("steps", "batch_size", "validate_every"):
            _require(name, getattr(self, name), "a whole number above 0", kind=Integral, least=1)
        _require("near_every", self.near_every, "a whole number, 0 or more", kind=Integral, least=0)
        _require("seed", self.seed, "a whole number, 0 or more", kind=Integral, least=0, most=2**63 - 1)
        _require("window", self.window, "an odd number of cells", kind=Integral, least=1)
        if self.window % 2 == 0:
            raise InputError(f"window: expected an odd number of cells, got {self.window}")
        for name in ("crop_scale", "sigma", "temperature", "learning_rate", "clip_norm"):
            _require(name, getattr(self, name), "a number above 0", least=math.ulp(0.0))
        for name in ("source_margin", "source_scale"):
            _require(name, getattr(self, name), "a number, 1 or more", least=1)
        for name in ("crop_shift", "lean"):
            _require(name, getattr(self, name), "a number from -1 to 1", least=-1, most=1)
        for name in ("warmup", "large_pose_share", "unlabelled_share"):
            _require(name, getattr(self, name), "a number from 0 to 1", least=0, most=1)
        _require("ema_decay", self.ema_decay, "a number from 0 to below 1", least=0, most=1 - 1e-9)
        for name in (
            "weight_decay", "coordinate_weight", "siamese_weight", "siamese_coordinate_weight",
            "near_weight", "near_reach", "teacher_weight", "teacher_coordinate_weight",
        ):  # fmt: skip
            _require(name, getattr(self, name), "a number, 0 or more", least=0)
        if not isinstance(self.rounded, bool):
            raise InputError(f"rounded: expected true or false, got {self.rounded!r}")
        if self.coordinate_norm not in get_args(CoordinateNorm):
            known = ", ".join(get_args(CoordinateNorm))
            raise InputError(f"coordinate_norm: expected one of {known}, got {self.coordinate_norm!r}")

    @property
    def views(self) -> Literal[1, 2]:
        """Views of each face in a step: two where a term compares them."""
        return 2 if self.siamese_weight > 0 or self.near_every > 0 else 1

    @property
    def source_size(self) -> int:
        """Side in pixels of what a crop covers of a stored training picture."""
        return round(self.source_scale * self.network.crop_size)

    @property
    def taught(self) -> bool:
        """Whether a term follows a teacher."""
        return self.teacher_weight > 0 or self.teacher_coordinate_weight > 0

    def counts(self, *, large_pose: bool, unlabelled: bool) -> tuple[int, int, int]:
        """Faces of a batch drawn from the labelled, the secondary and the unlabelled set.

        Args:
            large_pose: there is a secondary set.
            unlabelled: there are faces without landmarks.
        """
        faces = self.batch_size // self.views
        large = round(self.large_pose_share * faces) if large_pose else 0
        bare = round(self.unlabelled_share * faces) if unlabelled else 0
        return faces - large - bare, large, bare


def _require(
    name: str,
    value: Any,
    expected: str,
    *,
    kind: type = Real,
    least: float = -math.inf,
    most: float = math.inf,
) -> None:
    """Raise InputError unless a setting is a finite number of this kind in this range."""
    if not (math.isfinite(as_number(value)) and least <= value <= most and isinstance(value, kind)):
        raise InputError(f"{name}: expected {expected}, got {value!r}")


def restore_config(values: dict[str, Any]) -> TrainConfig:
    """The configuration of a checkpoint; settings that it does not have get their defaults.

    Raises:
        InputError: a setting that this version does not know.
    """
    try:
        network = HourglassConfig(**values["network"])
        augment = AugmentConfig(**values["augment"])
        return TrainConfig(**{**values, "network": network, "augment": augment})
    except (KeyError, TypeError) as error:
        raise InputError(f"expected the settings of this version's runs, got another: {error}") from error


RECIPES: dict[str, TrainConfig] = {
    "shr-fan-68-fast": TrainConfig(
        network=HourglassConfig(
            stacks=1,
            features=96,
            depth=3,
            crop_size=128,
            heatmap_size=32,
            norm="after",
            stem_pool="blur",
            waist=4,
        ),
        steps=2600,
        validate_every=130,
    ),
    # Distilled by labels: its second set holds faces that the best model labelled, see docs/training.md.
    "shr-fan-68-tiny": TrainConfig(
        network=HourglassConfig(
            stacks=1,
            features=64,
            depth=3,
            crop_size=96,
            heatmap_size=24,
            norm="after",
            stem_pool="blur",
            waist=4,
            block="plain",
        ),
        window=7,
        steps=10000,
        ema_decay=0.999,
        coordinate_weight=1.5,
        coordinate_norm="l2",
        siamese_weight=0.0,
        large_pose_share=0.4,
        augment=AugmentConfig(rotation=15.0, turned=0.12),
        validate_every=500,
    ),
    # Wide, for processors with bfloat16 matrix units and GPUs, which use width better than depth. Most of the
    # training can be done on smaller crops, or without a waist, and continued from there with --init.
    "shr-fan-68": TrainConfig(
        network=HourglassConfig(
            stacks=1,
            features=256,
            depth=3,
            crop_size=192,
            heatmap_size=48,
            norm="after",
            stem_pool="blur",
            waist=4,
        ),
        window=9,
        steps=2000,
        batch_size=32,
        learning_rate=1e-3,
        validate_every=200,
        siamese_coordinate_weight=0.5,
    ),
    # The paper's scale, for a data-centre GPU; tried for a few steps on a CPU.
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

    The lean is measured for the 300-W labels, and unknown for others. The crop rule is the default where face
    boxes reach from forehead to chin, see `benchmarks.readers`. None of these recipes has been run on its
    full data.
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
