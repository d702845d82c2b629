"""The three networks of MTCNN, with the weights that come with facenet-pytorch.

Each is a chain of layers that every runtime knows:

    proposal    (B, 3, H, W) -> (B, 5, h, w), of cells of 12 x 12 pixels, the next one 2 pixels further
    refinement  (B, 3, 24, 24) -> (B, 5, 1, 1)
    output      (B, 3, 48, 48) -> (B, 15, 1, 1)

Pixels are RGB from 0 to 255. The channels: what to add to each edge of the box, in units of its side (4);
the logit of its being a face (1); five points (10), first all x, then all y, in units of the side from the
upper left corner.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from face_landmarks.errors import MissingDependencyError

CELL: Final = 12  # side of a cell of the first network, in pixels
STEP: Final = 2  # pixels from a cell to the next
REFINEMENT_SIZE: Final = 24  # side of the second network's input, in pixels
OUTPUT_SIZE: Final = 48  # of the third's

_MEAN, _SCALE = 127.5, 128.0  # the networks were trained on (pixels - mean) / scale
_BLOCK: Final = 16  # channels that a processor computes at once
_MAP: Final = 3  # side of the map that the first dense layer sees, in cells

_Layer = TypeVar("_Layer", bound=nn.Module)


class Chain(NamedTuple):
    """One of the networks.

    Attributes:
        file: of its weights, in facenet-pytorch.
        input: side of its input in pixels; 0: any.
        layers: names, and for each the side of the pooling behind it; 0: none.
        face: name of the last layer with two logits, not a face and a face.
        box: the one with the edges.
        points: the one with the points; "": none.
    """

    file: str
    input: int
    layers: Sequence[tuple[str, int]]
    face: str
    box: str
    points: str = ""

    @property
    def channels(self) -> int:
        """Of the network's answer."""
        return 15 if self.points else 5


PROPOSAL: Final = Chain("pnet.pt", 0, [("conv1", 2), ("conv2", 0), ("conv3", 0)], "conv4_1", "conv4_2")
REFINEMENT: Final = Chain(
    "rnet.pt",
    REFINEMENT_SIZE,
    [("conv1", 3), ("conv2", 3), ("conv3", 0), ("dense4", 0)],
    "dense5_1",
    "dense5_2",
)
OUTPUT: Final = Chain(
    "onet.pt",
    OUTPUT_SIZE,
    [("conv1", 3), ("conv2", 3), ("conv3", 2), ("conv4", 0), ("dense5", 0)],
    "dense6_1",
    "dense6_2",
    "dense6_3",
)


def load_network(chain: Chain) -> nn.Sequential:
    """A network with its weights, for inference in float32; facenet-pytorch's own code is not imported.

    Raises:
        MissingDependencyError: facenet-pytorch is not installed, or lacks this file.
    """
    package = find_spec("facenet_pytorch")
    folders = (package.submodule_search_locations if package else None) or []
    for path in (Path(folder, "data", chain.file) for folder in folders):
        if path.is_file():
            state = torch.load(path, weights_only=True, map_location="cpu")
            layers = _layers({name: values.float() for name, values in state.items()}, chain)
            return nn.Sequential(*layers).eval().requires_grad_(False)
    found = f"it has no data/{chain.file}" if package else "it is not installed"
    raise MissingDependencyError(
        f"MTCNN needs the weights in facenet-pytorch, pip install 'facenet-pytorch>=2.5.3,<2.6': {found}"
    )


def for_runtimes(network: nn.Sequential) -> nn.Sequential:
    """The same network, of layers that other runtimes compute in the layout of their convolutions.

    For PReLU they would leave it. With a slope a of at most 1 it is x + relu((a - 1) x), with any slope
    a x + (1 - a) relu(x). Pooling comes first where that needs no further block of channels.
    """
    layers: list[Any] = list(network)
    for i, layer in enumerate(layers):
        if not isinstance(layer, nn.PReLU):
            continue
        slopes = layer.weight
        pooled = isinstance(layers[i + 1], nn.MaxPool2d)
        if isinstance(layers[i - 1], nn.Linear):
            layers[i - 1 : i + 2] = _without_prelu(*layers[i - 1 : i + 2])
        elif pooled and len(slopes) + (slopes < 0).sum() <= _BLOCK:
            layers[i - 1 : i + 3] = _pooled_first(*layers[i - 1 : i + 3])
        elif (slopes <= 1).all():
            layers[i] = _Sum(nn.Identity(), _scaling(slopes - 1), nn.Identity())
        else:
            layers[i] = _Sum(_scaling(slopes), nn.Identity(), _scaling(1 - slopes))
    return nn.Sequential(*layers).requires_grad_(False)


class _Sum(nn.Module):
    """A layer, and another behind a third and ReLU: one(x) + other(relu(gap(x)))."""

    def __init__(self, one: nn.Module, gap: nn.Module, other: nn.Module) -> None:
        super().__init__()
        self.one, self.gap, self.other = one, gap, other

    def forward(self, x: Tensor) -> Tensor:
        total: Tensor = self.one(x) + self.other(F.relu(self.gap(x)))
        return total


def _without_prelu(first: nn.Linear, prelu: nn.PReLU, last: nn.Linear) -> list[nn.Module]:
    """Two dense layers with PReLU between them, relu(x) - a relu(-x), as two with ReLU."""
    inner = _dense(torch.cat((first.weight, -first.weight)), torch.cat((first.bias, -first.bias)))
    outer = _dense(torch.cat((last.weight, -prelu.weight * last.weight), dim=1), last.bias)
    return [inner, nn.ReLU(), outer]


def _pooled_first(
    first: nn.Conv2d, prelu: nn.PReLU, pool: nn.MaxPool2d, following: nn.Conv2d
) -> list[nn.Module]:
    """Convolution, PReLU, pooling and convolution as convolution, pooling, PReLU and convolution.

    Where the slope a is negative, the largest of max(x, a x) is that of x or that of a x, which gets a
    channel of its own. Where it is above 1, PReLU is min(x, a x): max(-x, -a x) is computed, and the next
    convolution takes its weights with the other sign.
    """
    assert first.bias is not None and following.bias is not None, "as the networks' own layers"
    slopes = prelu.weight
    falling = (slopes < 0).nonzero()[:, 0]
    channels = len(slopes)
    weight = torch.cat((first.weight, (slopes[:, None, None, None] * first.weight)[falling]))
    bias = torch.cat((first.bias, (slopes * first.bias)[falling]))
    sign = 1 - 2 * (slopes > 1).to(slopes.dtype)
    x = torch.eye(channels, channels + len(falling), dtype=slopes.dtype, device=slopes.device)
    slope_x = x * slopes[:, None].clamp(min=0)
    for own, channel in enumerate(falling.tolist(), channels):
        slope_x[channel, own] = 1
    one, gap = (
        _convolution((sign[:, None] * rows)[..., None, None], torch.zeros_like(slopes))
        for rows in (x, slope_x - x)
    )
    signed = _convolution(following.weight * sign[:, None, None], following.bias)
    return [_convolution(weight, bias), pool, _Sum(one, gap, nn.Identity()), signed]


def _layers(state: dict[str, Tensor], chain: Chain) -> Iterator[nn.Module]:
    """The layers of a chain."""
    for name, pool in chain.layers:
        weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
        if name == chain.layers[0][0]:  # takes pixels as they are
            weight, bias = weight / _SCALE, bias - _MEAN / _SCALE * weight.sum(dim=(1, 2, 3))
        if weight.ndim == 2:
            yield nn.Flatten()
            # The networks were trained on maps whose columns come first: (W, H, C).
            weight = weight.view(len(weight), _MAP, _MAP, -1).permute(0, 3, 2, 1).flatten(1)
        yield _layer(weight, bias)
        yield _assign(nn.PReLU(len(weight), device="meta"), weight=state[f"prelu{name[-1]}.weight"])
        if pool:
            yield nn.MaxPool2d(pool, 2, ceil_mode=True)
    weight, bias = state[f"{chain.face}.weight"], state[f"{chain.face}.bias"]
    ends = [(state[f"{name}.weight"], state[f"{name}.bias"]) for name in (chain.box, chain.points) if name]
    ends.insert(1, (weight[1:] - weight[:1], bias[1:] - bias[:1]))
    yield _layer(*(torch.cat(part) for part in zip(*ends, strict=True)))
    if weight.ndim == 2:
        yield nn.Unflatten(1, (chain.channels, 1, 1))


def _layer(weight: Tensor, bias: Tensor) -> nn.Module:
    return _dense(weight, bias) if weight.ndim == 2 else _convolution(weight, bias)


def _dense(weight: Tensor, bias: Tensor) -> nn.Linear:
    features, depth = weight.shape
    layer = nn.Linear(depth, features, device="meta")
    return _assign(layer, weight=weight, bias=bias)


def _convolution(weight: Tensor, bias: Tensor, groups: int = 1) -> nn.Conv2d:
    features, depth, height, width = weight.shape
    layer = nn.Conv2d(depth * groups, features, (height, width), groups=groups, device="meta")
    return _assign(layer, weight=weight, bias=bias)


def _scaling(factors: Tensor) -> nn.Conv2d:
    """Multiplies each of the (C,) channels by its factor."""
    return _convolution(factors[:, None, None, None], torch.zeros_like(factors), len(factors))


def _assign(layer: _Layer, **values: Tensor) -> _Layer:
    """A layer that was made without numbers, with these."""
    layer.load_state_dict({name: part.contiguous() for name, part in values.items()}, assign=True)
    return layer
