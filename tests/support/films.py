"""Films with sound, made by PyAV, and a look into files."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

RATE = 44_100  # samples per second


def import_av() -> Any:
    return pytest.importorskip("av", reason="needs PyAV")


def write_film(
    path: Path,
    times: list[float],
    *,
    size: tuple[int, int] = (64, 48),
    rotation: int = 0,
    sound: str | None = "aac",
    begin: float = 0.0,
) -> list[np.ndarray]:
    """Frames of bars at these times, red at the top and blue at the left, with a tone of 440 Hz throughout.

    Args:
        path: the file.
        times: of the frames, in seconds.
        size: (W, H) of the stored frames.
        rotation: by which a player turns them counterclockwise, in degrees.
        sound: its codec, or None for silence.
        begin: what every time stamp, also of the sound, begins at.

    Returns:
        The stored frames, not rotated.
    """
    av = import_av()
    width, height = size
    frames = []
    with av.open(str(path), "w") as out:
        picture = out.add_stream("libx264", rate=25, options={"crf": "10", "bf": "0"})
        picture.width, picture.height, picture.pix_fmt = width, height, "yuv420p"
        picture.codec_context.time_base = tick = Fraction(1, 90_000)
        if rotation:
            if not hasattr(picture, "set_display_rotation"):
                pytest.skip("this PyAV writes no rotation")
            picture.set_display_rotation(rotation)
        tone = out.add_stream(sound, rate=RATE) if sound else None
        for number, time in enumerate(times):
            pixels = np.full((height, width, 3), 60 + 4 * number, np.uint8)
            pixels[: height // 4], pixels[:, : width // 4] = (220, 30, 30), (30, 30, 220)
            frames.append(pixels)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = round((time + begin) / tick), tick
            out.mux(picture.encode(frame))
        out.mux(picture.encode())
        if tone is not None:
            _write_tone(av, out, tone, times[-1] + 0.5, begin)
    return frames


def _write_tone(av: Any, out: Any, tone: Any, seconds: float, begin: float) -> None:
    layout = "mono"
    wave = np.sin(2 * np.pi * 440 * np.arange(round(seconds * RATE)) / RATE).astype(np.float32) / 4
    kind = tone.codec_context.format.name
    for first in range(0, len(wave), 1024):
        part = wave[np.newaxis, first : first + 1024]
        if kind == "s16":
            frame = av.AudioFrame.from_ndarray((part * 32767).astype(np.int16), format="s16", layout=layout)
        else:
            frame = av.AudioFrame.from_ndarray(part, format="fltp", layout=layout)
        frame.sample_rate, frame.time_base = RATE, Fraction(1, RATE)
        frame.pts = first + round(begin * RATE)
        out.mux(tone.encode(frame))
    out.mux(tone.encode())


def join_films(path: Path, films: list[Path]) -> None:
    """The films, one after the other, as MPEG-TS: the times start again with each."""
    av = import_av()
    parts = []
    for film in films:
        part = path.with_name(f"{film.stem}.part.ts")
        with av.open(str(film)) as source, av.open(str(part), "w", format="mpegts") as out:
            copies = {stream.index: out.add_stream_from_template(stream) for stream in source.streams}
            for packet in source.demux():
                if packet.dts is not None:
                    packet.stream = copies[packet.stream.index]
                    out.mux(packet)
        parts.append(part.read_bytes())
    path.write_bytes(b"".join(parts))


def sound_of(path: Path) -> list[tuple[float, bytes]]:
    """Time and content of each packet of sound; nothing is decoded."""
    av = import_av()
    with av.open(str(path)) as film:
        if not film.streams.audio:
            return []
        packets = film.demux(film.streams.audio[0])
        return [(float(p.pts * p.time_base), bytes(p)) for p in packets if p.dts is not None]
