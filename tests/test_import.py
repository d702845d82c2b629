"""What `import face_landmarks` gives and costs, and how Ctrl-C ends a command that is still importing."""

from __future__ import annotations

import ast
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import face_landmarks

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "cv2", "numpy", "tqdm", "safetensors", "filelock")


def run(code: str, *, path: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, dict.fromkeys([path, ROOT])))},
        capture_output=True,
        text=True,
        check=False,
    )


def test_type_checkers_and_the_running_program_find_each_name_in_the_same_place() -> None:
    tree = ast.parse(Path(face_landmarks.__file__).read_text(encoding="utf-8"))
    (guarded,) = (node for node in tree.body if isinstance(node, ast.If))
    typed = {
        alias.name: f"{node.module}".removeprefix("face_landmarks.")
        for node in guarded.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert typed == face_landmarks._MODULES
    assert sorted(face_landmarks.__all__) == sorted([*typed, "__version__"])


def test_every_name_is_there_and_listed() -> None:
    done = run(
        "import face_landmarks\n"
        "assert set(face_landmarks.__all__) <= set(dir(face_landmarks))\n"
        "from face_landmarks import *\n"
        "from face_landmarks import FaceAligner as Again\n"
        "assert FaceAligner is Again is face_landmarks.FaceAligner is face_landmarks.aligner.FaceAligner\n"
        "assert issubclass(face_landmarks.errors.InputError, ValueError)\n"
        "assert not hasattr(face_landmarks, 'nonsense')\n"
        "try:\n    from face_landmarks import nonsense\nexcept ImportError as error:\n    print(error)\n"
    )
    assert done.returncode == 0, done.stderr
    assert "cannot import name 'nonsense' from 'face_landmarks'" in done.stdout


def test_importing_the_package_imports_nothing_heavy() -> None:
    done = run("import sys, face_landmarks\nprint(*sys.modules)")
    assert done.returncode == 0, done.stderr
    assert not set(HEAVY) & set(done.stdout.split())


def test_an_error_is_pickled_by_its_public_name() -> None:
    error = pickle.loads(pickle.dumps(face_landmarks.InputError("x: expected 1, got 2")))
    assert type(error) is face_landmarks.InputError


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_between_the_imports_of_the_package_and_of_torch_is_noticed() -> None:
    done = run(
        "import torch, face_landmarks, os\n"
        "torch.set_num_threads(2)\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    from face_landmarks._system.forking import settle_threads\n"
        "    settle_threads()\n"
        "    os._exit(torch.get_num_threads())\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    assert done.stdout == "1\n", done.stderr


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
@pytest.mark.parametrize("converts", [False, True])
def test_ctrl_c_while_torch_is_imported_ends_the_command_without_a_traceback(
    tmp_path: Path, converts: bool
) -> None:
    """Also where a module that is being imported turns every exception into another."""
    (tmp_path / "torch").mkdir()
    slow = "print('importing', flush=True); time.sleep(60)"
    caught = f"try:\n    {slow}\nexcept BaseException as error:\n    raise ImportError('broken') from error\n"
    (tmp_path / "torch" / "__init__.py").write_text(f"import time\n{caught if converts else slow}\n")
    words = [sys.executable, "-m", "face_landmarks", "models"]
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    with subprocess.Popen(
        words,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a job in the background ignores it
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        try:
            assert process.stdout.readline() == "importing\n"
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 130
            assert process.stderr.read() == "face-landmarks: stopped\n"
        finally:
            process.kill()


def test_both_forms_of_the_command_begin_in_the_same_function() -> None:
    setup = (ROOT / "setup.cfg").read_text(encoding="utf-8")
    assert "face-landmarks = face_landmarks.__main__:main\n" in setup
