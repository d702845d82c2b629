"""A written video plays in a real browser: the whole of it, in its colours, with its sound."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from browser import report_of
from films import import_av, write_film

from face_landmarks import VideoWriter
from face_landmarks.cli import main

PAGE = """<!doctype html><video muted autoplay playsinline src="clip.mp4"></video><script>
const video = document.querySelector("video");
let sent = false;
function report(state) {
  if (sent) return;
  sent = true;
  const canvas = document.createElement("canvas");
  canvas.width = video.videoWidth || 1;
  canvas.height = video.videoHeight || 1;
  const context = canvas.getContext("2d");
  context.drawImage(video, 0, 0);
  const pixel = (x, y) => {
    const [red, green, blue] = context.getImageData(x * canvas.width, y * canvas.height, 1, 1).data;
    return [red, green, blue];
  };
  fetch("/report", {method: "POST", body: JSON.stringify({
    state, code: video.error && video.error.message, time: video.currentTime, duration: video.duration,
    width: video.videoWidth, height: video.videoHeight, sound: video.webkitAudioDecodedByteCount,
    top: pixel(0.6, 0.1), left: pixel(0.1, 0.6), middle: pixel(0.6, 0.6),
  })});
}
video.addEventListener("ended", () => report("ended"));
video.addEventListener("error", () => report("error"));
setTimeout(() => report("time is over"), 60000);
</script>"""


def played(path: Path) -> dict[str, object]:
    (path.parent / "page.html").write_text(PAGE)
    report: dict[str, object] = report_of(path.parent, "page.html")
    return report


def test_a_browser_plays_a_film_of_odd_size_to_its_end_with_its_sound(tmp_path: Path) -> None:
    import_av()
    times = [0, 0.04, 0.08, 0.5, 0.54, 1.2]
    write_film(tmp_path / "source.mp4", times)
    path = tmp_path / "clip.mp4"
    with VideoWriter(path, 25, sound=tmp_path / "source.mp4") as writer:
        for number, time in enumerate(times):
            frame = np.full((121, 161, 3), (40, 160, 90 + number), np.uint8)
            frame[:30], frame[:, :40] = (220, 30, 30), (30, 30, 220)
            writer.write(frame, time)
    seen = played(path)
    assert seen["state"] == "ended", seen
    assert (seen["width"], seen["height"]) == (162, 122)
    assert seen["duration"] == pytest.approx(1.24, abs=0.06) and seen["time"] == seen["duration"]
    assert seen["sound"]
    for place, color in (("top", (220, 30, 30)), ("left", (30, 30, 220)), ("middle", (40, 160, 95))):
        np.testing.assert_allclose(seen[place], color, atol=6, err_msg=place)


def test_a_browser_plays_what_the_command_has_drawn(tmp_path: Path) -> None:
    import_av()
    write_film(tmp_path / "source.mov", [n / 25 for n in range(8)], size=(96, 64), rotation=90)
    path = tmp_path / "clip.mp4"
    assert main(["video", str(tmp_path / "source.mov"), "--draw", str(path), "--device", "cpu"]) == 0
    seen = played(path)
    assert seen["state"] == "ended", seen
    assert (seen["width"], seen["height"]) == (64, 96) and seen["sound"]
    assert seen["duration"] == pytest.approx(8 / 25, abs=0.06)
