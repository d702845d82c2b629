"""How steady, how late and how fast a followed face is: the numbers of docs/video.md.

    python examples/lab/speed/measure_video.py --plot docs/images/video.png

The video is a photo that stands still or is moved by known amounts, with new noise (6 grey levels) in
every frame and JPEG compression (quality 60). Three ways to landmarks are compared: every frame by itself
(detector and all), followed but as measured, and followed and steadied.

jitter      RMS distance of each landmark from its mean place on the still face, in pixels
lag         shift in time, in frames of 1/30 s, at which measured and true motion agree best
frames/s    of the whole update, at 512 x 512 pixels; decoding of the video not counted
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from face_landmarks import FaceAligner, read_image
from face_landmarks.video.tracker import FaceTracker

PHOTO = Path(__file__).parents[2] / "data" / "astronaut.jpg"
SETTLED = 15  # frames after which a filter has forgotten its start
Update = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
Track = NDArray[np.float64]


def motions(frames: int) -> dict[str, Track]:
    """(T, 2) offsets of the face in pixels; it is about 100 pixels wide."""
    seconds = np.arange(frames) / 30
    still = np.zeros((frames, 2))
    turn, glance = np.sin(np.pi * seconds), np.sin(2 * np.pi * seconds)
    return {
        "still": still,
        "slow": np.stack([40 * turn, 10 * turn], axis=1),
        "fast": np.stack([60 * glance, 0 * glance], axis=1),
    }


def render(photo: NDArray[np.uint8], offsets: Track, noise: float, quality: int) -> list[NDArray[np.uint8]]:
    random = np.random.default_rng(0)
    size, frames = photo.shape[1::-1], []
    for x, y in offsets:
        matrix = np.array([[1, 0, x], [0, 1, y]])
        moved = cv2.warpAffine(photo, matrix, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        noisy = np.clip(moved + random.normal(0, noise, moved.shape), 0, 255).astype(np.uint8)
        stored = cv2.imencode(".jpg", noisy, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        frames.append(np.asarray(cv2.imdecode(stored, cv2.IMREAD_COLOR), np.uint8))
    return frames


def jitter(landmarks: Track) -> float:
    settled = landmarks[SETTLED:]
    return float(np.sqrt(((settled - settled.mean(axis=0)) ** 2).sum(axis=-1).mean()))


def lag(landmarks: Track, offsets: Track) -> float:
    """Both as motions of the face's centre, along x, around their means."""
    found = landmarks.mean(axis=1)[:, 0]  # (T,)
    times, shifts = np.arange(len(found)), np.arange(-1, 4.01, 0.05)

    def error(shift: float) -> float:
        difference = (found - np.interp(times - shift, times, offsets[:, 0]))[SETTLED:-5]
        return float(difference.std())

    return float(min(shifts, key=error))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="shr-fan-68-fast")
    parser.add_argument("--device", help="the best present if not given")
    parser.add_argument("--threads", type=int, help="torch's threads; its own choice if not given")
    parser.add_argument("--frames", type=int, default=90)
    parser.add_argument("--noise", type=float, default=6.0, help="grey levels (default: %(default)s)")
    parser.add_argument("--quality", type=int, default=60, help="of JPEG (default: %(default)s)")
    parser.add_argument("--plot", help="draw a landmark over time here")
    options = parser.parse_args()
    if options.frames < 2 * SETTLED:
        parser.error(f"--frames: expected at least {2 * SETTLED}, got {options.frames}")
    if options.threads:
        torch.set_num_threads(options.threads)
    aligner, photo = FaceAligner(options.model, device=options.device), read_image(PHOTO)

    def followed(smooth: bool) -> Update:
        tracker = FaceTracker(aligner, smooth=smooth)
        return lambda frame: tracker.update(frame).faces.landmarks[0]

    ways: dict[str, Callable[[], Update]] = {
        "every frame by itself": lambda: lambda frame: aligner.align(frame).landmarks[0],
        "followed, as measured": lambda: followed(False),
        "followed and steadied": lambda: followed(True),
    }
    clips = {
        name: (o, render(photo, o, options.noise, options.quality))
        for name, o in motions(options.frames).items()
    }
    tracks: dict[tuple[str, str], Track] = {}
    print(
        f"{options.model} on {aligner.device}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    )
    print(f"{'':24}{'jitter px':>10}{'lag slow':>10}{'lag fast':>10}{'frames/s':>10}")
    for way, start in ways.items():
        for name, (_, frames) in clips.items():
            update, begin = start(), time.perf_counter()
            tracks[way, name] = np.array([update(frame) for frame in frames], np.float64)
            if name == "still":
                rate = len(frames) / (time.perf_counter() - begin)
        lags = [lag(tracks[way, name], clips[name][0]) for name in ("slow", "fast")]
        print(f"{way:24}{jitter(tracks[way, 'still']):10.3f}{lags[0]:10.2f}{lags[1]:10.2f}{rate:10.1f}")
    if options.plot:
        plot(options.plot, tracks, clips["slow"][0])


def plot(path: str, tracks: dict[tuple[str, str], Track], offsets: Track) -> None:
    """The tip of the nose over time: at rest, and in slow motion."""
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
    for (way, name), landmarks in tracks.items():
        if name != "fast":
            nose = landmarks[:, 30, 0]
            rest = nose.mean() if name == "still" else nose[0]
            axes[int(name == "slow")].plot(nose - rest, label=way, lw=1.5)
    axes[1].plot(offsets[:, 0], "k:", lw=1.5, label="true")
    axes[0].set(title="A still face", xlabel="frame", ylabel="x of the nose's tip, pixels")
    axes[1].set(title="A slow motion", xlabel="frame")
    axes[1].legend(frameon=False, loc="upper center")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
