"""Fuzz the readers: any bytes are read, or refused by an error of the package's own tree.

    pip install atheris
    python examples/lab/checks/fuzz.py image --seconds 1800
    python examples/lab/checks/fuzz.py pts --seconds 600
    python examples/lab/checks/fuzz.py mat --seconds 600
    python examples/lab/checks/fuzz.py results --seconds 600

With atheris (libFuzzer for Python) the bytes are steered by the coverage of this package's, Pillow's and
SciPy's Python code; without it hypothesis edits the seeds. Every input that is read must also obey the
reader's promises: shape, type, `max_pixels`, the same again when read again. A finding ends the run
with exit code 1 and is written beside the working corpus; `--only FILE` repeats it.

The seeds are in examples/lab/checks/fuzz_corpus, one folder per reader: small files of every format that
Pillow writes, under their names, and inputs of earlier runs that reached new code, under their SHA-1.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import numpy as np

CORPUS = Path(__file__).with_name("fuzz_corpus")
MAX_PIXELS = 100_000  # of an image; low, so that the limit is met often
MAX_BYTES = 4096  # of an input
_STATISTICS = re.compile(rb"stat::number_of_executed_units:\s*(\d+)|stat::peak_rss_mb:\s*(\d+)")


def _scratch(name: str) -> Path:
    """A file of this process alone."""
    return Path(tempfile.gettempdir()) / f"{os.getpid()}-{name}"


def check_image(data: bytes) -> None:
    """Read an image, or be told that it is none."""
    from face_landmarks import ImageError, read_image

    try:
        pixels = read_image(data, max_pixels=MAX_PIXELS)
    except ImageError:
        return
    assert pixels.dtype == np.uint8 and pixels.flags.c_contiguous and pixels.flags.owndata
    assert pixels.ndim == 3 and pixels.shape[2] == 3, pixels.shape
    assert 0 < pixels.shape[0] * pixels.shape[1] <= MAX_PIXELS, pixels.shape
    assert np.array_equal(pixels, read_image(data, max_pixels=MAX_PIXELS)), "read differently the second time"


def check_pts(data: bytes) -> None:
    """Read landmarks, or be told that these are none; what is read survives writing."""
    from face_landmarks.errors import AnnotationError
    from face_landmarks.pts import read_pts, write_pts

    path = _scratch("fuzz.pts")
    path.write_bytes(data)
    try:
        points = read_pts(path)
    except AnnotationError:
        return
    assert points.dtype == np.float32 and points.shape == (len(points), 2) and len(points), points.shape
    assert np.isfinite(points).all()
    write_pts(path, points)
    assert np.array_equal(points, read_pts(path)) or np.abs(points - read_pts(path)).max() < 1e-5


def check_mat(data: bytes) -> None:
    """Read a variable of a MATLAB file of either kind, or be told that there is none."""
    from face_landmarks.benchmarks.matlab import read_mat
    from face_landmarks.errors import AnnotationError

    path = _scratch("fuzz.mat")
    path.write_bytes(data)
    try:
        (points,) = read_mat(path, "pts_2d")
    except AnnotationError:
        return
    assert isinstance(points, np.ndarray), type(points)


def check_results(data: bytes) -> None:
    """Go on from a file of earlier results, or be told that it holds something else and is left alone."""
    from face_landmarks import Faces, InputError
    from face_landmarks.output.folders.journal import read_rows, resume
    from face_landmarks.output.folders.lists import PhotoList

    path = _scratch("fuzz.jsonl")
    path.write_bytes(data)
    try:
        settings = {"model": "shr-fan-68", "weights": None, "flip": False, "refine": False}
        done, tally = resume(path, PhotoList(lambda: iter(()), path.parent.joinpath), settings)
    except InputError:
        assert path.read_bytes() == data, "what was refused is not what it was"
        return
    assert data.startswith(path.read_bytes()) or b"retry" in data
    rows = list(read_rows(path))
    assert tally.images + len(tally.unreadable) <= len(rows) and len(done) <= tally.photos == len(rows)
    for row in rows:
        if "error" not in row:
            faces = Faces.from_dict(row)
            again = Faces.from_dict(faces.to_dict())
            assert np.allclose(faces.landmarks, again.landmarks, rtol=1e-6, atol=1e-3)


CHECKS: dict[str, Callable[[bytes], None]] = {
    "image": check_image, "pts": check_pts, "mat": check_mat, "results": check_results,
}  # fmt: skip


def run_atheris(target: str, arguments: list[str]) -> None:
    """Become the fuzzer; libFuzzer ends the process."""
    import atheris

    warnings.simplefilter("ignore")  # Pillow's, about the damage it meets
    names = ["images.arrays", "images.files", "images.reading", "pts", "results", "benchmarks.matlab"]
    names += ["output.folders.run", "output.folders.journal"]
    readers = [f"face_landmarks.{name}" for name in names]
    with atheris.instrument_imports(include=["PIL", "scipy.io", "json", *readers]):
        from PIL import Image

        for reader in readers:
            import_module(reader)

        Image.init()
    atheris.Setup([sys.argv[0], *arguments], CHECKS[target])
    atheris.Fuzz()


def steer(target: str, seconds: int, work: Path) -> int:
    """Run the fuzzer in its own process, say what it did, and give its exit code."""
    seeds, found = CORPUS / target, work / "corpus"
    found.mkdir()
    child = [sys.executable, __file__, target, "--libfuzzer"]
    limits = [f"-max_len={MAX_BYTES}", "-timeout=20", "-rss_limit_mb=2048", f"-artifact_prefix={work}/"]
    start = time.monotonic()
    done = subprocess.run(
        [*child, f"-max_total_time={seconds}", "-print_final_stats=1", *limits, str(found), str(seeds)],
        stderr=subprocess.PIPE,
    )
    executed, memory = (max(map(int, filter(None, column)), default=0) for column in _columns(done.stderr))
    print(
        f"{target}: {executed} executions in {time.monotonic() - start:.0f} s, {memory} MB at most, "
        f"{len(list(found.iterdir()))} inputs of new coverage, exit code {done.returncode}"
    )
    if done.returncode:
        sys.stderr.buffer.write(done.stderr[-4000:])
    return int(done.returncode != 0)


def _columns(log: bytes) -> list[tuple[bytes, ...]]:
    return list(zip(*_STATISTICS.findall(log), strict=True)) or [(), ()]


def edit_seeds(target: str, seconds: int) -> int:
    """Without atheris: hypothesis cuts, repeats and overwrites pieces of the seeds."""
    from hypothesis import HealthCheck, given, settings
    from hypothesis import strategies as st

    seeds = [path.read_bytes() for path in sorted((CORPUS / target).iterdir())]
    edits = st.lists(st.tuples(st.integers(0, MAX_BYTES), st.integers(0, 64), st.binary(max_size=16)))
    count, end = 0, time.monotonic() + seconds

    @settings(max_examples=200, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(seeds), edits)
    def check(seed: bytes, changes: list[tuple[int, int, bytes]]) -> None:
        nonlocal count
        data = bytearray(seed)
        for place, length, piece in changes:
            data[place % (len(data) + 1) :][:length] = piece
        CHECKS[target](bytes(data))
        count += 1

    warnings.simplefilter("ignore")
    while time.monotonic() < end:
        check()
    print(f"{target}: {count} executions without a finding; pip install atheris to steer them by coverage")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("target", choices=CHECKS)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--work", type=Path, help="folder of the working corpus and of findings")
    parser.add_argument("--only", type=Path, help="check this one input")
    parser.add_argument("--libfuzzer", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.libfuzzer is not None:
        run_atheris(options.target, options.libfuzzer)
    if options.only:
        CHECKS[options.target](options.only.read_bytes())
        return 0
    try:
        import atheris  # noqa: F401
    except ImportError:
        return edit_seeds(options.target, options.seconds)
    return steer(options.target, options.seconds, options.work or Path(tempfile.mkdtemp(prefix="fuzz-")))


if __name__ == "__main__":
    sys.exit(main())
