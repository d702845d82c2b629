"""The ONNX graph of a network computes what torch does, decoder included, or names what it cannot write."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from small_networks import random_network
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from face_landmarks.errors import ExportError, MissingDependencyError
from face_landmarks.geometry import transform_points
from face_landmarks.heatmap import decode_heatmaps
from face_landmarks.runtime.graph import GraphDecoder, GraphSizes, write_graph

onnx = pytest.importorskip("onnx", reason="needs onnx: pip install 'shr-fan[onnx]'")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs onnxruntime: pip install 'shr-fan[onnx]'")

HEATMAP_TO_CROP = torch.tensor([[4.0, 0.0, 1.25], [0.0, 3.0, -2.0], [0.0, 0.0, 1.0]], dtype=torch.float64)


def run(graph, crops):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return [torch.from_numpy(output) for output in session.run(None, {"crops": crops.numpy()})]


def random(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


class Apply(nn.Module):
    """A function of the crops as a network."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, crops):
        return self.function(crops)


@pytest.mark.parametrize("stem_pool", ["average", "blur"])
@pytest.mark.parametrize("norm", ["before", "after"])
@pytest.mark.parametrize("stacks", [1, 4])
def test_every_form_of_the_network_gives_the_heatmaps_of_torch_for_any_batch(norm, stem_pool, stacks):
    network = random_network(norm, stem_pool, stacks)
    free, fixed = write_graph(network), write_graph(network, GraphSizes(64, 5, 16))
    for batch in (1, 3, 2):
        crops = random(batch, 3, 64, 64)
        with torch.inference_mode():
            expected = network(crops)
        for graph in (free, fixed):
            (heatmaps,) = run(graph, crops)
            torch.testing.assert_close(heatmaps, expected, atol=1e-5, rtol=1e-4)
    assert run(free, random(2, 3, 32, 48))[0].shape == (2, 5, 8, 12)  # and any size, if none is given


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(3, 6, (3, 5), stride=(1, 2), padding=(1, 4), dilation=(1, 2), groups=3, bias=False),
        nn.Conv2d(3, 5, 1),
        nn.BatchNorm2d(3, eps=0.1),
        nn.ReLU(),
        nn.Identity(),
        nn.AvgPool2d(3),
        nn.AvgPool2d(2, stride=1, padding=1),
        nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False),
        nn.MaxPool2d(3),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        nn.MaxPool2d(2, stride=1, padding=1, dilation=2),
        nn.Sequential(
            nn.Flatten(), nn.Linear(3 * 17 * 22, 7), nn.ReLU(), nn.Identity(), nn.Linear(7, 5, bias=False)
        ),
        nn.Sequential(nn.Flatten(), nn.Linear(3 * 17 * 22, 12), nn.Unflatten(1, (3, 2, 2)), nn.MaxPool2d(2)),
        nn.Sequential(
            nn.Flatten(), Apply(lambda x: torch.cat((x, F.relu(x) + x), dim=1)), nn.Linear(6 * 17 * 22, 5)
        ),
        Apply(lambda crops: F.avg_pool2d(F.avg_pool2d(crops, 2), 3, stride=1, padding=1)),
        Apply(lambda crops: F.avg_pool2d(crops, 3, 2, 1, count_include_pad=False)),
        Apply(F.relu),
        Apply(lambda crops: torch.cat((F.relu(crops), crops, crops), dim=1)),
        Apply(lambda crops: torch.cat([crops, F.avg_pool2d(crops, 3, 1, 1)], 1)),
        Apply(lambda crops: F.avg_pool2d(crops, 3, 1, 1) + crops),
        Apply(lambda crops: crops + crops),
        Apply(lambda crops: F.interpolate(crops, scale_factor=3, mode="nearest")),
    ],
    ids=str,
)
def test_a_layer_gives_what_torch_gives(layer):
    for name, value in [*layer.named_parameters(), *layer.named_buffers()]:
        if value.is_floating_point():
            value.data = random(*value.shape, seed=len(name)) + 0.5
    crops = random(2, 3, 17, 22) - 0.5
    with torch.inference_mode():
        expected = layer.eval()(crops)
    torch.testing.assert_close(run(write_graph(layer), crops)[0], expected)


class Standardised(nn.Conv2d):
    """A convolution that is not the one it inherits from."""

    def forward(self, crops):
        return F.conv2d(crops, self.weight - self.weight.mean())


def weight_norm(layer):
    """By a hook that computes the weights before each call, as torch did before it had parametrizations."""
    layer.register_forward_pre_hook(lambda layer, _: layer.weight.data.div_(layer.weight.norm()))
    return layer


def halves(crops):
    return crops[:, :, ::2, ::2]


def depends_on_what_it_sees(crops):
    return crops if crops.sum() > 0 else -crops


def overwritten(crops):
    pooled = F.avg_pool2d(crops, 2)
    return F.relu(pooled, inplace=True) + pooled  # torch adds the ReLU to itself


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        (nn.Tanh(), "Tanh"),
        (nn.AvgPool2d((2, 1)), "AvgPool2d"),
        (nn.AvgPool2d(2, stride=(2, 1)), "AvgPool2d"),
        (nn.AvgPool2d(2, padding=(1, 0)), "AvgPool2d"),
        (nn.AvgPool2d(2, ceil_mode=True), "AvgPool2d"),
        (nn.AvgPool2d(2, divisor_override=3), "AvgPool2d"),
        (nn.MaxPool2d((2, 1)), "MaxPool2d"),
        (nn.MaxPool2d(2, return_indices=True), "MaxPool2d"),
        (nn.MaxPool2d(3, 2, padding=1, ceil_mode=True), "MaxPool2d"),
        (nn.MaxPool2d(2, 3, ceil_mode=True), "MaxPool2d"),
        (nn.Linear(22, 5), "Linear.* on maps"),
        (nn.Sequential(nn.ReLU(), nn.Linear(22, 5)), "Linear.* on maps"),
        (nn.Flatten(2), "Flatten"),
        (nn.Unflatten(2, (17, 1)), "Unflatten"),
        (nn.Unflatten(1, (1, 3, 1)), "Unflatten.* on maps"),
        (nn.Sequential(nn.Flatten(), nn.Unflatten(1, (3, -1, 22))), "Unflatten"),
        (nn.Sequential(nn.Flatten(), nn.Unflatten(1, (51, 22))), "Unflatten"),
        (nn.Conv2d(3, 5, 3, padding="same"), "Conv2d"),
        (nn.Conv2d(3, 5, 3, padding_mode="reflect", padding=1), "Conv2d"),
        (nn.BatchNorm2d(3, affine=False), "BatchNorm2d"),
        (nn.BatchNorm2d(3, track_running_stats=False), "BatchNorm2d"),
        (Standardised(3, 3, 3), "weight"),
        (weight_norm(nn.Conv2d(3, 3, 3)), "hooks on Conv2d"),
        (parametrizations.weight_norm(nn.Conv2d(3, 3, 3)), "ParametrizedConv2d"),
        (Apply(halves), "getitem"),
        (Apply(depends_on_what_it_sees), "control flow"),
        (Apply(overwritten), "relu"),
        (Apply(lambda crops: crops + 1), "add"),
        (Apply(lambda crops: torch.cat((crops, crops), dim=2)), "cat"),
        (Apply(lambda crops: F.avg_pool2d(input=crops, kernel_size=2)), "avg_pool2d"),
        (Apply(lambda crops: F.interpolate(crops, scale_factor=1.5, mode="nearest")), "interpolate"),
        (Apply(lambda crops: F.interpolate(crops, scale_factor=2, mode="bilinear")), "interpolate"),
        (Apply(lambda crops: F.interpolate(crops, size=(34, 44))), "interpolate"),
        (Apply(lambda crops: (crops, crops)), "output"),
    ],
    ids=str,
)
def test_what_it_cannot_write_is_named(layer, name):
    with pytest.raises(ExportError, match=rf"(?s)^expected a network .*sums, enlarge.* got.*{name}"):
        write_graph(nn.Sequential(layer))


def test_a_graph_is_a_valid_file_of_float32_with_its_metadata_and_the_same_each_time():
    network = random_network("before")
    facts = {"lean": "0.25", "licence": "none"}
    graph = write_graph(network, GraphSizes(64, 5, 16), metadata=facts, description="a test")
    model = onnx.load_from_string(graph)
    onnx.checker.check_model(model, full_check=True)
    assert {fact.key: fact.value for fact in model.metadata_props} == facts
    assert (model.doc_string, model.producer_name) == ("a test", "face_landmarks")
    assert [opset.version for opset in model.opset_import] == [18] and model.ir_version == 9
    assert {constant.data_type for constant in model.graph.initializer} == {onnx.TensorProto.FLOAT}
    assert graph == write_graph(network, GraphSizes(64, 5, 16), metadata=facts, description="a test")


def test_half_precision_weights_are_written_as_float32():
    network = random_network("after").to(torch.bfloat16)
    crops = random(2, 3, 64, 64)
    with torch.inference_mode():
        expected = network.float()(crops)
    torch.testing.assert_close(
        run(write_graph(network.to(torch.bfloat16)), crops)[0], expected, atol=1e-5, rtol=1e-4
    )


def heatmaps_with_peaks_everywhere(side):
    """(6, 3, side, side): noise; a peak in each corner and amidst; a negative one, a flat one, a high one."""
    heatmaps = random(6, 3, side, side) - 0.2
    for place, (row, column) in enumerate([(0, 0), (0, -1), (-1, 0), (-1, -1), (side // 2, 1)]):
        heatmaps[place, 0, row, column] = 1.1
    heatmaps[0, 1] -= 2
    heatmaps[1, 1] = 0.25
    heatmaps[2, 1] *= 30
    return heatmaps


@pytest.mark.parametrize("window", [1, 3, 5, 9, 41])
@pytest.mark.parametrize("temperature", [0.5, 10.0, 30.0])
def test_the_decoder_gives_the_landmarks_of_torch(window, temperature):
    decoder = GraphDecoder(window, temperature, HEATMAP_TO_CROP)
    graph = write_graph(nn.Identity(), GraphSizes(12, 3, 12), decoder)
    onnx.checker.check_model(graph, full_check=True)
    heatmaps = heatmaps_with_peaks_everywhere(12)
    points, expected_scores = decode_heatmaps(heatmaps, window=window, temperature=temperature)
    expected = transform_points(HEATMAP_TO_CROP, points)
    for batch in (slice(0, 6), slice(2, 3)):
        landmarks, scores = run(graph, heatmaps[batch])
        torch.testing.assert_close(landmarks, expected[batch], atol=1e-4, rtol=0)
        torch.testing.assert_close(scores, expected_scores[batch], atol=1e-6, rtol=0)


def test_every_setting_of_the_decoder_moves_the_landmarks():
    """So the test above would see one that is left out."""
    heatmaps = heatmaps_with_peaks_everywhere(12)
    found = [
        run(write_graph(nn.Identity(), GraphSizes(12, 3, 12), GraphDecoder(*settings)), heatmaps)[0]
        for settings in ((5, 10.0, HEATMAP_TO_CROP), (3, 10.0, HEATMAP_TO_CROP), (5, 1.0, HEATMAP_TO_CROP))
    ]
    for other in found[1:]:
        assert float((other - found[0]).abs().mean()) > 0.1


def test_the_decoder_is_made_of_what_small_runtimes_know():
    """No gathering by index, and no product of matrices, which some runtimes take in half precision."""
    graph = write_graph(nn.Identity(), GraphSizes(12, 3, 12), GraphDecoder(5, 10.0, HEATMAP_TO_CROP))
    kinds = {node.op_type for node in onnx.load_from_string(graph).graph.node}
    assert not kinds & {"GatherElements", "GatherND", "Gather", "MatMul", "Gemm", "Where", "Softmax"}


def test_the_graph_names_its_input_and_outputs_and_their_sizes():
    sizes = GraphSizes(64, 5, 16)
    for decoder, outputs in (
        (None, {"heatmaps": ["batch", 5, 16, 16]}),
        (GraphDecoder(5, 10.0, HEATMAP_TO_CROP), {"landmarks": ["batch", 5, 2], "scores": ["batch", 5]}),
    ):
        graph = onnx.load_from_string(write_graph(random_network("after"), sizes, decoder)).graph
        shapes = {
            value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
            for value in (*graph.input, *graph.output)
        }
        assert shapes == {"crops": ["batch", 3, 64, 64], **outputs}


def test_without_onnx_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingDependencyError, match=r'need onnx, pip install "shr-fan\[onnx\]'):
        write_graph(nn.Identity())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_graph_is_the_same_under_other_defaults_of_torch(dtype):
    network, sizes = random_network("before"), GraphSizes(64, 5, 16)
    decoder = GraphDecoder(5, 10.0, HEATMAP_TO_CROP)
    expected = write_graph(network, sizes, decoder)
    torch.set_default_dtype(dtype)
    try:
        with torch.device("meta"), torch.autocast("cpu", torch.bfloat16):
            assert write_graph(network, sizes, decoder) == expected
    finally:
        torch.set_default_dtype(torch.float32)


def test_weights_are_written_exactly():
    layer = nn.Conv2d(3, 4, 1)
    (weight, bias) = onnx.load_from_string(write_graph(layer)).graph.initializer
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(weight), layer.weight.detach())
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(bias), layer.bias.detach())


def test_other_threads_may_use_torch_and_write_graphs_meanwhile():
    """Torch's tracer changes every module of the process; unguarded, most of these calls fail."""
    network, other = random_network("before"), nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    crops = random(1, 3, 8, 8)
    expected, graph = other(crops), write_graph(network)
    stop, before = threading.Event(), sys.getswitchinterval()

    def compute():
        count = 0
        while not stop.is_set():
            torch.testing.assert_close(other(crops), expected)
            count += 1
        return count

    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(4) as pool:
            computing = pool.submit(compute)
            writing = [pool.submit(write_graph, network) for _ in range(12)]
            try:
                assert all(written.result() == graph for written in writing)
            finally:
                stop.set()
            assert computing.result() > 0
    finally:
        sys.setswitchinterval(before)
    torch.testing.assert_close(other(crops), expected)
