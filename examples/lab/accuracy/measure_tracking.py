"""Whether faces keep their identities when they meet: the numbers of docs/video.md.

    python examples/lab/accuracy/measure_tracking.py 300w/photos/val --pairs 20

The first table is of the threshold for cuts: how many pairs of different photos it takes for one scene, and
how many pans of one photo, by 5 % of its width, for a cut.

Then faces of the photos are cut out and walk in pairs in front of a blurred wall, with new noise (4 grey
levels) in every frame; one passes in front of the other. Either they go on in their direction ("pass") or
both turn back where they meet ("turn"). The thresholds of face_landmarks/video/tracker.py are tried around
their values.

switches    times that a face had another identity than when it was last seen, over all clips
clips kept  clips without any
in view     share of the frames of faces that were followed; where one hides the other, it is not judged
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from itertools import pairwise

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from face_landmarks import FaceAligner, read_image
from face_landmarks.benchmarks.annotations import AnnotatedImage, read_folder
from face_landmarks.geometry import boxes_from_landmarks, crop_matrices, warp
from face_landmarks.models.registry import DEFAULT_VIDEO_MODEL
from face_landmarks.video import tracker as video
from face_landmarks.video.thumbnails import correlation, thumbnail
from face_landmarks.video.tracker import FaceTracker

Pixels = NDArray[np.uint8]
Path = NDArray[np.float64]  # (T, 2, 2) centres of the two faces, x y
Clip = tuple[list[Pixels], Path]

SIDE = 160  # of a cut-out, in pixels; the face is 0.6 of it wide
FRAME = (240, 640)
FRAMES = 40
FACE = 100.0  # pixels
HIDDEN = 0.6 * FACE  # centres nearer to each other than this are not judged
THRESHOLDS = {"_SAME_FACE": (0.5, 0.75, 1.5), "_SAME_PLACE": (0.15, 0.6)}
CUTS = (0.3, 0.4, 0.5, 0.6, 0.7)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", help="photos with .pts files")
    parser.add_argument("--pairs", type=int, default=20, help="of faces (default: %(default)s)")
    parser.add_argument("--model", default=DEFAULT_VIDEO_MODEL)
    parser.add_argument("--device", help="the best present if not given")
    options = parser.parse_args()
    samples = read_folder(options.folder)
    photos = [read_image(sample.source) for sample in samples[: 4 * options.pairs]]
    others, pans = same_scene(list(pairwise(photos))), same_scene([pan(photo) for photo in photos])
    print(f"{'cut below':22}{'photos for one':>18}{'pans for a cut':>18}")
    for threshold in CUTS:
        print(f"{threshold:<22}{share(others >= threshold):>18}{share(pans < threshold):>18}")

    faces = cut_outs(samples, 2 * options.pairs)
    aligner = FaceAligner(options.model, device=options.device)
    clips = {scene: list(render(faces, scene)) for scene in ("pass", "turn")}

    settings: dict[str, dict[str, float]] = {"as they are": {}}
    settings |= {f"{name} = {v}": {name: v} for name, values in THRESHOLDS.items() for v in values}
    print(f"{options.model}, {len(faces) // 2} pairs, {FRAMES} frames a clip")
    print(f"{'':22}" + "".join(f"{scene + ': ' + what:>18}" for scene in clips for what in COLUMNS))
    for name, setting in settings.items():
        row = [value for scene in clips.values() for value in judge(aligner, scene, setting)]
        print(f"{name:22}" + "".join(f"{value:>18}" for value in row), flush=True)


COLUMNS = ("switches", "clips kept", "in view")


def judge(aligner: FaceAligner, clips: Sequence[Clip], setting: dict[str, float]) -> tuple[str, str, str]:
    """The three columns, with some of the tracker's thresholds replaced."""
    kept_values = {name: getattr(video, name) for name in setting}
    for name, value in setting.items():
        setattr(video, name, value)
    switches, seen = [], []
    for frames, path in clips:
        identities = follow(FaceTracker(aligner), frames, path)  # (T, 2)
        apart = np.linalg.norm(path[:, 0] - path[:, 1], axis=1) > HIDDEN
        seen.append(identities[apart] >= 0)
        switches.append(sum(np.count_nonzero(np.diff(i[i >= 0])) for i in identities[apart].T))
    for name, value in kept_values.items():
        setattr(video, name, value)
    return str(sum(switches)), f"{switches.count(0)} of {len(clips)}", share(np.concatenate(seen))


def follow(tracker: FaceTracker, frames: Sequence[Pixels], path: Path) -> NDArray[np.int64]:
    """(T, 2) the identity found at the place of either face; -1 where there is none."""
    identities = np.full((len(frames), 2), -1)
    for row, frame, centres in zip(identities, frames, path, strict=True):
        tracked = tracker.update(frame)
        for face, identity in zip(tracked.faces, tracked.identities, strict=True):
            distances = np.linalg.norm(centres - face.landmarks[0].mean(axis=0), axis=1)  # (2,)
            if distances.min() < HIDDEN / 2:
                row[distances.argmin()] = identity
    return identities


def cut_outs(samples: Sequence[AnnotatedImage], count: int) -> list[Pixels]:
    """(SIDE, SIDE, 3) views of faces of different photos, evenly spaced, none enlarged."""
    large = []
    for sample in samples:
        boxes = boxes_from_landmarks(sample.landmarks)
        best = boxes[(boxes[:, 3] - boxes[:, 1]).argmax()]
        if best[2] - best[0] >= FACE:
            large.append((sample, best))
    if len(large) < count:
        raise SystemExit(f"expected {count} photos with a face of {FACE:.0f} pixels, got {len(large)}")
    views = []
    for index in np.linspace(0, len(large) - 1, count).astype(int):
        sample, box = large[index]
        image_to_crop = crop_matrices(torch.tensor(box)[None], SIDE, crop_scale=SIDE / FACE / 2.2)
        view = warp(read_image(sample.source), image_to_crop, SIDE)[0]
        views.append((255 * view).byte().permute(1, 2, 0).numpy())
    return views


def render(faces: Sequence[Pixels], scene: str) -> Iterator[Clip]:
    """A clip for each pair of faces."""
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    mask = ((columns / (0.42 * SIDE)) ** 2 + (rows / (0.49 * SIDE)) ** 2 < 1)[..., np.newaxis]
    for one, other in zip(faces[::2], faces[1::2], strict=True):
        wall = cv2.GaussianBlur(random.integers(0, 256, (*FRAME, 3), np.uint8), (0, 0), 9)
        wall = cv2.normalize(wall, np.empty_like(wall), 40, 215, cv2.NORM_MINMAX)
        along = np.linspace(-1, 1, FRAMES) * random.uniform(0.7, 0.98) * (FRAME[1] - SIDE) / 2
        if scene == "turn":
            along = -abs(along) - 5  # until they all but hide each other
        height = FRAME[0] / 2 + random.uniform(-12, 12, 2)
        path = np.empty((FRAMES, 2, 2))
        path[:, :, 0] = FRAME[1] / 2 + along[:, np.newaxis] * (1, -1)
        path[:, :, 1] = height
        frames = []
        for centres in path:
            frame = wall.copy()
            for face, (x, y) in zip((other, one), centres[::-1], strict=True):  # the first one in front
                left, top = round(x - SIDE / 2), round(y - SIDE / 2)
                part = frame[top : top + SIDE, left : left + SIDE]
                part[:] = np.where(mask, face, part)
            noisy = frame + random.normal(0, 4, frame.shape)
            frames.append(np.clip(noisy, 0, 255).astype(np.uint8))
        yield frames, path


def same_scene(pairs: Sequence[tuple[Pixels, Pixels]]) -> NDArray[np.float64]:
    """How alike the thumbnails of each pair are, as the tracker compares them."""

    def view(photo: Pixels) -> NDArray[np.float64]:
        return thumbnail(photo, np.array([0, 0, *photo.shape[1::-1]]))

    return np.array([correlation(view(a), view(b)) for a, b in pairs])


def pan(photo: Pixels) -> tuple[Pixels, Pixels]:
    step = round(0.05 * photo.shape[1])
    return photo[:, :-step], photo[:, step:]


def share(values: NDArray[np.bool_]) -> str:
    return f"{100 * values.mean():.1f} %"


if __name__ == "__main__":
    main()
