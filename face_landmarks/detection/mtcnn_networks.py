"""The three networks of MTCNN, with the weights that come with facenet-pytorch."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Final, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from face_landmarks.errors import MissingDependencyError

CELL: Final = 12  # side of a cell of the first network, in pixels; the next cell is 2 pixels further

_Network = TypeVar("_Network", bound=nn.Module)


class ProposalNetwork(nn.Module):
    """Images (B, 3, H, W) -> corrections (B, 4, h, w) and scores (B, h, w) of 12 x 12 pixel cells."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 10, 3), nn.PReLU(10)
        self.conv2, self.prelu2 = nn.Conv2d(10, 16, 3), nn.PReLU(16)
        self.conv3, self.prelu3 = nn.Conv2d(16, 32, 3), nn.PReLU(32)
        self.conv4_1, self.conv4_2 = nn.Conv2d(32, 2, 1), nn.Conv2d(32, 4, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = F.max_pool2d(self.prelu1(self.conv1(x)), 2)
        x = self.prelu3(self.conv3(self.prelu2(self.conv2(x))))
        return self.conv4_2(x), self.conv4_1(x).softmax(dim=1)[:, 1]


class RefinementNetwork(nn.Module):
    """Squares (B, 3, 24, 24) -> corrections (B, 4) and scores (B,)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 28, 3), nn.PReLU(28)
        self.conv2, self.prelu2 = nn.Conv2d(28, 48, 3), nn.PReLU(48)
        self.conv3, self.prelu3 = nn.Conv2d(48, 64, 2), nn.PReLU(64)
        self.dense4, self.prelu4 = nn.Linear(576, 128), nn.PReLU(128)
        self.dense5_1, self.dense5_2 = nn.Linear(128, 2), nn.Linear(128, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = F.max_pool2d(self.prelu1(self.conv1(x)), 3, 2, ceil_mode=True)  # (B, 28, 11, 11)
        x = F.max_pool2d(self.prelu2(self.conv2(x)), 3, 2, ceil_mode=True)  # (B, 48, 4, 4)
        x = self.prelu3(self.conv3(x))  # (B, 64, 3, 3)
        x = self.prelu4(self.dense4(_columns_first(x)))
        return self.dense5_2(x), self.dense5_1(x).softmax(dim=1)[:, 1]


class OutputNetwork(nn.Module):
    """Squares (B, 3, 48, 48) -> corrections (B, 4), scores (B,) and five points (B, 5, 2).

    Points are x y in units of the square's side, from its upper left corner.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 32, 3), nn.PReLU(32)
        self.conv2, self.prelu2 = nn.Conv2d(32, 64, 3), nn.PReLU(64)
        self.conv3, self.prelu3 = nn.Conv2d(64, 64, 3), nn.PReLU(64)
        self.conv4, self.prelu4 = nn.Conv2d(64, 128, 2), nn.PReLU(128)
        self.dense5, self.prelu5 = nn.Linear(1152, 256), nn.PReLU(256)
        self.dense6_1, self.dense6_2 = nn.Linear(256, 2), nn.Linear(256, 4)
        self.dense6_3 = nn.Linear(256, 10)  # five x, then five y

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = F.max_pool2d(self.prelu1(self.conv1(x)), 3, 2, ceil_mode=True)  # (B, 32, 23, 23)
        x = F.max_pool2d(self.prelu2(self.conv2(x)), 3, 2, ceil_mode=True)  # (B, 64, 10, 10)
        x = F.max_pool2d(self.prelu3(self.conv3(x)), 2)  # (B, 64, 4, 4)
        x = self.prelu4(self.conv4(x))  # (B, 128, 3, 3)
        x = self.prelu5(self.dense5(_columns_first(x)))
        points = self.dense6_3(x).unflatten(1, (2, 5)).transpose(1, 2)
        return self.dense6_2(x), self.dense6_1(x).softmax(dim=1)[:, 1], points


def _columns_first(x: Tensor) -> Tensor:
    """(B, C, H, W) to (B, W * H * C), the order in which the networks were trained."""
    return x.permute(0, 3, 2, 1).flatten(1)


def load_network(kind: type[_Network], name: str, device: torch.device) -> _Network:
    """A network with its weights, for inference in float32; facenet-pytorch's own code is not imported.

    Raises:
        MissingDependencyError: facenet-pytorch is not installed, or lacks this file.
    """
    package = find_spec("facenet_pytorch")
    folders = (package.submodule_search_locations if package else None) or []
    for path in (Path(folder, "data", name) for folder in folders):
        if path.is_file():
            state = torch.load(path, weights_only=True, map_location="cpu")
            with torch.device("meta"):  # shapes alone: the weights come with the state
                network = kind()
            network.load_state_dict({key: value.float() for key, value in state.items()}, assign=True)
            network = network.eval().requires_grad_(False)
            return network.to(device).to(memory_format=torch.channels_last)
    found = f"it has no data/{name}" if package else "it is not installed"
    raise MissingDependencyError(
        f"MTCNN needs the weights in facenet-pytorch, pip install 'facenet-pytorch>=2.5.3,<2.6': {found}"
    )
