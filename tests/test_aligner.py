"""The whole path: photo, boxes, crops, heatmaps, landmarks in the photo."""

import io
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from drawn_faces import mean_shape
from PIL import Image
from torch import nn

from face_landmarks import FaceAligner, Faces, LandmarkModel, head_pose, list_models, read_image
from face_landmarks.errors import DetectorError, ImageError, InputError, UnknownModelError, WeightsError
from face_landmarks.geometry import boxes_from_landmarks
from face_landmarks.heatmap import encode_heatmaps
from face_landmarks.layouts import IBUG_68
from face_landmarks.models.card import ModelCard
from face_landmarks.models.hourglass import HourglassConfig, StackedHourglass
from face_landmarks.models.weights import save_weights

ASTRONAUT = Path(__file__).parents[1] / "examples" / "data" / "astronaut.jpg"


class BrightestSpot(nn.Module):
    """A landmark network with no weights: its heatmaps are the image itself."""

    def forward(self, crops):
        return nn.functional.avg_pool2d(crops[:, :1], 4).expand(-1, 68, -1, -1)


class SureInTheEnd(nn.Module):
    """Sees the same face in every crop, and is as sure of it as the next of the scores says."""

    def __init__(self, scores):
        super().__init__()
        self.scores, self.passes = scores, 0
        points = 8 + 48 * torch.from_numpy(mean_shape(IBUG_68))
        self.face = encode_heatmaps(points, (64, 64), rounded=True)

    def forward(self, crops):
        self.passes += 1
        return (self.scores[self.passes - 1] * self.face).expand(len(crops), -1, -1, -1)


def card(**changes):
    values = {
        "name": "test",
        "summary": "a network for tests",
        "licence": "none",
        "layout": "ibug-68",
        "network": HourglassConfig(),
        "format": "native",
        "crop_scale": 0.61,
        "crop_shift": 0.1365,
        "window": 5,
        "temperature": 10.0,
        "offset": (0.0, 0.0),
        "lean": 0.0,
        "training_data": "none",
        "command": "none",
        "scores": {},
    }
    return ModelCard(**{**values, **changes})


def spot_finder(detector=None, offset=(0.0, 0.0), lean=0.0, **options):
    model = LandmarkModel(card(offset=offset, lean=lean), BrightestSpot())
    return FaceAligner(model, detector=detector, device="cpu", **options)


def photo_with_a_dot(x, y, size=(250, 300), sigma=3.0):
    columns, rows = np.arange(size[1]), np.arange(size[0])[:, None]
    dot = 255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2))
    return np.repeat(dot[..., None], 3, axis=2).round().astype(np.uint8)


@pytest.fixture(scope="module")
def aligner():
    return FaceAligner(device="cpu")


@pytest.fixture(scope="module")
def astronaut(aligner):
    return aligner.align(ASTRONAUT)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("box", [(90, 60, 190, 160), (101.5, 77.25, 180, 160)])
@pytest.mark.parametrize("dot", [(140.0, 110.0), (143.3, 121.8), (120.75, 99.5)])
def test_a_dot_is_found_where_it_was_drawn(box, dot, flip):
    faces = spot_finder(flip=flip).align(photo_with_a_dot(*dot), boxes=[box])
    np.testing.assert_allclose(faces.landmarks[0], np.tile(dot, (68, 1)), atol=0.06)


@pytest.mark.parametrize("x", [40.0, 1000.25, 19900.5])
def test_a_dot_is_found_as_well_far_from_the_origin(x):
    faces = spot_finder().align(photo_with_a_dot(x, 60, (120, 20000)), boxes=[(x - 40, 10, x + 41, 95)])
    np.testing.assert_allclose(faces.landmarks[0, 0], (x, 60), atol=0.06)


def test_the_offset_of_a_card_is_taken_off_in_crop_pixels():
    boxes, photo = [(90, 60, 190, 160)], photo_with_a_dot(140, 110)
    plain, moved = (
        spot_finder(offset=o).align(photo, boxes).landmarks[0, 0] for o in ((0.0, 0.0), (2.0, -1.0))
    )
    crop_pixel = 0.61 * 200 / 256
    np.testing.assert_allclose(plain - moved, np.array([2, -1]) * crop_pixel, atol=1e-3)


@pytest.mark.parametrize(("window", "temperature"), [(5, 10.0), (7, 10.0), (7, 2.0)])
def test_the_decoder_is_that_of_the_card(window, temperature):
    """Of two peaks, three cells apart, the lower one counts if the window reaches it."""

    class Peaks(nn.Module):
        def forward(self, crops):
            heatmaps = torch.zeros(len(crops), 68, 64, 64)
            heatmaps[:, :, 30, 32], heatmaps[:, :, 30, 35] = 1, 0.9
            return heatmaps

    model = LandmarkModel(card(window=window, temperature=temperature), Peaks())
    aligner = FaceAligner(model, detector=None, device="cpu", search=False)
    photo, box = np.zeros((200, 200, 3), np.uint8), [(0, 0, 200, 200)]
    high, low, rest = np.exp([0, -0.1 * temperature, -temperature])  # weights
    shift = 3 * (low - rest) / (high + low + (window**2 - 2) * rest) if window == 7 else 0
    crop_pixel = 0.61 * 400 / 256
    x = 100 + (32 + shift - 31.5) * 4 * crop_pixel
    np.testing.assert_allclose(aligner.align(photo, box).landmarks[0, :, 0], x, atol=0.01)
    np.testing.assert_allclose(aligner.heatmaps(photo, box).points[0, :, 0], 32 + shift, atol=1e-3)


def test_every_face_gets_its_own_dot_in_the_order_of_the_boxes():
    photo = np.maximum(photo_with_a_dot(60, 70), photo_with_a_dot(220, 150))
    boxes = np.array([[180, 110, 260, 190], [20, 30, 100, 110]])
    faces = spot_finder(batch_size=1).align(photo, boxes)
    np.testing.assert_allclose(faces.landmarks[:, 0], [[220, 150], [60, 70]], atol=0.06)
    np.testing.assert_array_equal(faces.boxes, boxes)
    assert faces.box_scores.tolist() == [1, 1]


@pytest.mark.parametrize("batch_size", [1, 2, 3, 32])
def test_batches_share_crops_without_mixing_photos(batch_size):
    dots = [(60 + 30 * i, 100 + 7 * i) for i in range(5)]
    photos = [photo_with_a_dot(*dot) for dot in dots]
    boxes = [[(x - 40, y - 40, x + 40, y + 40)] * n for (x, y), n in zip(dots, (1, 0, 3, 2, 1), strict=True)]
    results = spot_finder(batch_size=batch_size).align_batch(iter(photos), boxes)
    assert [len(faces) for faces in results] == [1, 0, 3, 2, 1]
    for faces, dot in zip(results, dots, strict=True):
        np.testing.assert_allclose(faces.landmarks, np.broadcast_to(dot, faces.landmarks.shape), atol=0.06)


def test_no_photos_give_no_results():
    assert spot_finder().align_batch([]) == []


def test_no_face_is_an_empty_result_of_the_right_shape():
    faces = spot_finder(detector=lambda image: np.empty((0, 4))).align(photo_with_a_dot(5, 5))
    assert isinstance(faces, Faces) and len(faces) == 0
    assert faces.landmarks.shape == (0, 68, 2) and faces.landmark_scores.shape == (0, 68)


def test_any_callable_can_be_the_detector():
    seen = []

    def detector(image):
        seen.append((image.shape, image.dtype))
        return [[90, 60, 190, 160]], [0.75]

    faces = spot_finder(detector).align(photo_with_a_dot(140, 110))
    np.testing.assert_allclose(faces.landmarks[0, 0], (140, 110), atol=0.06)
    assert faces.box_scores.tolist() == [0.75] and seen == [((250, 300, 3), np.uint8)]


def test_a_detector_that_breaks_its_contract_is_named():
    with pytest.raises(DetectorError):
        spot_finder(lambda image: "a face").align(photo_with_a_dot(5, 5))


def test_a_face_at_the_edge_of_the_photo_is_still_placed_right():
    faces = spot_finder().align(photo_with_a_dot(3.5, 240), boxes=[(-45, 190, 50, 285)])
    np.testing.assert_allclose(faces.landmarks[0, 0], (3.5, 240), atol=0.15)


def test_the_mirror_takes_away_the_lean_and_the_card_puts_it_back():
    class Eyes(nn.Module):
        def forward(self, crops):
            heatmaps = torch.zeros(len(crops), 68, 64, 64)
            heatmaps[:, :, 30, 32] = 1  # everything leans half a cell right of the middle, 31.5
            heatmaps[:, 36] = heatmaps[:, 45] = 0
            heatmaps[:, 36, 30, 22], heatmaps[:, 45, 30, 42] = 1, 0.5
            return heatmaps

    aligner = FaceAligner(LandmarkModel(card(lean=0.025), Eyes()), detector=None, device="cpu", flip=True)
    box = [(0, 0, 200, 200)]
    faces = aligner.align(np.zeros((200, 200, 3), np.uint8), box)
    landmarks = faces.landmarks[0]
    np.testing.assert_allclose(faces.landmark_scores[0, [36, 45]], (1 + 0.5) / 2)  # either eye is both
    crop_pixel, middle = 0.61 * 400 / 256, 100.0
    inter_ocular = 20 * 4 * crop_pixel
    np.testing.assert_allclose(landmarks[27, 0], middle + 0.025 * inter_ocular, atol=0.01)
    np.testing.assert_allclose(landmarks[45, 0] - landmarks[36, 0], inter_ocular, atol=0.01)


@pytest.mark.parametrize(
    ("scores", "options", "best"),
    [
        ([0.9], {}, 0.9),
        ([0.9, 0.95], {"refine": True}, 0.95),
        ([0.6], {"search": False}, 0.6),
        ([0.6, 0.7], {"search": False, "refine": True}, 0.7),
        ([0.6, 0.9], {}, 0.9),  # upright: no longer doubtful
        # first, upright, on one side, upside down, on the other, the best of the three upright, check
        ([0.4, 0.3, 0.3, 0.35, 0.3, 0.9], {}, 0.4),  # no turned answer scores higher; the last is the check
        ([0.4, 0.3, 0.3, 0.45, 0.3, 0.49, 0.9], {}, 0.4),  # higher, but not by the margin
        ([0.4, 0.3, 0.3, 0.45, 0.3, 0.6, 0.9], {}, 0.6),
        ([0.4, 0.3, 0.3, 0.65, 0.3, 0.6, 0.9], {}, 0.65),
        ([0.4, 0.5, 0.3, 0.3, 0.55, 0.2, 0.9], {"refine": True}, 0.5),
    ],
)
def test_a_doubtful_face_is_located_again_until_it_is_not(scores, options, best, monkeypatch):
    monkeypatch.setattr("face_landmarks.locating.search._TOLERANCE", 10)  # the check lowers no score
    model = LandmarkModel(card(doubtful_score=0.75), SureInTheEnd(scores))
    aligner = FaceAligner(model, detector=None, device="cpu", **options)
    faces = aligner.align(np.zeros((200, 200, 3), np.uint8), [(50, 50, 150, 150)])
    assert aligner.network.network.passes == len(scores)
    np.testing.assert_allclose(faces.landmark_scores, best, rtol=1e-6)


def test_a_face_that_is_not_found_again_where_it_was_scores_low():
    """The network sees the same face in every crop, whose own crop is another one."""
    scores = [0.6, 0.5, 0.1, 0.1, 0.1, 0.6]
    aligners = [
        FaceAligner(
            LandmarkModel(card(doubtful_score=0.75), SureInTheEnd(scores)),
            detector=None,
            search=search,
            device="cpu",
        )
        for search in (True, False)
    ]
    box = [(50, 50, 150, 150)]
    checked, plain = (aligner.align(np.zeros((200, 200, 3), np.uint8), box) for aligner in aligners)
    np.testing.assert_array_equal(checked.landmarks, plain.landmarks)
    assert checked.landmark_scores.mean() < 0.4 < plain.landmark_scores.mean()


def test_a_heap_of_landmarks_is_no_face():
    aligner = FaceAligner(
        LandmarkModel(card(doubtful_score=1.0), BrightestSpot()), detector=None, device="cpu"
    )
    faces = aligner.align(photo_with_a_dot(140, 110), [(90, 60, 190, 160)])
    assert faces.landmark_scores.max() == 0 and np.isfinite(faces.landmarks).all()


@pytest.mark.parametrize(("sides", "passes"), [(0.2, 1), (0.3, 2)])
def test_landmarks_on_less_than_a_quarter_of_the_box_are_no_face(sides, passes):
    """The crop is 1.22 times as wide as the box, whose sides add up to 200; refining takes a second pass."""
    network = SureInTheEnd([0.6, 0.7])
    shape = torch.from_numpy(mean_shape(IBUG_68))
    box = boxes_from_landmarks(shape[None])[0]
    cells = 64 / 1.22 * 2 * sides / (box[2] - box[0] + box[3] - box[1])  # side of the unit square
    network.face = encode_heatmaps(31.5 + cells * (shape - 0.5), (64, 64))
    aligner = FaceAligner(
        LandmarkModel(card(), network), detector=None, device="cpu", refine=True, search=False
    )
    faces = aligner.align(np.zeros((200, 200, 3), np.uint8), [(50, 50, 150, 150)])
    assert aligner.network.network.passes == passes
    np.testing.assert_allclose(faces.landmark_scores.mean(), [0.6, 0.7][passes - 1], atol=0.15)


def test_doubtful_faces_of_a_batch_do_not_change_the_others(aligner):
    photo = read_image(ASTRONAUT)
    face, nothing = [178, 58, 268, 174], [20, 300, 110, 400]
    together = aligner.align(photo, [nothing, face, nothing])
    np.testing.assert_allclose(together.landmarks[1], aligner.align(photo, [face]).landmarks[0], atol=1e-3)
    assert together.landmark_scores[[0, 2]].mean() < 0.4 < 0.7 < together.landmark_scores[1].mean()


@pytest.mark.parametrize("roll", [0, 30, 90, 180, -120, 450])
def test_a_box_with_a_roll_is_the_upright_box_turned_about_its_centre(roll):
    """A dot that lies right of the middle of the upright face is found where the roll puts it."""
    centre, offset = np.array([150.0, 120.0]), 25.0
    angle = np.radians(roll)
    dot = centre + offset * np.array(
        [np.cos(angle), np.sin(angle)]
    )  # clockwise on the screen, as y points down
    aligner = spot_finder(search=False)
    photo, box = photo_with_a_dot(*dot), [(110, 70, 190, 170)]
    faces = aligner.align(photo, box, rolls=[roll])
    np.testing.assert_allclose(faces.landmarks[0], np.tile(dot, (68, 1)), atol=0.06)
    np.testing.assert_array_equal(faces.boxes, box)
    crop = aligner.heatmaps(photo, box, rolls=[roll]).crops[0, :, :, 0]
    row, column = np.unravel_index(crop.argmax(), crop.shape)
    assert column > 128 + 20 and abs(row - (128 - 0.1365 * 100 * 256 / (0.61 * 180))) < 2


def test_rolls_are_those_of_head_pose():
    photo = np.ascontiguousarray(np.rot90(read_image(ASTRONAUT), -1))  # a quarter clockwise
    lying = FaceAligner("shr-fan-68-fast", device="cpu", detector=None, search=False).align(
        photo, [(511 - 116 - 44.5, 223 - 58, 511 - 116 + 44.5, 223 + 58)], rolls=[90]
    )
    assert abs(head_pose(lying)[0, 2] - 90) < 12 and lying.landmark_scores.mean() > 0.7


def test_the_roll_of_a_detectors_five_points_turns_the_crop():
    photo = np.ascontiguousarray(np.rot90(read_image(ASTRONAUT), 2))
    points = 511 - np.array([[[203, 100], [247, 103], [224, 128], [201, 138], [245, 141]]])
    box = [[511 - 268, 511 - 174, 511 - 178, 511 - 58]]
    faces = FaceAligner(
        "shr-fan-68-fast", device="cpu", detector=lambda image: (box, [1], points), search=False
    ).align(photo)
    upright = FaceAligner("shr-fan-68-fast", device="cpu", detector=None).align(
        ASTRONAUT, [[178, 58, 268, 174]]
    )
    np.testing.assert_allclose(511 - faces.landmarks, upright.landmarks, atol=2)
    np.testing.assert_array_equal(faces.boxes, box)  # the detector's


def test_bgr_arrays_are_read_as_such_everywhere(aligner, astronaut):
    pixels = read_image(ASTRONAUT)
    bgr = pixels[:, :, ::-1]
    np.testing.assert_array_equal(aligner.align(bgr, channels="bgr").landmarks, astronaut.landmarks)
    np.testing.assert_array_equal(aligner.get_landmarks(bgr, channels="bgr"), astronaut.landmarks)
    np.testing.assert_array_equal(
        aligner.align_batch([bgr], channels="bgr")[0].landmarks, astronaut.landmarks
    )
    crops = aligner.heatmaps(bgr, astronaut.boxes, channels="bgr").crops
    np.testing.assert_array_equal(crops, aligner.heatmaps(pixels, astronaut.boxes).crops)
    with pytest.raises(InputError, match="channels: expected 'rgb' or 'bgr', got 'gbr'"):
        aligner.align(bgr, channels="gbr")


@pytest.mark.parametrize(
    "one",
    [
        "photo.jpg",
        b"photo",
        bytearray(b"photo"),
        Path("photo.jpg"),
        io.BytesIO(b"photo"),
        Image.new("RGB", (7, 5)),
        np.zeros((5, 7), np.uint8),
        np.zeros((5, 7, 3), np.uint8),
        torch.zeros(5, 7),
        torch.zeros(3, 5, 7),
        None,
        7,
    ],
    ids=lambda one: type(one).__name__,
)
def test_one_photo_is_no_batch(one):
    with pytest.raises(InputError, match=f"images: expected several photos.*got {type(one).__name__}"):
        spot_finder().align_batch(one)


def test_a_stack_of_photos_is_a_batch():
    photos = np.stack([photo_with_a_dot(140, 110)] * 2)
    for batch in (photos, torch.from_numpy(photos).permute(0, 3, 1, 2)):
        results = spot_finder().align_batch(batch, [[(90, 60, 190, 160)]] * 2)
        for faces in results:
            np.testing.assert_allclose(faces.landmarks[0, 0], (140, 110), atol=0.06)


def test_an_unreadable_photo_of_a_batch_is_named_by_its_index():
    photos = [photo_with_a_dot(140, 110), "nowhere.jpg"]
    boxes = [[(90, 60, 190, 160)]] * 2
    with pytest.raises(ImageError, match=r"images\[1\]: image: cannot open 'nowhere\.jpg'"):
        spot_finder().align_batch(photos, boxes)
    with pytest.raises(InputError, match=r"images\[0\]: boxes: .* as box 0"):
        spot_finder().align_batch(photos, [[(9, 9, 9, 9)]] * 2)


def test_an_unreadable_photo_need_not_lose_the_batch():
    def detector(image):
        if image.shape[0] == 7:
            raise ZeroDivisionError("the detector's own")
        return [(90, 60, 190, 160)]

    dot = photo_with_a_dot(140, 110)
    photos = [dot, "nowhere.jpg", np.zeros((7, 7, 3), np.uint8), dot]
    errors = {}
    results = spot_finder(detector).align_batch(photos, on_error=errors.__setitem__)
    assert [len(faces) for faces in results] == [1, 0, 0, 1]
    assert results[1].landmarks.shape == (0, 68, 2)
    np.testing.assert_allclose(results[3].landmarks[0, 0], (140, 110), atol=0.06)
    assert list(errors) == [1, 2]
    assert isinstance(errors[1], ImageError) and isinstance(errors[2], ZeroDivisionError)
    with pytest.warns(UserWarning, match=r"images\[(1|2)\] has an empty result: \w+Error: ") as caught:
        assert [len(faces) for faces in spot_finder(detector).align_batch(photos, on_error="warn")] == [
            1,
            0,
            0,
            1,
        ]
    assert len(caught) == 2 and all(warning.filename == __file__ for warning in caught)
    assert ["ImageError" in str(warning.message) for warning in caught] == [True, False]
    assert "ZeroDivisionError: the detector's own" in str(caught[1].message)


def test_unusable_boxes_need_not_lose_the_batch_either():
    dot, errors = photo_with_a_dot(140, 110), {}
    boxes = [[(90, 60, 190, 160)], [(90, 60, 90, 160)]]
    results = spot_finder(None).align_batch([dot, dot], boxes, on_error=errors.__setitem__)
    assert [len(faces) for faces in results] == [1, 0]
    assert list(errors) == [1] and isinstance(errors[1], InputError) and "boxes" in str(errors[1])


def test_a_detector_that_raises_raises_its_own_error_by_default():
    def detector(image):
        raise ZeroDivisionError("the detector's own")

    photos = [photo_with_a_dot(140, 110)]
    with pytest.raises(ZeroDivisionError):
        spot_finder(detector).align_batch(photos)
    with pytest.raises(InputError, match="on_error: expected 'raise', 'warn' or a function, got 'ignore'"):
        spot_finder(detector).align_batch(photos, on_error="ignore")


def test_rolls_without_boxes_or_of_another_number_are_refused():
    aligner, photo, box = spot_finder(lambda image: []), photo_with_a_dot(5, 5), [(0, 0, 9, 9)]
    with pytest.raises(InputError, match="rolls: expected None without boxes"):
        aligner.align(photo, rolls=[90])
    with pytest.raises(InputError, match=r"rolls: expected shape \(1,\)"):
        aligner.align(photo, box, rolls=[90, 90])
    with pytest.raises(InputError, match="rolls: expected one entry .* for each of 2 images, got 1"):
        aligner.align_batch([photo] * 2, [box] * 2, [[90]])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size: expected a whole number, at least 1, got 0"),
        ({"batch_size": 2.5}, "batch_size: expected a whole number, at least 1, got 2.5"),
        ({"batch_size": "2"}, "batch_size: expected a whole number, at least 1, got '2'"),
        ({"detector": "dlib"}, "detector: expected 'mtcnn', 'yunet', a callable or None, got 'dlib'"),
        ({"detector": lambda image: [], "rotations": "always"}, "rotations: expected 'never' unless"),
        ({"rotations": "often"}, "rotations: expected 'never', 'fallback' or 'always', got 'often'"),
        ({"dtype": torch.int32}, "dtype: expected one of torch.float32, .* got torch.int32"),
        ({"dtype": torch.float8_e4m3fn}, "dtype: expected one of .* got torch.float8_e4m3fn"),
        ({"device": "mps"}, "device: expected .* got 'mps': MPS is not supported"),
        ({"device": "toaster"}, "device: expected one that is present, .* got 'toaster'"),
        ({"device": "cuda:99"}, "device: expected one that is present"),
        ({"device": "xpu:99"}, "device: expected one that is present"),
        ({"device": "meta"}, "device: expected one that is present"),
    ],
)
def test_unusable_options_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        FaceAligner(LandmarkModel(card(), BrightestSpot()), **options)


def test_without_a_detector_boxes_are_needed():
    with pytest.raises(InputError, match="boxes: expected"):
        spot_finder(detector=None).align(photo_with_a_dot(5, 5))


@pytest.mark.parametrize("boxes", [[[[0, 0, 5, 5]]], [None, None, None]])
def test_boxes_for_another_number_of_photos_are_refused(boxes):
    with pytest.raises(InputError, match="for each of 2 images, got"):
        spot_finder(lambda image: []).align_batch([photo_with_a_dot(5, 5)] * 2, boxes)


def test_lists_of_different_lengths_are_refused_before_the_first_photo_is_read():
    with pytest.raises(InputError, match="boxes: expected one entry .* for each of 2 images, got 1"):
        spot_finder().align_batch(["nowhere.jpg", "nowhere.jpg"], [None])
    with pytest.raises(InputError, match="rolls: expected one entry .* for each of 1 images, got 2"):
        spot_finder().align_batch((photo_with_a_dot(5, 5) for _ in range(1)), [[(0, 0, 9, 9)]], [[0], [0]])


@pytest.mark.parametrize("box", [(0, 0, 0, 10), (10, 0, 0, 10), (0, 0, np.nan, 10)])
def test_a_box_without_area_is_refused(box):
    with pytest.raises(InputError, match="box"):
        spot_finder().align(photo_with_a_dot(5, 5), boxes=[box])


def test_an_unknown_model_is_named_with_those_that_exist():
    with pytest.raises(UnknownModelError, match="shr-fan-68-fast"):
        FaceAligner("shr-fan-86")


def test_a_missing_photo_is_named(aligner):
    with pytest.raises(ImageError, match=r"nowhere\.jpg"):
        aligner.align("nowhere.jpg")


def test_a_users_own_weights_file_is_all_it_takes(tmp_path):
    config = HourglassConfig(stacks=1, features=16, depth=2, crop_size=32, heatmap_size=8, norm="after")
    network, mine = StackedHourglass(config), card(network=config)
    save_weights(tmp_path / "mine.safetensors", network.state_dict(), mine)
    aligner = FaceAligner(tmp_path / "mine.safetensors", detector=None, device="cpu")
    assert aligner.align(photo_with_a_dot(50, 50), [(10, 10, 90, 90)]).landmarks.shape == (1, 68, 2)


def test_weights_of_another_network_are_refused(tmp_path):
    config = HourglassConfig(stacks=1, features=16, depth=2, crop_size=32, heatmap_size=8)
    network, wider = StackedHourglass(config), card(network=replace(config, features=32))
    save_weights(tmp_path / "mixed.safetensors", network.state_dict(), wider)
    with pytest.raises(WeightsError, match="mixed"):
        FaceAligner(tmp_path / "mixed.safetensors")


# --- with the embedded model, on a real photo ---------------------------------------------------


def test_the_embedded_model_is_the_default():
    assert "shr-fan-68-fast" in list_models()
    assert FaceAligner().card.file.urls == ()


def test_the_astronauts_face_is_where_she_has_it(astronaut):
    assert astronaut.landmarks.shape == (1, 68, 2) and astronaut.landmarks.dtype == np.float32
    np.testing.assert_allclose(astronaut.landmarks[0, 36:42].mean(axis=0), (204, 102), atol=3)
    np.testing.assert_allclose(astronaut.landmarks[0, 42:48].mean(axis=0), (247.5, 104), atol=3)
    np.testing.assert_allclose(astronaut.landmarks[0, 8], (222, 178), atol=5)
    assert float(astronaut.landmark_scores.mean()) > 0.5


def test_every_kind_of_source_gives_the_same_landmarks(aligner, astronaut, tmp_path):
    pixels = read_image(ASTRONAUT)
    Image.fromarray(pixels).save(tmp_path / "lossless.png")
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    sources = [
        str(ASTRONAUT),
        pixels,
        Image.fromarray(pixels),
        tensor,
        tensor / 255,
        tmp_path / "lossless.png",
    ]
    for source in sources:
        np.testing.assert_allclose(aligner.get_landmarks(source), astronaut.landmarks, atol=0.01)


def test_calling_the_aligner_is_aligning(aligner, astronaut):
    np.testing.assert_array_equal(aligner(ASTRONAUT).landmarks, astronaut.landmarks)


def test_the_box_of_the_landmarks_finds_them_again(aligner, astronaut):
    again = aligner.align(ASTRONAUT, boxes_from_landmarks(astronaut.landmarks))
    inter_ocular = np.linalg.norm(astronaut.landmarks[0, 45] - astronaut.landmarks[0, 36])
    assert np.linalg.norm(again.landmarks - astronaut.landmarks, axis=2).mean() < 0.03 * inter_ocular


def test_a_mirrored_photo_gives_mirrored_landmarks(aligner, astronaut):
    pixels = read_image(ASTRONAUT)
    width = pixels.shape[1]
    x0, y0, x1, y1 = astronaut.boxes[0]
    mirrored = aligner.align(pixels[:, ::-1], [(width - 1 - x1, y0, width - 1 - x0, y1)]).landmarks
    unmirrored = mirrored[:, list(aligner.layout.mirror)].copy()
    unmirrored[..., 0] = width - 1 - unmirrored[..., 0]
    inter_ocular = np.linalg.norm(astronaut.landmarks[0, 45] - astronaut.landmarks[0, 36])
    unmirrored[..., 0] += 2 * aligner.card.lean * inter_ocular  # the labels lean right, mirrored or not
    assert np.linalg.norm(unmirrored - astronaut.landmarks, axis=2).mean() < 0.03 * inter_ocular


def test_flipping_changes_little(astronaut):
    flipped = FaceAligner(device="cpu", flip=True).align(ASTRONAUT, astronaut.boxes)
    inter_ocular = np.linalg.norm(astronaut.landmarks[0, 45] - astronaut.landmarks[0, 36])
    assert 0 < np.linalg.norm(flipped.landmarks - astronaut.landmarks, axis=2).mean() < 0.03 * inter_ocular


def test_one_aligner_serves_many_threads(aligner, astronaut):
    results = [None] * 4

    def work(i):
        results[i] = aligner.align(ASTRONAUT, astronaut.boxes).landmarks

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for landmarks in results:
        np.testing.assert_allclose(landmarks, astronaut.landmarks, atol=0.01)


def test_an_aligner_can_be_pickled(aligner, astronaut):
    copy = pickle.loads(pickle.dumps(aligner))
    np.testing.assert_array_equal(copy.align(ASTRONAUT, astronaut.boxes).landmarks, astronaut.landmarks)


def test_bfloat16_stays_near_float32(astronaut):
    half = FaceAligner(device="cpu", dtype=torch.bfloat16).align(ASTRONAUT, astronaut.boxes)
    inter_ocular = np.linalg.norm(astronaut.landmarks[0, 45] - astronaut.landmarks[0, 36])
    assert np.linalg.norm(half.landmarks - astronaut.landmarks, axis=2).mean() < 0.02 * inter_ocular


def test_a_cuda_aligner_agrees_with_the_cpu(cuda, astronaut):
    there = FaceAligner(device=cuda).align(ASTRONAUT, astronaut.boxes)
    np.testing.assert_allclose(there.landmarks, astronaut.landmarks, atol=0.05)


def test_the_mirror_image_of_a_face_gives_its_landmarks():
    aligner = FaceAligner("shr-fan-68-tiny", detector=None, device="cpu")
    locator = aligner._locator
    photo = read_image(ASTRONAUT)
    width = photo.shape[1]
    box = np.array([[178, 59, 267, 175]], np.float32)
    other = np.array([[width - 1 - 267, 59, width - 1 - 178, 175]], np.float32)
    roll = np.array([0.2], np.float32)
    direct = locator.locate([photo], box, roll)
    mirrored = locator.locate([np.ascontiguousarray(photo[:, ::-1])], other, -roll, mirrored=True)
    order = list(locator.layout.mirror)
    expected = direct.landmarks[:, order] * (-1, 1) + (width - 1, 0)
    right, left = locator.layout.eye_corners
    inter_ocular = np.linalg.norm(direct.landmarks[:, left] - direct.landmarks[:, right], axis=-1)
    expected += 2 * locator.card.lean * inter_ocular * np.array([np.cos(-roll[0]), np.sin(-roll[0])])
    np.testing.assert_allclose(mirrored.landmarks, expected, atol=0.05)
    np.testing.assert_allclose(mirrored.scores, direct.scores[:, order], atol=0.01)


@pytest.mark.parametrize(
    ("backend", "runtime"), [("torch", "torch"), ("onnxruntime", "onnxruntime"), ("auto", "onnxruntime")]
)
def test_a_detector_given_by_name_runs_beside_the_backend(backend, runtime):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    aligner = FaceAligner("shr-fan-68-tiny", device="cpu", backend=backend)
    with ThreadPoolExecutor(4) as pool:  # which all ask for it first
        detectors = list(pool.map(lambda _: aligner.detector, range(8)))
    assert detectors[0].runtime == runtime
    assert all(detector is detectors[0] for detector in detectors)
