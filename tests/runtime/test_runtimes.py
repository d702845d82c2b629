"""Other runtimes give torch's answers, survive pickling, threads and forks, or say what they cannot do."""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from configparser import ConfigParser
from pathlib import Path

import normal_ends
import numpy as np
import pytest
import torch
from small_networks import random_network
from torch import nn

from face_landmarks import FaceAligner, LandmarkModel, load_model, read_image
from face_landmarks.cli import main
from face_landmarks.errors import InputError, MissingDependencyError
from face_landmarks.runtime import runtimes
from face_landmarks.runtime.graph import GraphSizes
from face_landmarks.runtime.runtimes import RuntimeNetwork, TorchNetwork, check_backend, make_runnable

PHOTO = Path(__file__).parents[2] / "examples" / "data" / "astronaut.jpg"
BOXES = [[178, 59, 267, 175], [170, 50, 280, 190], [190, 70, 260, 170]]
MODEL = "shr-fan-68-fast"
RUNTIMES = ["onnxruntime", "openvino"]
BACKENDS = ["torch", *RUNTIMES]


@pytest.fixture(params=RUNTIMES)
def runtime(request):
    pytest.importorskip("onnx")
    pytest.importorskip(request.param)
    return request.param


@pytest.fixture(scope="module")
def crops():
    return torch.rand(3, 3, 128, 128, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def plain_torch_afterwards():
    yield
    torch.set_default_dtype(torch.float32)
    torch.set_default_device(None)


@pytest.mark.parametrize("norm", ["before", "after"])
def test_a_runtime_gives_the_heatmaps_of_torch_for_any_number_of_crops(runtime, norm):
    network = random_network(norm, "blur")
    crops = torch.rand(3, 3, 64, 64)
    with torch.inference_mode():
        expected = network(crops)
    for sizes in (None, GraphSizes(64, 5, 16)):
        compiled = RuntimeNetwork(network, runtime, sizes=sizes)
        for batch in (1, 3, 2):
            torch.testing.assert_close(compiled(crops[:batch]), expected[:batch], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_networks_take_crops_of_any_type_and_order_and_answer_in_float32(backend):
    pytest.importorskip("onnx" if backend == "torch" else backend)
    network = make_runnable(random_network("after"), backend, torch.device("cpu"), torch.float32)
    crops = torch.rand(2, 3, 64, 64).bfloat16()
    expected = network(crops.float())
    assert expected.dtype == torch.float32
    for same in (
        crops,
        crops.double(),
        crops.float().half(),
        crops.float().to(memory_format=torch.channels_last),
        crops.float().requires_grad_(),
    ):
        torch.testing.assert_close(network(same), expected, atol=1e-6, rtol=1e-5)
    pixels = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    torch.testing.assert_close(network(pixels), network(pixels.float()), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_defaults_of_torch_do_not_reach_a_network(backend, dtype, plain_torch_afterwards):
    pytest.importorskip("onnx" if backend == "torch" else backend)
    network, cpu = random_network("before"), torch.device("cpu")
    crops = torch.rand(2, 3, 64, 64)
    before = make_runnable(copy.deepcopy(network), backend, cpu, torch.float32)
    expected = before(crops)
    torch.set_default_dtype(dtype)
    torch.set_default_device("meta")
    with torch.autocast("cpu", torch.bfloat16):
        made_now = make_runnable(network, backend, cpu, torch.float32)
        for found in (before(crops), made_now(crops)):
            assert (found.dtype, found.device) == (torch.float32, cpu)
            torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


def test_a_torch_network_is_a_module_that_torch_can_compile():
    aligner = FaceAligner(MODEL, detector=None, device="cpu")
    expected = aligner.get_landmarks(PHOTO, BOXES)
    aligner.network.compile(backend="eager")  # docs/speed.md names a faster one
    np.testing.assert_allclose(aligner.get_landmarks(PHOTO, BOXES), expected, atol=1e-4)


def test_landmarks_and_scores_are_those_of_torch(runtime):
    expected = FaceAligner(MODEL, detector=None).align(PHOTO, BOXES)
    found = FaceAligner(MODEL, detector=None, backend=runtime).align(PHOTO, BOXES)
    np.testing.assert_allclose(found.landmarks, expected.landmarks, atol=1e-3)
    np.testing.assert_allclose(found.landmark_scores, expected.landmark_scores, atol=1e-4)


def test_flipping_refining_and_heatmaps_work_on_any_backend(runtime):
    options = {"detector": None, "flip": True, "refine": True}
    expected, other = FaceAligner(MODEL, **options), FaceAligner(MODEL, **options, backend=runtime)
    np.testing.assert_allclose(
        other.get_landmarks(PHOTO, BOXES), expected.get_landmarks(PHOTO, BOXES), atol=1e-3
    )
    np.testing.assert_allclose(
        other.heatmaps(PHOTO, BOXES).heatmaps, expected.heatmaps(PHOTO, BOXES).heatmaps, atol=1e-4
    )


def test_openvino_in_bfloat16_moves_landmarks_by_less_than_a_pixel():
    pytest.importorskip("openvino")
    expected = FaceAligner(MODEL, detector=None).get_landmarks(PHOTO, BOXES)
    found = FaceAligner(MODEL, detector=None, backend="openvino", dtype=torch.bfloat16).get_landmarks(
        PHOTO, BOXES
    )
    assert np.abs(found - expected).max() < 1  # of a face 90 pixels wide


def test_a_compiled_network_can_be_pickled_and_copied(runtime, crops):
    network = RuntimeNetwork(load_model(MODEL).network, runtime)
    for copied in (pickle.loads(pickle.dumps(network)), copy.deepcopy(network)):
        torch.testing.assert_close(copied(crops), network(crops))


def test_threads_share_a_compiled_network(runtime, crops):
    network = RuntimeNetwork(load_model(MODEL).network, runtime)
    batches = [crops[:1], crops[1:], crops] * 3
    alone = [network(batch) for batch in batches]
    with ThreadPoolExecutor(3) as pool:
        for found, expected in zip(pool.map(network, batches), alone, strict=True):
            torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


FORK = """
import multiprocessing, sys, torch
from face_landmarks import FaceAligner
aligner = FaceAligner("shr-fan-68-fast", detector=None, backend=sys.argv[1])
boxes = [[178, 59, 267, 175]]
before = aligner.get_landmarks(sys.argv[2], boxes)
def child(queue):
    queue.put(aligner.get_landmarks(sys.argv[2], boxes))
context = multiprocessing.get_context("fork")
queue = context.Queue()
process = context.Process(target=child, args=(queue,))
process.start()
assert abs(queue.get(timeout=60) - before).max() < 1e-3
process.join(60)
assert process.exitcode == 0, process.exitcode
"""


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
def test_a_forked_process_compiles_anew(runtime):
    command = [sys.executable, "-W", "ignore", "-c", FORK, runtime, str(PHOTO)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


NORMAL_END = """
import os, sys, threading, torch
torch.set_num_threads(2)  # a runtime with a thread of its own, which no child has
from face_landmarks import FaceAligner
boxes = [[178, 59, 267, 175]]
def make():
    aligner = FaceAligner("shr-fan-68-tiny", detector=None, backend=sys.argv[1])
    aligner.get_landmarks(sys.argv[2], boxes)
    return aligner
def keep():
    mine.aligner = make()
    made.set()
    threading.Event().wait()
aligner, mine, made = make(), threading.local(), threading.Event()
threading.Thread(target=keep, daemon=True).start()
made.wait()
for used in (False, True):
    child = os.fork()
    if child == 0:
        if used:
            aligner.get_landmarks(sys.argv[2], boxes)
        sys.exit(7)
    assert exit_code(child) == 7, used
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_can_end_normally(runtime):
    """Deleted in a child, what the parent compiled would wait for the parent's threads, forever."""
    done = normal_ends.run(NORMAL_END, runtime, str(PHOTO))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("chosen", [None, "0"])
def test_onnx_runtime_reports_nothing_unless_the_user_chose(chosen):
    pytest.importorskip("onnxruntime")
    code = (
        "import os, sys; from face_landmarks import FaceAligner\n"
        "class Watch:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'onnxruntime':\n"
        "            seen.append(os.environ.get('ORT_DISABLE_TELEMETRY'))\n"
        "seen = []; sys.meta_path.insert(0, Watch())\n"
        "FaceAligner('shr-fan-68-tiny', detector=None, backend='onnxruntime')\n"
        "print(seen[0])  # as it was when the runtime was imported"
    )
    env = normal_ends.without_telemetry_setting() | (
        {} if chosen is None else {"ORT_DISABLE_TELEMETRY": chosen}
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=env)
    assert done.stdout.split() == [chosen or "1"], done.stderr


def test_threads_of_a_forked_process_wait_for_one_compilation(runtime, monkeypatch):
    network = RuntimeNetwork(random_network("after"), runtime)
    crops = torch.zeros(1, 3, 32, 32)
    expected, compiled = network(crops), []

    def slowly():
        time.sleep(0.2)
        compiled.append(1)
        return RuntimeNetwork._compile(network)

    def left_behind(crops):
        raise AssertionError("the parent's session was run")

    network._compiled = -1, left_behind  # as in a child of the process that compiled it
    monkeypatch.setattr(network, "_compile", slowly)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(network, [crops] * 8))
    assert compiled == [1]
    for answer in answers:
        torch.testing.assert_close(answer, expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "tensorflow"}, "expected 'auto', 'torch', 'onnxruntime' or 'openvino', got"),
        (
            {"backend": "onnxruntime", "dtype": torch.bfloat16},
            "dtype: expected torch.float32 for backend 'onn",
        ),
        (
            {"backend": "openvino", "dtype": torch.float64},
            "torch.float16 for backend 'openvino', got torch.f",
        ),
    ],
)
def test_what_no_backend_can_do_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        FaceAligner(MODEL, detector=None, **options)


def test_other_runtimes_are_for_the_cpu():
    with pytest.raises(InputError, match="device: expected 'cpu' for backend 'openvino', got 'cuda'"):
        check_backend("openvino", torch.device("cuda"), torch.float32)


@pytest.mark.parametrize(("backend", "extra"), [("onnxruntime", "onnx"), ("openvino", "openvino")])
def test_a_backend_that_is_not_installed_names_its_extra(backend, extra, monkeypatch):
    pytest.importorskip("onnx")
    monkeypatch.setitem(sys.modules, backend, None)  # import fails
    with pytest.raises(MissingDependencyError, match=rf'pip install "shr-fan\[{extra}\]"'):
        FaceAligner(MODEL, detector=None, backend=backend)


def test_the_caller_keeps_his_network():
    pytest.importorskip("onnxruntime")
    model = load_model(MODEL)
    before = copy.deepcopy(model.network.state_dict())
    for options in ({"backend": "onnxruntime"}, {}, {"dtype": torch.bfloat16}):
        aligner = FaceAligner(
            LandmarkModel(model.card, model.network), detector=None, device="cpu", **options
        )
        aligner.align(read_image(PHOTO), BOXES)
        for name, value in model.network.state_dict().items():
            assert torch.equal(value, before[name]) and value.is_contiguous(), name


@pytest.fixture
def threads_given(monkeypatch):
    """The threads that each compilation is given, in order."""
    given = []
    for name, place in (("_compile_onnxruntime", 1), ("_compile_openvino", 2)):
        compile_ = getattr(runtimes, name)
        monkeypatch.setattr(
            runtimes,
            name,
            lambda *rest, compile_=compile_, place=place, **options: (
                given.append(rest[place]) or compile_(*rest, **options)
            ),
        )
    return given


def test_a_runtime_computes_on_as_many_threads_as_torch_unless_told(runtime, threads_given):
    network = random_network("after")
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        RuntimeNetwork(network, runtime)
        torch.set_num_threads(2)
        RuntimeNetwork(network, runtime)
        told = RuntimeNetwork(network, runtime, threads=3)
        pickle.loads(pickle.dumps(told))
    finally:
        torch.set_num_threads(threads)
    assert threads_given == [1, 2, 3, 3]


@pytest.mark.parametrize(
    ("version", "entry", "value"),
    [
        ("1.25.1", "session.force_spinning_stop", "1"),
        ("1.26.0", "session.intra_op.spin_duration_us", "300"),
        ("2.0", "session.intra_op.spin_duration_us", "300"),
        ("nightly", "session.force_spinning_stop", "1"),
    ],
)
def test_onnxruntime_is_given_its_threads_which_do_not_spin_for_long(monkeypatch, version, entry, value):
    onnxruntime = pytest.importorskip("onnxruntime")
    sessions = []
    session = onnxruntime.InferenceSession
    monkeypatch.setattr(onnxruntime, "__version__", version)
    monkeypatch.setattr(
        onnxruntime,
        "InferenceSession",
        lambda graph, options, **rest: sessions.append(options) or session(graph, options, **rest),
    )
    RuntimeNetwork(random_network("after"), "onnxruntime", threads=2)
    RuntimeNetwork(random_network("after"), "onnxruntime", sizes=GraphSizes(64, 5, 16))
    assert sessions[0].intra_op_num_threads == 2
    assert [options.enable_mem_pattern for options in sessions] == [False, True]  # a plan for each size
    assert sessions[0].get_session_config_entry(entry) == value


CROP_AND_DECODE = """
import os, sys, torch
from face_landmarks import FaceAligner, read_image

def threads():
    return len(os.listdir("/proc/self/task"))

torch.set_num_threads(1)
aligner = FaceAligner(sys.argv[1], detector=None, device="cpu", backend="onnxruntime")
pixels = read_image(sys.argv[2])
torch.set_num_threads(2)
before = threads()
aligner.get_landmarks(pixels, [[178, 59, 267, 175]])
assert threads() == before, "torch has started threads"
torch.rand(10**6).add(1)
assert threads() > before, "threads of torch would not have been seen"
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's list of threads")
@pytest.mark.parametrize("model", ["shr-fan-68", "shr-fan-68-fast"])
def test_torch_crops_and_decodes_one_face_without_threads(model):
    """They would spin for milliseconds on the cores that the runtime computes on."""
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CROP_AND_DECODE, model, str(PHOTO)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


CPU = torch.device("cpu")


class FakeRuntime:
    """Stands in for an installed runtime."""

    def __init__(self, version):
        self.__version__ = version


@pytest.fixture
def installed(monkeypatch):
    """Pretend that these are the installed runtimes, by name and version; every graph compiles."""

    def pretend(**versions):
        for name in ("onnx", *RUNTIMES):
            version = versions.get(name)
            monkeypatch.setitem(sys.modules, name, FakeRuntime(version) if version else None)

    monkeypatch.setattr(runtimes, "write_graph", lambda network, sizes: b"")
    for name in RUNTIMES:
        monkeypatch.setattr(runtimes, f"_compile_{name}", lambda *rest, **options: lambda crops: crops)
    return pretend


@pytest.mark.parametrize(
    ("versions", "dtype", "device", "expected"),
    [
        (
            {"onnx": "1.17.0", "onnxruntime": "1.17.0", "openvino": "2024.4.0-1-x"},
            "float32",
            "cpu",
            "openvino",
        ),
        ({"onnx": "1.17.0", "onnxruntime": "1.17.0"}, "float32", "cpu", "onnxruntime"),
        ({"onnx": "1.20.1", "openvino": "2026.1.0"}, "float32", "cpu", "openvino"),
        ({"onnx": "1.20.1"}, "float32", "cpu", "torch"),
        ({"onnxruntime": "1.20.0", "openvino": "2026.1.0"}, "float32", "cpu", "torch"),
        ({"onnx": "1.16.9", "onnxruntime": "1.20.0"}, "float32", "cpu", "torch"),
        ({"onnx": "1.17.0", "onnxruntime": "1.9.0"}, "float32", "cpu", "torch"),
        (
            {"onnx": "1.17.0", "onnxruntime": "1.20.0", "openvino": "2024.3.0"},
            "float32",
            "cpu",
            "onnxruntime",
        ),
        ({"onnx": "2.0.0", "onnxruntime": "2.0", "openvino": "2030.0"}, "float32", "cpu", "openvino"),
        ({"onnx": "1.17.0", "onnxruntime": "unknown"}, "float32", "cpu", "torch"),
        ({"onnx": "1.17.0", "onnxruntime": "1.20.0", "openvino": "2025.0.0"}, "bfloat16", "cpu", "openvino"),
        ({"onnx": "1.17.0", "onnxruntime": "1.20.0"}, "bfloat16", "cpu", "torch"),
        ({"onnx": "1.17.0", "onnxruntime": "1.20.0", "openvino": "2025.0.0"}, "float64", "cpu", "torch"),
        ({"onnx": "1.17.0", "onnxruntime": "1.20.0", "openvino": "2025.0.0"}, "float32", "meta", "torch"),
    ],
)
def test_auto_is_the_first_runtime_that_is_installed_and_can_do_it(
    installed, versions, dtype, device, expected
):
    installed(**versions)
    for _ in range(2):  # always the same
        network = make_runnable(nn.ReLU(), "auto", torch.device(device), getattr(torch, dtype))
        assert network.backend == expected


class Damaged:
    """An import hook under which a package raises another error than ImportError."""

    def __init__(self, name):
        self.name = name

    def find_spec(self, name, *_):
        if name == self.name:
            raise OSError("a shared library cannot be loaded")


def test_auto_passes_over_a_runtime_whose_installation_is_damaged(installed, monkeypatch):
    installed(onnx="1.17.0", onnxruntime="1.17.0")
    monkeypatch.delitem(sys.modules, "openvino")
    monkeypatch.setattr(sys, "meta_path", [Damaged("openvino"), *sys.meta_path])
    assert make_runnable(nn.ReLU(), "auto", CPU, torch.float32).backend == "onnxruntime"


def test_the_versions_that_auto_accepts_are_those_of_the_extras():
    config = ConfigParser()
    config.read(Path(__file__).parents[2] / "setup.cfg", encoding="utf-8")
    extras = config["options.extras_require"]
    lines = {line for extra in ("onnx", "openvino") for line in extras[extra].split()}
    assert lines == {f"{name}>={major}.{minor}" for name, (major, minor) in runtimes._LOWEST.items()}


def test_a_double_precision_network_is_not_rounded():
    model = load_model(MODEL)
    network = model.network.double()
    for parameter in network.parameters():
        parameter.data.mul_(1 + 1e-12)
    aligner = FaceAligner(
        LandmarkModel(model.card, network), detector=None, device="cpu", dtype=torch.float64
    )
    for mine, given in zip(aligner.network.parameters(), network.parameters(), strict=True):
        assert torch.equal(mine, given)


def test_auto_is_torch_where_a_runtime_cannot_run_the_network(installed, monkeypatch, caplog):
    installed(onnx="1.17.0", onnxruntime="1.17.0", openvino="2025.0.0")

    def fails(*_):
        raise RuntimeError("this processor has no vectors")

    monkeypatch.setattr(runtimes, "_compile_openvino", fails)
    assert make_runnable(nn.ReLU(), "auto", CPU, torch.float32).backend == "onnxruntime"
    monkeypatch.setattr(runtimes, "write_graph", fails)
    network = make_runnable(nn.Tanh(), "auto", CPU, torch.float32)
    assert isinstance(network, TorchNetwork) and network.backend == "torch"
    assert "backend 'auto': not openvino: this processor has no vectors" in caplog.messages


@pytest.mark.parametrize("model", ["shr-fan-68", "shr-fan-68-fast"])
def test_auto_gives_the_landmarks_of_torch_to_a_hundredth_of_a_pixel_and_tells_what_it_chose(model):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    aligner = FaceAligner(model, detector=None, device="cpu", backend="auto")
    assert aligner.backend in RUNTIMES and aligner.network.backend == aligner.backend
    expected = FaceAligner(model, detector=None, device="cpu").align(PHOTO, BOXES)
    found = aligner.align(PHOTO, BOXES)
    assert np.abs(found.landmarks - expected.landmarks).max() < 0.01
    np.testing.assert_allclose(found.landmark_scores, expected.landmark_scores, atol=1e-4)


def test_auto_without_a_runtime_is_torch(monkeypatch):
    for name in RUNTIMES:
        monkeypatch.setitem(sys.modules, name, None)
    aligner = FaceAligner(MODEL, detector=None, device="cpu", backend="auto")
    assert aligner.backend == "torch" and isinstance(aligner.network, TorchNetwork)


def test_the_command_takes_auto(monkeypatch, capsys):
    chosen = []
    align = FaceAligner.align
    monkeypatch.setattr(
        FaceAligner,
        "align",
        lambda self, photo, boxes: chosen.append(self.backend) or align(self, photo, BOXES),
    )
    for name in RUNTIMES:
        monkeypatch.setitem(sys.modules, name, None)
    assert main(["align", str(PHOTO), "--backend", "auto", "--device", "cpu", "--model", MODEL]) == 0
    assert chosen == ["torch"] and '"landmarks"' in capsys.readouterr().out
