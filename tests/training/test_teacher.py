"""Distillation: a teacher's answers on the learning network's grid, and runs that follow them."""

import dataclasses

import pytest
import torch
from tiny_training import PLAIN, TINY, bare_set, face_set, trainer
from torch import nn

from face_landmarks.errors import InputError
from face_landmarks.geometry import resize_matrix, similarity, transform_points
from face_landmarks.heatmap import decode_heatmaps, encode_heatmaps
from face_landmarks.models.hourglass import HourglassConfig, StackedHourglass
from face_landmarks.models.registry import get_card
from face_landmarks.models.weights import LandmarkModel
from face_landmarks.training.teacher import Teacher

CPU = torch.device("cpu")
K = 68


class BrightSpot(nn.Module):
    """A teacher that finds all landmarks where the crop is brightest, as Gaussians of 1.5 cells."""

    def forward(self, crops):
        self.seen = crops
        spot, _ = decode_heatmaps(nn.functional.avg_pool2d(crops[:, :1], 4), method="log-parabola")
        size = crops.shape[-1] // 4
        return encode_heatmaps(spot, (size, size), 1.5).expand(-1, K, -1, -1)


def model(network=None, crop_size=64, offset=(0.0, 0.0), **changes):
    shape = HourglassConfig(stacks=1, features=16, depth=2, crop_size=crop_size, heatmap_size=crop_size // 4)
    rule = {
        "crop_scale": TINY.crop_scale,
        "crop_shift": TINY.crop_shift,
        "offset": offset,
        "calibration": None,
    }
    card = dataclasses.replace(
        get_card("shr-fan-68-fast"),
        name="teacher",
        network=shape,
        window=5,
        temperature=10.0,
        **rule | changes,
    )
    return LandmarkModel(card, BrightSpot() if network is None else network)


def student(crop_size=48, **changes):
    network = HourglassConfig(
        stacks=1, features=16, depth=2, crop_size=crop_size, heatmap_size=crop_size // 4
    )
    return dataclasses.replace(TINY, network=network, augment=PLAIN, teacher_weight=1.0, **changes)


@pytest.mark.parametrize(
    ("crop_size", "offset"),  # in the teacher's crop pixels
    [(48, (0.0, 0.0)), (64, (0.0, 0.0)), (96, (0.0, 0.0)), (64, (1.5, -2.0)), (96, (1.5, -2.0))],
)
def test_a_teachers_heatmaps_are_the_targets_of_what_it_finds(crop_size, offset):
    teacher = Teacher(model(crop_size=crop_size, offset=offset), student(), CPU)
    points = torch.tensor([[[4.2, 5.9], [7.25, 3.5], [6.0, 8.1]]])  # in the student's 12 x 12 cells
    ratio = crop_size / 48
    theirs = (points + 0.5) * ratio - 0.5 + torch.tensor(offset) / 4
    heatmaps = encode_heatmaps(theirs, (crop_size // 4, crop_size // 4), 1.5)
    expected = encode_heatmaps(points, (12, 12), 1.5)
    assert float((teacher.resample(heatmaps) - expected).abs().max()) < 0.01


@pytest.mark.parametrize("crop_size", [32, 48, 80])
@pytest.mark.parametrize("offset", [(0.0, 0.0), (1.5, -2.0)])
def test_a_teacher_sees_the_students_view_at_its_own_size(crop_size, offset):
    config = student(teacher_coordinate_weight=1.0)
    config = dataclasses.replace(config, teacher_weight=0.0)
    teacher = Teacher(model(crop_size=crop_size, offset=offset), config, CPU)
    spots = torch.tensor([[[40.0, 30.0]], [[30.5, 41.25]]])
    pictures = (255 * encode_heatmaps(spots, (72, 72), 3.0)).to(torch.uint8).expand(-1, 3, -1, -1)
    views = similarity(
        torch.tensor([1.0, 0.9, 1.1, 1.0]), torch.tensor([0.3, -0.2, 0.0, 3.0]),
        torch.full((4, 2), 35.5), torch.full((4, 2), 23.5),
    )  # fmt: skip
    heatmaps, points = teacher(pictures, views)
    assert teacher.network.seen.shape == (4, 3, crop_size, crop_size) and heatmaps.shape == (4, K, 12, 12)
    crop_to_heatmap = torch.linalg.inv(resize_matrix(4.0))
    expected = transform_points(crop_to_heatmap @ views, spots.repeat(2, 1, 1))
    error = torch.tensor(offset) * 48 / crop_size / 4  # its offset is in its crop pixels
    assert float((points + error - expected).abs().max()) < 0.2
    assert not points.requires_grad and not heatmaps.requires_grad


def test_a_teacher_must_fit_the_network_that_learns():
    with pytest.raises(
        InputError, match=r"teacher: expected crops of scale and shift \(0\.61, 0\.1365\), got"
    ):
        Teacher(model(crop_scale=0.7), student(), CPU)
    with pytest.raises(
        InputError, match="teacher_weight: expected a teacher of at least 12 x 12 cells, got 8"
    ):
        Teacher(model(crop_size=32), student(), CPU)
    points_alone = dataclasses.replace(student(teacher_coordinate_weight=1.0), teacher_weight=0.0)
    Teacher(model(crop_size=32), points_alone, CPU)
    config = dataclasses.replace(student(), layout="cofw-29", network=HourglassConfig(landmarks=29))
    with pytest.raises(InputError, match="teacher: expected a model of cofw-29, got one of ibug-68"):
        Teacher(model(), config, CPU)


def test_a_teacher_and_its_weights_come_together(tmp_path):
    with pytest.raises(InputError, match="teacher: expected a model, as a weight is above 0"):
        trainer(tmp_path, student())
    with pytest.raises(InputError, match="teacher: expected None, or a weight above 0: teacher_weight"):
        trainer(tmp_path, TINY, teacher=model())


@pytest.mark.parametrize(
    "changes",
    [
        {"siamese_weight": 0.0},
        {"siamese_weight": 0.5},
        {"siamese_weight": 0.0, "near_every": 2, "near_weight": 1.0},
        {"siamese_weight": 0.0, "coordinate_norm": "star", "teacher_weight": 0.0},
    ],
)
def test_labelled_secondary_and_unlabelled_faces_follow_a_teacher(tmp_path, changes):
    settings = {
        "batch_size": 8,
        "large_pose_share": 0.25,
        "unlabelled_share": 0.25,
        "teacher_coordinate_weight": 1.0,
    }
    config = dataclasses.replace(student(steps=4, validate_every=2), **{**settings, **changes})
    torch.manual_seed(3)
    shape = model(crop_size=64).card.network
    run = trainer(
        tmp_path, config, teacher=model(StackedHourglass(shape).eval()),
        large_pose=face_set(2, config, margin=1.5), unlabelled=bare_set(2, config),
    )  # fmt: skip
    batch = run.draw()
    faces = config.batch_size // config.views
    assert len(batch.pictures) == faces and batch.labelled == faces - faces // 4
    assert run.teacher is not None
    before = {name: value.clone() for name, value in run.teacher.network.state_dict().items()}
    run.run(progress=False)
    after = run.teacher.network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)  # eval, and without gradients
    terms = run.train_step()
    assert float(terms["teacher_coordinate"]) >= 0 and ("teacher" in terms) == (config.teacher_weight > 0)


def test_unlabelled_faces_are_learnt_from_a_teacher_alone(tmp_path):
    still = dataclasses.replace(PLAIN, rotation=0, scale=0, shift=0, flip=0)
    config = student(
        siamese_weight=0.0, unlabelled_share=0.75, batch_size=4, steps=80, validate_every=80,
        learning_rate=5e-3, source_margin=1.0, coordinate_weight=0.0,
    )  # fmt: skip
    config = dataclasses.replace(config, augment=still, teacher_weight=5.0, ema_decay=0.9, weight_decay=0.0)
    bare, other = bare_set(3, config, margin=1.0), face_set(1, config, seed=2)
    run = trainer(tmp_path, config, teacher=model(), labelled=other, validation=other, unlabelled=bare)

    def distance():
        source_to_crop = torch.eye(3, dtype=torch.float64).expand(3, 3, 3)
        taught, _ = run.teacher(bare.pictures, source_to_crop)
        with torch.inference_mode():
            found = run.average(bare.pictures.float() / 255)
        return float((found - taught).square().sum(dim=(2, 3)).mean())

    before = distance()
    run.run(progress=False)
    assert distance() < 0.4 * before
