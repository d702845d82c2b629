"""Other runtimes for the landmark network: ONNX Runtime and OpenVINO, several times faster on a CPU.

The network is written down as an ONNX graph, in memory and within a tenth of a second, and handed to the
runtime; torch keeps reading images, cropping and decoding. See docs/speed.md for what each one gains.
"""

from __future__ import annotations

import operator
import os
import threading
from collections.abc import Callable
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn
from torch.nn import functional as F

from face_landmarks._system.extras import import_extra
from face_landmarks.errors import ExportError, InputError

Backend = Literal["torch", "onnxruntime", "openvino"]
Run: TypeAlias = Callable[[NDArray[np.float32]], NDArray[np.float32]]

_Values: TypeAlias = Tensor | NDArray[np.float32] | None

_OPSET: Final = 18
_IR: Final = 9  # of the file format: the newest that the oldest runtimes supported read
_EXTRAS: Final = {"onnxruntime": "onnx", "openvino": "openvino"}
_PRECISIONS: Final = {torch.float32: "f32", torch.bfloat16: "bf16", torch.float16: "f16"}

_compiling = threading.Lock()


def _renew_lock() -> None:
    """In a forked process, where the thread that held it may not have come along."""
    global _compiling
    _compiling = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def check_backend(backend: str, device: torch.device, dtype: torch.dtype) -> None:
    """Whether a runtime can do what is asked of it.

    Raises:
        InputError: an unknown backend, another device than the CPU, or a type it cannot compute in.
    """
    if backend not in ("torch", *_EXTRAS):
        raise InputError(f"backend: expected 'torch', 'onnxruntime' or 'openvino', got {backend!r}")
    if backend == "torch":
        return
    if device.type != "cpu":
        raise InputError(f"device: expected 'cpu' for backend {backend!r}, got '{device}'")
    allowed = list(_PRECISIONS) if backend == "openvino" else [torch.float32]
    if dtype not in allowed:
        expected = " or ".join(map(str, allowed))
        raise InputError(f"dtype: expected {expected} for backend {backend!r}, got {dtype}")


class RuntimeNetwork:
    """A network run by another runtime than torch: called with crops, it returns heatmaps.

    It computes on as many threads as torch has when it is made. It may be shared by threads and
    can be pickled; unpickled, or in a forked process, it is compiled anew, which takes a moment.

    Args:
        network: crops (B, 3, S, S) -> heatmaps (B, K, H, W), for any B; made of convolutions, batch
            norms, ReLU, average pooling, concatenation, sums and enlargement by whole factors.
        backend: "onnxruntime" or "openvino".
        dtype: what the runtime computes in; heatmaps are float32 in any case. ONNX Runtime knows
            float32 only.

    Raises:
        MissingDependencyError: the runtime, or the package onnx, is not installed.
        ExportError: the network holds something else.
    """

    def __init__(self, network: nn.Module, backend: str, dtype: torch.dtype = torch.float32) -> None:
        self.backend = backend
        self.dtype = dtype
        self._graph = write_graph(network)
        self._compile()

    def __call__(self, crops: Tensor) -> Tensor:
        """Heatmaps (B, K, H, W) float32 of crops (B, 3, S, S) float32, both on the CPU."""
        process, run = self._compiled
        if process != os.getpid():
            with _compiling:
                process, run = self._compiled
                if process != os.getpid():  # no other thread has been here
                    self._left_behind = run  # its threads are in the parent: to delete it is to wait for them
                    run = self._compile()
        return torch.from_numpy(run(np.ascontiguousarray(crops.numpy())))

    def __getstate__(self) -> dict[str, Any]:
        return {"backend": self.backend, "dtype": self.dtype, "_graph": self._graph}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._compile()

    def _compile(self) -> Run:
        openvino = self.backend == "openvino"
        run = _compile_openvino(self._graph, self.dtype) if openvino else _compile_onnxruntime(self._graph)
        self._compiled = os.getpid(), run
        return run


def write_graph(network: nn.Module) -> bytes:
    """A network of few kinds of layers, see `RuntimeNetwork`, as an ONNX file in float32.

    `FaceAligner.export` writes any network, with its model card, by torch's own exporter; that
    takes longer than all the rest of the start.

    Raises:
        MissingDependencyError: onnx is not installed.
        ExportError: the network holds another kind of layer.
    """
    import_extra("onnx", "onnx", "other runtimes")
    from onnx import TensorProto, helper, numpy_helper

    traced = fx.symbolic_trace(network)
    layers = dict(traced.named_modules())
    nodes, weights = [], []
    crops, heatmaps = "", ""
    for node in traced.graph.nodes:
        inputs = [part.name for part in node.all_input_nodes]
        if node.op == "placeholder":
            crops = node.name
        elif node.op == "output":
            (heatmaps,) = inputs
        else:
            kind, attributes, parameters = _describe(node, layers.get(str(node.target)))
            for name, values in parameters.items():
                if values is not None:
                    weights.append(numpy_helper.from_array(_to_numpy(values), f"{node.name}.{name}"))
                inputs.append("" if values is None else weights[-1].name)
            nodes.append(helper.make_node(kind, inputs, [node.name], **attributes))

    graph = helper.make_graph(
        nodes,
        "heatmaps of crops",
        [helper.make_tensor_value_info(crops, TensorProto.FLOAT, ["batch", 3, "height", "width"])],
        [helper.make_tensor_value_info(heatmaps, TensorProto.FLOAT, ["batch", None, None, None])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR)
    return bytes(model.SerializeToString())


def _describe(node: fx.Node, layer: nn.Module | None) -> tuple[str, dict[str, Any], dict[str, _Values]]:
    """The ONNX operator of a traced call, its attributes, and the inputs that are constants."""
    if isinstance(layer, nn.Conv2d) and isinstance(layer.padding, tuple) and layer.padding_mode == "zeros":
        attributes = {
            "kernel_shape": layer.kernel_size,
            "strides": layer.stride,
            "pads": layer.padding * 2,
            "dilations": layer.dilation,
            "group": layer.groups,
        }
        return "Conv", attributes, {"weight": layer.weight, "bias": layer.bias}
    if isinstance(layer, nn.BatchNorm2d) and layer.affine and layer.track_running_stats:
        names = ("weight", "bias", "running_mean", "running_var")
        return "BatchNormalization", {"epsilon": layer.eps}, {name: getattr(layer, name) for name in names}
    if isinstance(layer, nn.Identity):
        return "Identity", {}, {}
    if isinstance(layer, nn.ReLU) or node.target is F.relu:
        return "Relu", {}, {}
    if node.target is torch.cat and node.kwargs == {"dim": 1}:
        return "Concat", {"axis": 1}, {}
    if node.target is operator.add and all(isinstance(part, fx.Node) for part in node.args):
        return "Add", {}, {}
    if node.target is F.avg_pool2d and "input" not in node.kwargs:
        arguments: tuple[Any, ...] = node.args[1:]
        options: dict[str, Any] = node.kwargs
        layer = nn.AvgPool2d(*arguments, **options)  # which takes what the function takes
    if (
        isinstance(layer, nn.AvgPool2d)
        and isinstance(layer.kernel_size, int)
        and not layer.ceil_mode
        and layer.divisor_override is None
    ):
        attributes = {
            "kernel_shape": [layer.kernel_size] * 2,
            "strides": [layer.stride] * 2,
            "pads": [layer.padding] * 4,
            "count_include_pad": int(layer.count_include_pad),
        }
        return "AveragePool", attributes, {}
    if node.target is F.interpolate and node.kwargs.get("mode") == "nearest":
        scale = node.kwargs["scale_factor"]
        attributes = {"nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}
        return "Resize", attributes, {"roi": None, "scales": np.array([1, 1, scale, scale], np.float32)}
    raise ExportError(
        "backend: expected a network of convolutions, batch norms, ReLU, average pooling, concatenation, "
        f"sums and enlargement, got {layer or node.target}"
    )


def _to_numpy(values: Tensor | NDArray[np.float32]) -> NDArray[np.float32]:
    return values.detach().float().cpu().numpy() if isinstance(values, Tensor) else values


def _compile_onnxruntime(graph: bytes) -> Run:
    onnxruntime = import_extra("onnxruntime", "onnx", "other runtimes")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # torch wants the cores between
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run(crops: NDArray[np.float32]) -> NDArray[np.float32]:
        heatmaps: NDArray[np.float32] = session.run(None, {name: crops})[0]
        return heatmaps

    return run


def _compile_openvino(graph: bytes, dtype: torch.dtype) -> Run:
    openvino = import_extra("openvino", "openvino", "other runtimes")
    core = openvino.Core()
    options = {
        "INFERENCE_PRECISION_HINT": _PRECISIONS[dtype],
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    model = core.compile_model(core.read_model(graph), "CPU", options)
    mine = threading.local()  # a request is for one thread at a time

    def run(crops: NDArray[np.float32]) -> NDArray[np.float32]:
        if not hasattr(mine, "request"):
            mine.request = model.create_infer_request()
        heatmaps: NDArray[np.float32] = mine.request.infer([crops], share_inputs=True)[0]
        return heatmaps

    return run
