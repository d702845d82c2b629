"""The landmark network: a stack of hourglasses, each of which predicts one heatmap per landmark.

References:
    Bulat, Tzimiropoulos. How far are we from solving the 2D & 3D face alignment problem?
    ICCV 2017. https://arxiv.org/abs/1703.07332  (FAN, the hierarchical residual block)

    Bulat, Sanchez, Tzimiropoulos. Subpixel Heatmap Regression for Facial Landmark Localization.
    BMVC 2021. https://arxiv.org/abs/2111.02360  (section 4: the same network, continuous heatmaps)

    Zhang. Making Convolutional Networks Shift-Invariant Again. ICML 2019.
    https://arxiv.org/abs/1904.11486  (pooling that smooths before it subsamples)
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from face_landmarks.errors import InputError

NormOrder = Literal["before", "after"]
StemPool = Literal["average", "blur"]
Block = Literal["hierarchical", "plain"]


@dataclass(frozen=True)
class HourglassConfig:
    """The shape of a stacked hourglass network.

    Attributes:
        landmarks: K, heatmaps predicted by every stack.
        stacks: S, hourglasses in sequence, each refining the heatmaps of the one before.
        features: channels of an hourglass; the stem has a quarter and a half of them.
        depth: number of times an hourglass halves its resolution.
        crop_size: side of the square input, in pixels.
        heatmap_size: side of the square output, in cells; a quarter of the crop.
        norm: "before", BN-ReLU-conv as in FAN; "after", conv-BN-ReLU, where each batch norm can be
            merged into the convolution before it.
        stem_pool: how the stem halves its resolution: "average", over 2 x 2 cells as in FAN; "blur", over
            4 x 4 with binomial weights, so that the heatmaps change less where a crop moves by half a cell.
        waist: further residual blocks at each of the two coarsest resolutions of an hourglass, where a
            cell sees most of the face. They start as identities, so weights without them can be extended.
        block: "hierarchical", FAN's block of three convolutions; "plain", one of two, and none before the
            stem's pool: fewer and simpler layers, for a network so small that the layers themselves take
            time. It has its norms after the convolutions.
    """

    landmarks: int = 68
    stacks: int = 4
    features: int = 256
    depth: int = 4
    crop_size: int = 256
    heatmap_size: int = 64
    norm: NormOrder = "before"
    stem_pool: StemPool = "average"
    waist: int = 0
    block: Block = "hierarchical"

    def __post_init__(self) -> None:
        for name in ("landmarks", "stacks", "features", "depth", "crop_size", "heatmap_size"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise InputError(f"HourglassConfig.{name}: expected at least 1 and whole, got {value!r}")
        if not isinstance(self.waist, int) or self.waist < 0:
            raise InputError(f"HourglassConfig.waist: expected a whole number, 0 or more, got {self.waist!r}")
        if self.features % 16:
            raise InputError(f"HourglassConfig.features: expected a multiple of 16, got {self.features}")
        if self.crop_size != 4 * self.heatmap_size:
            raise InputError(
                "HourglassConfig.heatmap_size: expected a quarter of crop_size "
                f"({self.crop_size} / 4), got {self.heatmap_size}"
            )
        if self.heatmap_size % 2**self.depth:
            raise InputError(
                f"HourglassConfig.heatmap_size: expected a multiple of 2**depth = {2**self.depth}, "
                f"got {self.heatmap_size}"
            )
        if self.norm not in ("before", "after"):
            raise InputError(f"HourglassConfig.norm: expected 'before' or 'after', got {self.norm!r}")
        if self.stem_pool not in ("average", "blur"):
            raise InputError(
                f"HourglassConfig.stem_pool: expected 'average' or 'blur', got {self.stem_pool!r}"
            )
        if self.block not in ("hierarchical", "plain"):
            raise InputError(f"HourglassConfig.block: expected 'hierarchical' or 'plain', got {self.block!r}")
        if self.block == "plain" and self.norm != "after":
            raise InputError(f"HourglassConfig.norm: expected 'after' for plain blocks, got {self.norm!r}")


class Residual(nn.Module):
    """FAN's hierarchical, parallel, multi-scale block: (B, C, H, W) -> (B, D, H, W).

    Three 3x3 convolutions give D/2, D/4 and D/4 channels, each fed by the one before; their
    concatenation is added to the input. Norm and ReLU come before each convolution.
    """

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        half, quarter = channels_out // 2, channels_out // 4
        self.bn1 = nn.BatchNorm2d(channels_in)
        self.conv1 = _conv3x3(channels_in, half)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv2 = _conv3x3(half, quarter)
        self.bn3 = nn.BatchNorm2d(quarter)
        self.conv3 = _conv3x3(quarter, quarter)
        self.project: nn.Module = nn.Identity()
        if channels_in != channels_out:
            self.project = nn.Sequential(
                nn.BatchNorm2d(channels_in),
                nn.ReLU(),
                nn.Conv2d(channels_in, channels_out, 1, bias=False),
            )

    def forward(self, x: Tensor) -> Tensor:
        a = self.conv1(F.relu(self.bn1(x)))  # (B, D/2, H, W)
        b = self.conv2(F.relu(self.bn2(a)))  # (B, D/4, H, W)
        c = self.conv3(F.relu(self.bn3(b)))  # (B, D/4, H, W)
        shortcut: Tensor = self.project(x)
        return torch.cat((a, b, c), dim=1) + shortcut  # (B, D, H, W)


class ConvNorm(nn.Sequential):
    """A 1x1 convolution and its norm."""

    foldable = (("0", "1"),)

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(nn.Conv2d(channels_in, channels_out, 1, bias=False), nn.BatchNorm2d(channels_out))


def _foldable_shortcut(channels_in: int, channels_out: int) -> nn.Module:
    """What a block with norms last adds its branch to: its input, projected if its channels change."""
    return nn.Identity() if channels_in == channels_out else ConvNorm(channels_in, channels_out)


class FoldableResidual(nn.Module):
    """The same block with each norm after its convolution: (B, C, H, W) -> (B, D, H, W).

    Each norm directly follows a convolution, so for inference `fold_batch_norms` merges it into the
    convolution's weights, at no cost.
    """

    foldable = (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3"))

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        half, quarter = channels_out // 2, channels_out // 4
        self.conv1 = _conv3x3(channels_in, half)
        self.bn1 = nn.BatchNorm2d(half)
        self.conv2 = _conv3x3(half, quarter)
        self.bn2 = nn.BatchNorm2d(quarter)
        self.conv3 = _conv3x3(quarter, quarter)
        self.bn3 = nn.BatchNorm2d(quarter)
        self.project = _foldable_shortcut(channels_in, channels_out)

    def forward(self, x: Tensor) -> Tensor:
        a = self.bn1(self.conv1(x))  # (B, D/2, H, W)
        b = self.bn2(self.conv2(F.relu(a)))  # (B, D/4, H, W)
        c = self.bn3(self.conv3(F.relu(b)))  # (B, D/4, H, W)
        return F.relu(torch.cat((a, b, c), dim=1) + self.project(x))  # (B, D, H, W)


class PlainResidual(nn.Module):
    """Two 3x3 convolutions, the first to D/4 channels: (B, C, H, W) -> (B, D, H, W).

    A ReLU follows each, the second after the sum with the input. Runtimes merge all of this into the
    convolutions, where the hierarchical block needs a concatenation, and sums and ReLUs of their own.
    """

    foldable = (("conv1", "bn1"), ("conv2", "bn2"))

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        quarter = channels_out // 4
        self.conv1 = _conv3x3(channels_in, quarter)
        self.bn1 = nn.BatchNorm2d(quarter)
        self.conv2 = _conv3x3(quarter, channels_out)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.project = _foldable_shortcut(channels_in, channels_out)

    def forward(self, x: Tensor) -> Tensor:
        a = F.relu(self.bn1(self.conv1(x)))  # (B, D/4, H, W)
        return F.relu(self.bn2(self.conv2(a)) + self.project(x))  # (B, D, H, W)


_AnyResidual: TypeAlias = Residual | FoldableResidual | PlainResidual
_BlockType: TypeAlias = type[Residual] | type[FoldableResidual] | type[PlainResidual]


def _block_type(config: HourglassConfig) -> _BlockType:
    if config.block == "plain":
        return PlainResidual
    return Residual if config.norm == "before" else FoldableResidual


class BlurPool(nn.Sequential):
    """Smooth, then halve the resolution: (B, C, H, W) -> (B, C, H/2, W/2), centred as average pooling is.

    Three averages of two cells in sequence weight four cells by 1, 3, 3, 1.
    """

    def __init__(self) -> None:
        super().__init__(nn.AvgPool2d(2, stride=1, padding=1), nn.AvgPool2d(2, stride=1), nn.AvgPool2d(2))


def _identity(block: _AnyResidual) -> nn.Module:
    """A block that changes nothing until it is trained, and which can be trained at once.

    Its branch is zero: where norms come last by their scale, else by the weights of its convolutions. The
    blocks with norms last end in a ReLU, and are identities for inputs that come from another such block.
    """
    if isinstance(block, PlainResidual):
        nn.init.zeros_(block.bn2.weight)
        return block
    convolutions = (block.conv1, block.conv2, block.conv3)
    norms = (block.bn1, block.bn2, block.bn3)
    for layer in norms if isinstance(block, FoldableResidual) else convolutions:
        nn.init.zeros_(layer.weight)
    return block


class Hourglass(nn.Module):
    """One hourglass: (B, C, H, W) -> (B, C, H, W). At its lowest resolution it covers the whole face."""

    def __init__(self, depth: int, channels: int, block: _BlockType, waist: int = 0) -> None:
        super().__init__()
        self.skip = block(channels, channels)
        self.pool = nn.AvgPool2d(2)
        self.down = block(channels, channels)
        self.inner = Hourglass(depth - 1, channels, block, waist) if depth > 1 else block(channels, channels)
        further = waist if depth <= 2 else 0
        self.waist = nn.Sequential(*(_identity(block(channels, channels)) for _ in range(further)))
        self.up = block(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        low = self.down(self.pool(x))  # (B, C, H/2, W/2)
        low = self.up(self.waist(self.inner(low)))
        skip: Tensor = self.skip(x)
        return skip + F.interpolate(low, scale_factor=2, mode="nearest")  # (B, C, H, W)


class Stack(nn.Module):
    """An hourglass with its head: (B, C, H, W) -> features (B, C, H, W) and heatmaps (B, K, H, W)."""

    foldable = (("conv", "bn"),)

    def __init__(self, config: HourglassConfig, block: _BlockType, *, last: bool) -> None:
        super().__init__()
        channels, landmarks = config.features, config.landmarks
        self.hourglass = Hourglass(config.depth, channels, block, config.waist)
        self.top = block(channels, channels)
        self.conv = nn.Conv2d(channels, channels, 1)
        self.bn = nn.BatchNorm2d(channels)
        self.heatmaps = nn.Conv2d(channels, landmarks, 1)
        self.from_features = None if last else nn.Conv2d(channels, channels, 1)
        self.from_heatmaps = None if last else nn.Conv2d(landmarks, channels, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.top(self.hourglass(x))  # (B, C, H, W)
        features = F.relu(self.bn(self.conv(features)))
        heatmaps = self.heatmaps(features)  # (B, K, H, W)
        if self.from_features is None or self.from_heatmaps is None:
            return x, heatmaps
        return x + self.from_features(features) + self.from_heatmaps(heatmaps), heatmaps


class StackedHourglass(nn.Module):
    """The landmark network: crops (B, 3, 4H, 4W), RGB in [0, 1] -> heatmaps (B, K, H, W).

    `forward` returns the heatmaps of the last stack; `forward_stacks` those of every stack, for the
    intermediate supervision of training.
    """

    foldable = (("conv", "bn"),)

    def __init__(self, config: HourglassConfig) -> None:
        super().__init__()
        self.config = config
        block = _block_type(config)
        half, quarter = config.features // 2, config.features // 4
        self.conv = nn.Conv2d(3, quarter, 7, stride=2, padding=3)
        self.bn = nn.BatchNorm2d(quarter)
        early = config.block != "plain"  # a block at twice the resolution of the others, which costs as much
        self.block1: nn.Module = block(quarter, half) if early else nn.Identity()
        self.pool: nn.Module = BlurPool() if config.stem_pool == "blur" else nn.AvgPool2d(2)
        self.block2 = block(half if early else quarter, half)
        self.block3 = block(half, config.features)
        self.stacks = nn.ModuleList(
            Stack(config, block, last=index == config.stacks - 1) for index in range(config.stacks)
        )

    def forward(self, crops: Tensor) -> Tensor:
        return self.forward_stacks(crops)[-1]

    def forward_stacks(self, crops: Tensor) -> list[Tensor]:
        """Every stack's heatmaps: S tensors of (B, K, H, W)."""
        x = F.relu(self.bn(self.conv(crops)))  # (B, C/4, 2H, 2W)
        x = self.pool(self.block1(x))  # (B, C/2, H, W), C/4 with plain blocks
        x = self.block3(self.block2(x))  # (B, C, H, W)
        outputs = []
        for stack in self.stacks:
            x, heatmaps = stack(x)
            outputs.append(heatmaps)
        return outputs


def random_network(config: HourglassConfig) -> StackedHourglass:
    """A network with random weights in float32, on the CPU, whatever torch's defaults are."""
    with torch.device("cpu"):
        return StackedHourglass(config).float()


def complexity(config: HourglassConfig) -> tuple[int, int]:
    """Size and cost of a network of this shape: parameters, and multiply-adds of its convolutions."""
    with torch.device("meta"):  # shapes without memory
        network = StackedHourglass(config)
    return sum(parameter.numel() for parameter in network.parameters()), multiply_adds(network)


def multiply_adds(network: StackedHourglass) -> int:
    """Cost of a crop: multiply-adds of the convolutions."""
    cells = network.config.heatmap_size**2
    stem = 4 * _weights(network.conv, network.block1) + _weights(network.block2, network.block3)
    hourglasses = [cast(Stack, stack).hourglass for stack in network.stacks]
    heads = _weights(network.stacks) - _weights(*hourglasses)
    return cells * (stem + heads) + sum(
        _hourglass_multiply_adds(hourglass, cells) for hourglass in hourglasses
    )


def _hourglass_multiply_adds(hourglass: nn.Module, cells: int) -> int:
    """Multiply-adds of an hourglass, or of the block within the last, whose input has so many cells."""
    if not isinstance(hourglass, Hourglass):
        return cells * _weights(hourglass)
    lower = cells // 4
    outer = cells * _weights(hourglass.skip) + lower * _weights(hourglass.down, hourglass.waist, hourglass.up)
    return outer + _hourglass_multiply_adds(hourglass.inner, lower)


def _weights(*modules: nn.Module) -> int:
    """Weights of the convolutions: the multiply-adds for each cell of their output."""
    layers = (layer for module in modules for layer in module.modules())
    return sum(layer.weight.numel() for layer in layers if isinstance(layer, nn.Conv2d))


def _conv3x3(channels_in: int, channels_out: int) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)


def fold_batch_norms(network: nn.Module, *, in_place: bool = False) -> nn.Module:
    """A copy for inference in which each norm that follows a convolution is merged into it.

    The outputs stay the same up to float32 rounding. With `norm="after"` no norm remains; with
    `norm="before"`, FAN's order, only those of the stem and the heads are merged.

    Args:
        network: any module whose parts name their pairs of convolution and norm in `foldable`.
        in_place: change and return the network itself.
    """
    folded = (network if in_place else copy.deepcopy(network)).eval()
    for module in folded.modules():
        for conv, norm in getattr(module, "foldable", ()):
            fused = fuse_conv_bn_eval(getattr(module, conv), getattr(module, norm))
            setattr(module, conv, fused)
            setattr(module, norm, nn.Identity())
    return folded
