"""Small landmark networks with random weights and norms."""

import torch
from torch import nn

from face_landmarks.models.hourglass import HourglassConfig, StackedHourglass


def random_network(norm, stem_pool="average", stacks=2):
    """Crops (B, 3, 64, 64) -> heatmaps (B, 5, 16, 16)."""
    torch.manual_seed(0)
    shape = {"landmarks": 5, "features": 32, "depth": 2, "crop_size": 64, "heatmap_size": 16}
    network = StackedHourglass(HourglassConfig(stacks=stacks, norm=norm, stem_pool=stem_pool, **shape))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
    return network.eval()
