"""A training run of seconds: a tiny network, and faces that are a bright spot at their first landmark."""

from __future__ import annotations

import numpy as np
import torch

from face_landmarks.heatmap import encode_heatmaps
from face_landmarks.models.hourglass import HourglassConfig
from face_landmarks.training.config import AugmentConfig, TrainConfig
from face_landmarks.training.data import FaceSet, TrainingData
from face_landmarks.training.loop import Trainer

PLAIN = AugmentConfig(colour=0, gray=0, blur=0, noise=0, occlusion=0)
TINY = TrainConfig(
    network=HourglassConfig(stacks=1, features=16, depth=2, crop_size=32, heatmap_size=8),
    steps=6,
    batch_size=4,
    validate_every=3,
    lean=0.0,
)


def face_points(count, size, seed=0):
    """(B, 68, 2) face-like points: the subject's right eye is on the left."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(0.3 * size, 0.7 * size, (count, 68, 2))
    points[:, 36], points[:, 45] = (0.35 * size, 0.4 * size), (0.65 * size, 0.4 * size)
    return torch.from_numpy(points).float()


def spots(points, size):
    """(B, 3, S, S) uint8 pictures with a spot at the first of each face's points."""
    heatmaps = encode_heatmaps(points[:, :1], (size, size), 2.0)
    return (255 * heatmaps).round().to(torch.uint8).expand(-1, 3, -1, -1).contiguous()


def face_set(count, config=TINY, margin=1.0, seed=0):
    size = round(margin * config.network.crop_size)
    points = face_points(count, size, seed)
    return FaceSet(spots(points, size), points, tuple(f"face{i}" for i in range(count)))


def bare_set(count, config=TINY, margin=1.5):
    """Faces without landmarks."""
    faces = face_set(count, config, margin, seed=7)
    return FaceSet(faces.pictures, torch.empty(count, 0, 2), faces.names)


def training_data(config=TINY, **data):
    return TrainingData(
        **{"labelled": face_set(5, config, margin=1.5), "validation": face_set(3, config, seed=1)} | data
    )


def trainer(folder, config=TINY, *, initial=None, teacher=None, precision=torch.float32, **data):
    return Trainer(
        config, training_data(config, **data), folder,
        initial=initial, teacher=teacher, precision=precision, compile=False,
    )  # fmt: skip
