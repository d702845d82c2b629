"""Random views of whole batches, computed in torch on the training device, with their matrices."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from face_landmarks.geometry import mirror_matrix, sample, similarity, transform_points
from face_landmarks.layouts import Layout
from face_landmarks.training.config import AugmentConfig


@dataclass(frozen=True)
class Views:
    """Augmented crops with their landmarks and matrices.

    Attributes:
        crops: (B, 3, crop_size, crop_size) float32 in [0, 1].
        landmarks: (B, K, 2) in crop pixels, mirrored views in the layout's order.
        source_to_crop: (B, 3, 3) float64, the mirror included.
    """

    crops: Tensor
    landmarks: Tensor
    source_to_crop: Tensor


def random_views(
    pictures: Tensor,
    landmarks: Tensor,
    flips: Tensor,
    crop_size: int,
    layout: Layout,
    lean: float,
    config: AugmentConfig,
    generator: Generator,
    nudge: Tensor | float = 0.0,
    *,
    source_scale: float = 1.0,
) -> Views:
    """One random view of each picture.

    Args:
        pictures: (B, 3, S, S) uint8, the face at its nominal size and centred.
        landmarks: (B, K, 2) in picture pixels.
        flips: (B,) bool, which to mirror.
        crop_size: side of the views in pixels.
        layout: of the landmarks; gives their order in a mirror image.
        lean: how far right of the mirror-symmetric position the labels are, see `mirror_landmarks`.
        config: strengths.
        generator: source of randomness, on the pictures' device.
        nudge: (B, 2) crop pixels by which each face is moved at the end.
        source_scale: picture pixels per crop pixel at the face's nominal size.
    """
    device, count, size = pictures.device, len(pictures), pictures.shape[-1]

    def normal(*shape: int) -> Tensor:
        draw = torch.randn(count, *shape, generator=generator, device=device, dtype=torch.float64)
        return draw.clamp(-3, 3)

    mirror = torch.where(
        flips.view(-1, 1, 1),
        mirror_matrix(size).to(device),
        torch.eye(3, dtype=torch.float64, device=device),
    )
    centre = torch.full((count, 2), (size - 1) / 2, dtype=torch.float64, device=device)
    scale, rotation, shift = config.scale * normal(), normal() * math.radians(config.rotation), normal(2)
    if config.turned:
        draw = torch.rand(count, 2, generator=generator, device=device, dtype=torch.float64)
        turned = draw[:, 0] < config.turned
        rotation = torch.where(turned, (2 * draw[:, 1] - 1) * math.pi, rotation)
        shift = torch.where(turned[:, None], 3 * shift, shift)
    move = similarity(
        scale=scale.exp() / source_scale,
        rotation=rotation,
        source_centre=centre,
        target_centre=(crop_size - 1) / 2 + shift * config.shift * crop_size + nudge,
    )
    if config.stretch:
        move = move @ _stretch(config.stretch * normal(), centre)
    source_to_crop = move @ mirror

    crops = sample(pictures.float() / 255, torch.linalg.inv(source_to_crop), crop_size)
    mirrored = mirror_landmarks(landmarks, size, layout, lean)
    points = transform_points(move, torch.where(flips.view(-1, 1, 1), mirrored, landmarks))
    return Views(disturb(crops, config, generator), points, source_to_crop)


def _stretch(amount: Tensor, centre: Tensor) -> Tensor:
    """Matrices (B, 3, 3) that make a face wider by exp(amount), and as much lower, about a centre (B, 2)."""
    factors = torch.stack((amount.exp(), (-amount).exp()), dim=1)  # (B, 2)
    matrices = torch.diag_embed(torch.cat((factors, torch.ones_like(factors[:, :1])), dim=1))
    matrices[:, :2, 2] = centre * (1 - factors)
    return matrices


def near_views(
    pictures: Tensor,
    landmarks: Tensor,
    flips: Tensor,
    crop_size: int,
    layout: Layout,
    lean: float,
    config: AugmentConfig,
    generator: Generator,
    reach: float,
    source_scale: float = 1.0,
) -> Views:
    """Two views of each picture that differ only by a small shift.

    The second view has the colours, noise and hidden parts of the first one; its face is moved by up to
    `reach` crop pixels along each axis. The other arguments are those of `random_views`.

    Returns:
        2 B views, all first views first.
    """
    count, device = len(pictures), pictures.device
    nudge = 2 * torch.rand(count, 2, generator=generator, dtype=torch.float32, device=device) - 1
    numbers = generator.get_state()
    rules = (crop_size, layout, lean, config, generator)
    first = random_views(pictures, landmarks, flips, *rules, source_scale=source_scale)
    generator.set_state(numbers)
    second = random_views(pictures, landmarks, flips, *rules, reach * nudge, source_scale=source_scale)
    return Views(
        torch.cat((first.crops, second.crops)),
        torch.cat((first.landmarks, second.landmarks)),
        torch.cat((first.source_to_crop, second.source_to_crop)),
    )


def mirror_landmarks(landmarks: Tensor, width: int, layout: Layout, lean: float) -> Tensor:
    """Landmarks (B, K, 2) as an annotator would place them in the mirrored picture.

    In every picture, the 300-W labels are to the right of what a mirror-symmetric predictor finds, by
    `lean` inter-ocular distances. Mirrored labels are as far to the left, so they are moved to the right
    by twice that distance.
    """
    right, left = layout.eye_corners
    inter_ocular = (landmarks[:, left] - landmarks[:, right]).norm(dim=-1)  # (B,)
    mirrored = landmarks[:, list(layout.mirror)].clone()
    mirrored[..., 0] = width - 1 - mirrored[..., 0] + 2 * lean * inter_ocular.unsqueeze(1)
    return mirrored


def disturb(crops: Tensor, config: AugmentConfig, generator: Generator) -> Tensor:
    """Change colours, sharpness and visibility, never geometry: (B, 3, H, W) in [0, 1]."""
    crops = _blur(crops, config.blur, generator)
    crops = _occlude(crops, config.occlusion, generator)
    crops = _recolour(crops, config.colour, config.gray, generator)
    strength = config.noise * _uniform(crops, generator, 1, 1, 1)
    noise = torch.randn(crops.shape, generator=generator, device=crops.device, dtype=crops.dtype)
    return (crops + strength * noise).clamp(0, 1)


def _uniform(like: Tensor, generator: Generator, *shape: int) -> Tensor:
    """Numbers in [0, 1), one set per crop: (B, *shape)."""
    return torch.rand(len(like), *shape, generator=generator, device=like.device, dtype=like.dtype)


def _recolour(crops: Tensor, strength: float, gray_share: float, generator: Generator) -> Tensor:
    def spread(*shape: int) -> Tensor:
        return 1 + strength * (2 * _uniform(crops, generator, *shape) - 1)

    gray = crops.mean(dim=1, keepdim=True)  # (B, 1, H, W)
    saturation = spread(1, 1, 1) * (_uniform(crops, generator, 1, 1, 1) >= gray_share)
    crops = gray + saturation * (crops - gray)
    mean = crops.mean(dim=(1, 2, 3), keepdim=True)
    crops = mean + spread(1, 1, 1) * (crops - mean)  # contrast
    crops = crops * spread(1, 1, 1) * (1 + (spread(3, 1, 1) - 1) / 2)  # brightness, white balance
    return crops.clamp(1e-4, 1) ** spread(1, 1, 1)  # gamma


def _blur(crops: Tensor, share: float, generator: Generator) -> Tensor:
    """Gaussian blur of up to 1.5 % of the crop's side on a share of the crops."""
    count, channels, _, width = crops.shape
    reach = max(1, round(0.03 * width))
    chosen = _uniform(crops, generator, 1) < share
    sigma = (0.015 * width * _uniform(crops, generator, 1)).clamp_min(0.05)  # (B, 1)
    sigma = torch.where(chosen, sigma, 0.05)  # 0.05 px leaves the picture as it is
    steps = torch.arange(-reach, reach + 1, device=crops.device, dtype=crops.dtype)
    kernel = torch.softmax(-(steps**2) / (2 * sigma**2), dim=1)  # (B, R)
    kernel = kernel.repeat_interleave(channels, dim=0)[:, None]  # (B * 3, 1, R)
    flat = F.pad(crops.reshape(1, -1, *crops.shape[-2:]), (reach,) * 4, mode="replicate")
    flat = F.conv2d(flat, kernel[..., None, :], groups=count * channels)
    flat = F.conv2d(flat, kernel[..., None], groups=count * channels)
    return flat.view_as(crops)


def _occlude(crops: Tensor, share: float, generator: Generator) -> Tensor:
    """Hide a rectangle of each chosen crop behind one colour with some texture."""
    size = crops.shape[-1]
    centre = _uniform(crops, generator, 2) * size
    half = size * (0.05 + 0.15 * _uniform(crops, generator, 2))
    half = half * (_uniform(crops, generator, 1) < share)
    steps = torch.arange(size, device=crops.device, dtype=crops.dtype)
    across = (steps - centre[:, :1]).abs() < half[:, :1]  # (B, W)
    down = (steps - centre[:, 1:]).abs() < half[:, 1:]  # (B, H)
    hidden = (down.unsqueeze(2) & across.unsqueeze(1)).unsqueeze(1)  # (B, 1, H, W)
    colour = _uniform(crops, generator, 3, 1, 1)
    texture = _uniform(crops, generator, 1, size // 8, size // 8) - 0.5
    texture = F.interpolate(texture, size=size, mode="nearest") * _uniform(crops, generator, 1, 1, 1)
    return torch.where(hidden, (colour + texture).clamp(0, 1), crops)
