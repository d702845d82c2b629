"""Other runtimes give torch's answers, survive pickling, threads and forks, or say what they cannot do."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from face_landmarks import FaceAligner, LandmarkModel, load_model, read_image
from face_landmarks.errors import ExportError, InputError, MissingDependencyError
from face_landmarks.models.hourglass import HourglassConfig, StackedHourglass
from face_landmarks.runtime.runtimes import RuntimeNetwork, check_backend, write_graph

PHOTO = Path(__file__).parents[2] / "examples" / "data" / "astronaut.jpg"
BOXES = [[178, 59, 267, 175], [170, 50, 280, 190], [190, 70, 260, 170]]
MODEL = "shr-fan-68-fast"
RUNTIMES = ["onnxruntime", "openvino"]


@pytest.fixture(params=RUNTIMES)
def runtime(request):
    pytest.importorskip("onnx")
    pytest.importorskip(request.param)
    return request.param


@pytest.fixture(scope="module")
def crops():
    return torch.rand(3, 3, 128, 128, generator=torch.Generator().manual_seed(0))


def random_network(norm, stacks=2, stem_pool="average"):
    torch.manual_seed(0)
    shape = {"landmarks": 5, "features": 32, "depth": 2, "crop_size": 64, "heatmap_size": 16}
    network = StackedHourglass(HourglassConfig(stacks=stacks, norm=norm, stem_pool=stem_pool, **shape))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
    return network.eval()


@pytest.mark.parametrize("stem_pool", ["average", "blur"])
@pytest.mark.parametrize("norm", ["before", "after"])
def test_all_forms_of_the_network_give_the_heatmaps_of_torch(runtime, norm, stem_pool):
    network = random_network(norm, stem_pool=stem_pool)
    crops = torch.rand(3, 3, 64, 64)
    with torch.inference_mode():
        expected = network(crops)
    compiled = RuntimeNetwork(network, runtime)
    for batch in (1, 3, 2):  # any number of crops
        torch.testing.assert_close(compiled(crops[:batch]), expected[:batch], atol=1e-5, rtol=1e-4)


def test_pooling_called_as_a_function_is_the_layer(runtime):
    class Pooling(nn.Module):
        def forward(self, crops):
            return nn.functional.avg_pool2d(nn.functional.avg_pool2d(crops, 2), 3, stride=1, padding=1)

    crops = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(RuntimeNetwork(Pooling(), runtime)(crops), Pooling()(crops))


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


def test_the_graph_is_a_valid_onnx_file():
    onnx = pytest.importorskip("onnx")
    model = onnx.load_from_string(write_graph(random_network("before")))
    onnx.checker.check_model(model, full_check=True)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Tanh(),
        nn.AvgPool2d((2, 1)),
        nn.AvgPool2d(2, ceil_mode=True),
        nn.AvgPool2d(2, divisor_override=3),
        nn.Conv2d(3, 5, 3, padding="same"),
        nn.Conv2d(3, 5, 3, padding_mode="reflect", padding=1),
    ],
)
def test_layers_it_does_not_know_are_named(layer):
    pytest.importorskip("onnx")
    with pytest.raises(ExportError, match=f"expected a network of .*got {type(layer).__name__}"):
        write_graph(nn.Sequential(layer))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "tensorflow"}, "expected 'torch', 'onnxruntime' or 'openvino', got 'tensorflow'"),
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


def test_the_caller_keeps_his_network_and_only_torch_exports(tmp_path):
    pytest.importorskip("onnxruntime")
    model = load_model(MODEL)
    before = copy.deepcopy(model.network.state_dict())
    aligner = FaceAligner(LandmarkModel(model.card, model.network), detector=None, backend="onnxruntime")
    aligner.align(read_image(PHOTO), BOXES)
    for name, value in model.network.state_dict().items():
        assert torch.equal(value, before[name]), name
    with pytest.raises(InputError, match="backend: expected 'torch' to export from, got 'onnxruntime'"):
        aligner.export(tmp_path / "landmarks.onnx")
