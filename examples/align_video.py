"""Faces followed through a video, drawn into a copy: python examples/align_video.py in.mp4 out.mp4."""

import sys

from face_landmarks import FaceTracker, Video, VideoWriter, draw_faces


def main(source: str, drawn: str) -> None:
    video = Video(source)
    tracker = FaceTracker(frame_rate=video.frame_rate)
    with VideoWriter(drawn, video.frame_rate) as writer:
        for number, frame in enumerate(video):
            tracked = tracker.update(frame)
            print(f"frame {number}: faces {tracked.identities.tolist()}")
            writer.write(draw_faces(frame, tracked.faces, labels=tracked.identities))


if __name__ == "__main__":
    main(*sys.argv[1:])
