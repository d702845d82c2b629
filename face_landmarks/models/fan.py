"""The published FAN models: their card, and their tensors under this package's names.

Reference:
    Bulat, Tzimiropoulos. How far are we from solving the 2D & 3D face alignment problem?
    ICCV 2017. https://arxiv.org/abs/1703.07332
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from face_landmarks.models.card import ModelCard
from face_landmarks.models.hourglass import HourglassConfig
from face_landmarks.models.weights_file import WeightsFile

# FAN was trained with Gaussian targets of 1.75 cells, which the default decoder reads well.
#
# The offset is DERIVED, NOT MEASURED: no face has been scored with it. Training took one-based labels
# for zero-based ones and cut its 256 px crops from 360 px of the photo: one photo pixel, less the half
# pixel of the pixel centres, is 0.36 crop pixels. Mirrored training images cancel it in x. To measure
# it: `face-landmarks evaluate --model 2dfan4` prints the mean signed error.
FAN_CARD = ModelCard(
    name="2dfan4",
    summary=(
        "2DFAN-4 as published with ICCV 2017: four stacks, classic heatmaps. The offset is derived "
        "from its published training code, not measured."
    ),
    licence="as published by its authors; its training data, 300W-LP, is for research only",
    layout="ibug-68",
    network=HourglassConfig(
        landmarks=68, stacks=4, features=256, depth=4, crop_size=256, heatmap_size=64, norm="before"
    ),
    format="fan",
    crop_scale=200 / 195,
    crop_shift=-0.12,
    window=5,
    temperature=10.0,
    offset=(0.0, 0.36),
    lean=0.0,
    training_data="300W-LP (Zhu et al. 2016)",
    command="https://github.com/1adrianb/face-alignment-training",
    scores={},
    file=WeightsFile(
        name="2DFAN4-11f355bf06.pth.tar",
        sha256="11f355bf0693120222f5955ce3f9dc8fb5763ebb30a47d7906e509490d32e4aa",
        size=95_641_761,
        urls=("https://www.adrianbulat.com/downloads/python-fan/2DFAN4-11f355bf06.pth.tar",),
    ),
)


def convert_fan_state_dict(state: Mapping[str, Tensor], config: HourglassConfig) -> dict[str, Tensor]:
    """The published FAN weights under the names of `hourglass`.

    The published file was written before torch 0.4.1 and lacks the number of batches that each norm
    has seen. Predictions do not depend on it; it is set to 0.

    Args:
        state: the published state dict, with keys like "m0.b2_4.bn1.weight".
        config: of the network, with norm "before".

    Returns:
        The same tensors. A key that FAN does not have keeps its name, and `check_state_dict` reports it.
    """
    converted = {_fan_name(name, config.depth) or name: value for name, value in state.items()}
    norms = [name.removesuffix("running_mean") for name in converted if name.endswith(".running_mean")]
    return {
        f"{norm}num_batches_tracked": torch.tensor(0, dtype=torch.int64, device="cpu") for norm in norms
    } | converted


_FAN_STEM = {"conv1": "conv", "bn1": "bn", "conv2": "block1", "conv3": "block2", "conv4": "block3"}
_FAN_HEAD = {
    "top_m_": "top", "conv_last": "conv", "bn_end": "bn", "l": "heatmaps", "bl": "from_features",
    "al": "from_heatmaps",
}  # fmt: skip
_FAN_BLOCK = {"b1": "skip", "b2": "down", "b3": "up"}


def _fan_name(name: str, depth: int) -> str | None:
    """Our name of FAN's key; None if FAN has no such key."""
    module, _, rest = name.partition(".")
    rest = rest.replace("downsample.", "project.")
    if module in _FAN_STEM:
        return f"{_FAN_STEM[module]}.{rest}"
    head = re.fullmatch(r"(top_m_|conv_last|bn_end|l|bl|al)(\d+)", module)
    if head:
        return f"stacks.{head[2]}.{_FAN_HEAD[head[1]]}.{rest}"
    block = re.fullmatch(r"m(\d+)\.(b[123])_(\d+|plus_1)\.(.+)", f"{module}.{rest}")
    if block is None:
        return None
    stack, kind, level, leaf = block.groups()
    if level == "plus_1":  # the waist, below the innermost level
        return f"stacks.{stack}.hourglass{'.inner' * depth}.{leaf}"
    return f"stacks.{stack}.hourglass{'.inner' * (depth - int(level))}.{_FAN_BLOCK[kind]}.{leaf}"
