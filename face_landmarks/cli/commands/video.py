"""`face-landmarks video`: the faces of a video or a camera, tracked."""

from __future__ import annotations

import argparse
import json
import sys
import time
from contextlib import ExitStack
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Final

from tqdm import tqdm

from face_landmarks._system.arguments import counted
from face_landmarks.cli.options import (
    EXIT_CODES,
    Commands,
    make_aligner,
    model_options,
    path,
    positive,
    say,
)
from face_landmarks.cli.targets import LineFile, check_targets, prepare_file
from face_landmarks.models.registry import DEFAULT_VIDEO_MODEL
from face_landmarks.output.drawing import draw_faces
from face_landmarks.video.letterboxing import Letterbox
from face_landmarks.video.reading import Video
from face_landmarks.video.tracker import FaceTracker
from face_landmarks.video.writing import VideoWriter

_EXAMPLES: Final = f"""examples:
  face-landmarks video clip.mp4 --json landmarks.jsonl
  face-landmarks video clip.mp4 --draw drawn.mp4
  face-landmarks video 0 --draw camera.mp4 --frames 250

{EXIT_CODES}"""


def add_parser(commands: Commands) -> None:
    """Add the command and its arguments."""
    video = commands.add_parser(
        "video",
        parents=[model_options(DEFAULT_VIDEO_MODEL)],
        help="track the faces of a video or a camera",
        description="Track the faces of a video or a camera. Ctrl-C ends it; what was written until then is\n"
        "kept.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    video.add_argument("video", metavar="VIDEO", help="a file, a URL, or the number of a camera")
    video.add_argument(
        "--draw", metavar="FILE", type=path, help="draw the faces into this video, e.g. out.mp4"
    )
    video.add_argument(
        "--json", metavar="FILE", type=path, help="a line of JSON per frame; to stdout if nothing is drawn"
    )
    video.add_argument("--frames", type=positive, metavar="N", help="stop after this many")
    video.add_argument(
        "--detect-every",
        type=positive,
        default=30,
        metavar="N",
        help="frames between regular runs of the face detector (default: %(default)s)",
    )
    video.add_argument("--raw", action="store_true", help="landmarks as measured, not smoothed")
    video.set_defaults(run=_video)


def _video(options: argparse.Namespace) -> int:
    check_targets([options.video], options.draw, options.json)
    for file in filter(None, (options.draw, options.json)):
        prepare_file(file)
    video = Video(int(options.video) if options.video.isdecimal() else options.video)
    writer = _writer(options, video) if options.draw else None
    tracker = FaceTracker(
        make_aligner(options),
        frame_rate=video.frame_rate,
        detect_every=options.detect_every,
        smooth=not options.raw,
    )
    total = min(filter(None, (video.frame_count, options.frames)), default=0)
    frames, seconds, identities, start = 0, 0.0, set[int](), time.perf_counter()
    letterbox, stopped = Letterbox(), False
    with ExitStack() as stack:
        lines = stack.enter_context(LineFile(Path(options.json))) if options.json else None
        if writer:
            stack.enter_context(writer)
        progress = stack.enter_context(
            tqdm(total=total or None, unit=" frames", disable=not sys.stderr.isatty())
        )
        try:
            for seconds, frame in islice(video.timed(), options.frames):
                tracked = tracker.update(frame, seconds=seconds)
                row = {"frame": frames, "seconds": round(seconds, 6), **tracked.to_dict()}
                if lines:
                    lines.write(json.dumps(row))
                elif not writer:
                    print(json.dumps(row))
                if writer:
                    drawn = draw_faces(frame, tracked.faces, labels=tracked.identities)
                    writer.write(letterbox(drawn), seconds)
                identities.update(tracked.identities.tolist())
                frames += 1
                progress.update()
        except KeyboardInterrupt:  # the files are finished
            stopped = True
    rate = frames / (time.perf_counter() - start)
    found = f"{counted(frames, 'frame')}, {counted(len(identities), 'face')}"
    say(f"{options.video}: {found}, {rate:.1f} frames/s")
    if stopped and total:  # of a camera, Ctrl-C is the regular end
        raise KeyboardInterrupt(f"{frames} of {total} frames done")
    ended = not stopped and frames != options.frames
    return 1 if ended and video.is_truncated(frames, seconds) else 0


def _writer(options: argparse.Namespace, video: Video) -> VideoWriter:
    """What writes the drawn video: with the sound, if the video is a file."""
    plain = Path(options.draw).suffix.lower() == ".avi" or find_spec("av") is None  # which have no sound
    sound = None if plain or not Path(options.video).is_file() else options.video
    return VideoWriter(options.draw, video.frame_rate, sound=sound)
