"""`face-landmarks video`: the faces of a video or a camera, followed."""

from __future__ import annotations

import argparse
import json
import sys
import time
from contextlib import ExitStack, suppress
from itertools import islice
from pathlib import Path

from tqdm import tqdm

from face_landmarks._system.files import make_folder, writing
from face_landmarks.cli.options import Commands, check_targets, make_aligner, model_options, positive
from face_landmarks.output.drawing import draw_faces
from face_landmarks.video.reading import Video
from face_landmarks.video.tracker import FaceTracker
from face_landmarks.video.writing import VideoWriter


def add_parser(commands: Commands) -> None:
    """Add the command and its arguments."""
    video = commands.add_parser(
        "video", parents=[model_options("shr-fan-68-fast")], help="follow the faces of a video or a camera"
    )
    video.add_argument("video", metavar="VIDEO", help="a file, a URL, or the number of a camera")
    video.add_argument("--draw", metavar="FILE", help="draw the faces into this video, e.g. out.mp4")
    video.add_argument(
        "--json", metavar="FILE", help="a line of JSON per frame; to stdout if nothing is drawn"
    )
    video.add_argument("--frames", type=positive, metavar="N", help="stop after this many")
    video.add_argument(
        "--detect-every",
        type=positive,
        default=30,
        metavar="N",
        help="frames between looks of the face detector (default: %(default)s)",
    )
    video.add_argument("--raw", action="store_true", help="landmarks as measured, not steadied")
    video.set_defaults(run=_video)


_WHOLE = 0.95  # of the frames a video's header announces; headers are off by some


def _video(options: argparse.Namespace) -> int:
    check_targets([options.video], options.draw, options.json)
    video = Video(int(options.video) if options.video.isdecimal() else options.video)
    tracker = FaceTracker(
        make_aligner(options),
        frame_rate=video.frame_rate,
        detect_every=options.detect_every,
        smooth=not options.raw,
    )
    total = min(filter(None, (video.frame_count, options.frames)), default=0)
    frames, identities, start = 0, set[int](), time.perf_counter()
    with ExitStack() as stack:
        lines = None if options.draw else sys.stdout
        if options.json:
            path = Path(options.json)
            make_folder(path.parent)
            with writing(path):
                lines = stack.enter_context(path.open("w", encoding="utf-8"))
        writer = stack.enter_context(VideoWriter(options.draw, video.frame_rate)) if options.draw else None
        progress = stack.enter_context(
            tqdm(total=total or None, unit=" frames", disable=not sys.stderr.isatty())
        )
        stack.enter_context(suppress(KeyboardInterrupt))  # how a camera is ended: the files are finished
        for frame in islice(video, options.frames):
            tracked = tracker.update(frame)
            if lines:
                row = {"frame": frames, "seconds": frames / video.frame_rate, **tracked.to_dict()}
                print(json.dumps(row), file=lines)
            if writer:
                writer.write(draw_faces(frame, tracked.faces, labels=tracked.identities))
            identities.update(tracked.identities.tolist())
            frames += 1
            progress.update()
    rate = frames / (time.perf_counter() - start)
    count = f"{len(identities)} face{'s' * (len(identities) != 1)}"
    print(f"{options.video}: {frames} frames, {count}, {rate:.1f} frames/s", file=sys.stderr)
    return 1 if frames < _WHOLE * total else 0
