"""Memory of the process that keeps the names of a very long list, in bytes of each name.

    python examples/lab/speed/measure_names.py [--names 1000000] [--length 40]

Nothing is aligned: what is measured is the growth of the resident memory, at its highest, of a process that
keeps the list as `align_list` does (from a text file, to know what is done), and as the first process of
`align_dataset` does (all photos, divided into parts and packed for Ray). Ray's own processes, which are given
the parts, are not in it. Linux only.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from face_landmarks.output.cluster.dataset import _resume
from face_landmarks.output.cluster.manifest import Manifest
from face_landmarks.output.cluster.places import place_of
from face_landmarks.output.cluster.sources import find_photos
from face_landmarks.output.cluster.worker import pack
from face_landmarks.output.folders.lists import PathSet, read_list


def highest() -> int:
    """The most bytes that were resident so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def keep_as_align_list(file: Path, place: Path) -> int:
    """Remember each path of a file, as one that is done; their number."""
    done = PathSet()
    return sum(done.add(name) for name in read_list(file)())


def keep_as_align_dataset(file: Path, place: Path) -> int:
    """Divide the paths of a file into parts, and pack them; the number of paths."""
    source = find_photos(list(read_list(file)()))
    _, waiting = _resume(Manifest(place_of(place), {}), source, 512)
    packed = list(map(pack, waiting))
    assert packed
    return sum(len(part.photos) for part in waiting)


def measure(keep: Callable[[Path, Path], int], file: Path, place: Path, names: int) -> None:
    """Print what one way of keeping the names costs."""
    before, start = highest(), time.process_time()
    assert keep(file, place) == names
    grown, seconds = highest() - before, time.process_time() - start
    print(
        f"{keep.__name__.removeprefix('keep_as_')}: {names} names, {grown / 1e6:.0f} MB, "
        f"{grown / names:.0f} bytes of each, {seconds * 1e6 / names:.1f} microseconds of each",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--names", type=int, default=1_000_000)
    parser.add_argument("--length", type=int, default=40, help="letters of a name")
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        file, place = Path(folder) / "list.txt", Path(folder) / "out"
        with file.open("w") as names:
            names.writelines(f"{number:0{options.length - 4}}.jpg\n" for number in range(options.names))
        for keep in (keep_as_align_list, keep_as_align_dataset):
            process = context.Process(target=measure, args=(keep, file, place, options.names))
            process.start()
            process.join()
            assert process.exitcode == 0


if __name__ == "__main__":
    main()
