"""A landmark network as an ONNX graph: the one place that decides how it is written.

Other runtimes compile the graph in memory, and `FaceAligner.export` writes it to a file, there with the
decoder if asked for. Every axis but the batch may be fixed; the batch is always free.

    crops     (B, 3, S, S) float32
    heatmaps  (B, K, H, W) float32, or with a decoder
    landmarks (B, K, 2) float32, x y in crop pixels, and scores (B, K) float32
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from face_landmarks import __version__
from face_landmarks._system.extras import import_extra
from face_landmarks._system.forking import ForkableLock
from face_landmarks.errors import ExportError
from face_landmarks.models.hourglass import HourglassConfig
from face_landmarks.runtime.graph_layers import FUNCTIONS, MODULES, Operator, operands

_Array: TypeAlias = NDArray[np.float32] | NDArray[np.int64]

_OPSET: Final = 18
_IR: Final = 9  # of the file format: the newest that the oldest runtimes supported read
_LAYERS: Final = (
    "convolutions, batch norms, ReLU, average and maximum pooling, concatenation, sums, enlargement by whole "
    "factors, and dense layers behind a flattening"
)


class GraphSizes(NamedTuple):
    """The fixed sizes of a network's input and output.

    Attributes:
        crop: S, side of a crop in pixels.
        landmarks: K.
        heatmap: H = W, side of a heatmap in cells.
    """

    crop: int
    landmarks: int
    heatmap: int

    @classmethod
    def of(cls, config: HourglassConfig) -> GraphSizes:
        """The sizes of a network of this shape."""
        return cls(config.crop_size, config.landmarks, config.heatmap_size)


class GraphDecoder(NamedTuple):
    """The local soft-argmax of `decode_heatmaps`, and the way from cells to crop pixels.

    Attributes:
        window: odd side of the neighbourhood of the largest cell, in cells.
        temperature: of the softmax.
        heatmap_to_crop: (3, 3), a scale and a shift.
    """

    window: int
    temperature: float
    heatmap_to_crop: Tensor


def write_graph(
    network: nn.Module,
    sizes: GraphSizes | None = None,
    decoder: GraphDecoder | None = None,
    *,
    metadata: Mapping[str, str] | None = None,
    description: str = "",
) -> bytes:
    """A network as an ONNX file in float32; the same network gives the same bytes.

    Args:
        network: crops (B, 3, S, S) -> heatmaps (B, K, H, W), in evaluation mode; made of convolutions, batch
            norms, ReLU, average and maximum pooling, concatenation, sums, enlargement by whole factors, and
            dense layers behind a flattening.
        sizes: of crops and heatmaps; if not given, the graph takes crops of any size.
        decoder: what to add to the graph, so that landmarks and scores come out; needs the sizes.
        metadata: goes into the file as it is.
        description: of the file, in words.

    Raises:
        MissingDependencyError: onnx is not installed.
        ExportError: the network holds another kind of layer, or is no fixed graph of layers.
    """
    onnx = import_extra("onnx", "onnx", "ONNX graphs")
    graph = _Graph(onnx)
    crops, heatmaps = _add_network(graph, network)
    side = ("height", "width") if sizes is None else (sizes.crop, sizes.crop)
    inputs = {crops: ("batch", 3, *side)}
    outputs: dict[str, Sequence[str | int | None]]
    if decoder is None:
        answer = (None,) * 3 if sizes is None else (sizes.landmarks, sizes.heatmap, sizes.heatmap)
        outputs = {graph.add("Identity", [heatmaps], "heatmaps"): ("batch", *answer)}
    else:
        assert sizes is not None, "a decoder needs the sizes of the heatmaps"
        landmarks, scores = _add_decoder(graph, heatmaps, sizes, decoder)
        outputs = {landmarks: ("batch", sizes.landmarks, 2), scores: ("batch", sizes.landmarks)}
    return graph.serialize(inputs, outputs, metadata or {}, description)


class _Graph:
    """The nodes and constants of an ONNX graph under construction."""

    def __init__(self, onnx: Any) -> None:
        self._onnx = onnx
        self._nodes: list[Any] = []
        self._constants: list[Any] = []

    def add(self, kind: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        """Append a node with one output; return its name."""
        self._nodes.append(self._onnx.helper.make_node(kind, inputs, [name], name, **attributes))
        return name

    def constant(self, name: str, values: Tensor | _Array) -> str:
        """Store a constant and return its name. Tensors become float32."""
        if isinstance(values, Tensor):
            values = values.detach().to("cpu", torch.float32).numpy()
        self._constants.append(self._onnx.numpy_helper.from_array(values, name))
        return name

    def serialize(
        self,
        inputs: Mapping[str, Sequence[str | int | None]],
        outputs: Mapping[str, Sequence[str | int | None]],
        metadata: Mapping[str, str],
        description: str,
    ) -> bytes:
        """The file, given the shapes of the graph's inputs and outputs by name, all float32."""
        helper, float32 = self._onnx.helper, self._onnx.TensorProto.FLOAT
        values = [
            [helper.make_tensor_value_info(name, float32, shape) for name, shape in part.items()]
            for part in (inputs, outputs)
        ]
        graph = helper.make_graph(self._nodes, "landmarks", *values, self._constants)
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", _OPSET)],
            ir_version=_IR,
            producer_name="face_landmarks",
            producer_version=__version__,
            doc_string=description,
        )
        helper.set_model_props(model, metadata)
        return bytes(model.SerializeToString())


# --- The network ------------------------------------------------------------------------------


class _Tracer(fx.Tracer):
    """Torch's tracer, which changes `nn.Module` for the time it traces, but not for other threads."""

    def __init__(self) -> None:
        super().__init__()
        self._thread = threading.get_ident()

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """What a call of a module gives: a node of the graph, or in another thread its answer."""
        if threading.get_ident() != self._thread:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        """What an attribute of a module is: a node of the graph for parameters, but in this thread only."""
        if threading.get_ident() != self._thread:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)


_tracing = ForkableLock()  # two traces at once would each restore what the other one has changed


def _add_network(graph: _Graph, network: nn.Module) -> tuple[str, str]:
    """Append a network's layers; return the names of its input, "crops", and of its heatmaps."""
    network = nn.Sequential(network)  # so that a single layer is traced as one, too
    try:
        with _tracing:
            traced = fx.GraphModule(network, _Tracer().trace(network))
    except Exception as error:  # whatever a network's own code raises when it is given no numbers
        raise ExportError(f"expected a network that is a fixed graph of {_LAYERS}, got: {error}") from error
    layers = dict(traced.named_modules())
    names: dict[fx.Node, str] = {}
    heatmaps = None
    flat: set[fx.Node] = set()  # what is (B, N), and not (B, C, H, W)
    for node in traced.graph.nodes:
        if node.op == "placeholder" and not names:
            names[node] = "crops"
        elif node.op == "output" and isinstance(node.args[0], fx.Node):
            heatmaps = names[node.args[0]]
        else:
            kind, attributes, constants = _describe(node, layers.get(str(node.target)))
            parts = operands(node)
            all_flat = flat.issuperset(parts)
            if kind in ("Gemm", "Reshape") and not all_flat:
                raise ExportError(f"expected a network of {_LAYERS}, got {layers[str(node.target)]} on maps")
            if kind == "Flatten" or (kind != "Reshape" and all_flat):
                flat.add(node)
            inputs = [names[part] for part in parts]
            name = f"network.{node.name}"
            inputs += [
                "" if values is None else graph.constant(f"{name}.{part}", values)
                for part, values in constants.items()
            ]
            names[node] = graph.add(kind, inputs, name, **attributes)
    assert heatmaps is not None, "a traced network has one output, and an unknown kind was refused"
    return "crops", heatmaps


def _describe(node: fx.Node, layer: nn.Module | None) -> Operator:
    """The ONNX operator of a traced call, its attributes, and those of its inputs that are constants."""
    described, name = None, layer or node.target
    if node.op == "call_module" and layer is not None and type(layer) in MODULES:  # not a subclass of one
        described = MODULES[type(layer)](layer)
    elif node.op == "call_function" and node.target in FUNCTIONS:
        described = FUNCTIONS[node.target](node)
    if layer is not None and (layer._forward_hooks or layer._forward_pre_hooks):
        described, name = None, f"hooks on {layer}"  # which may change what goes in or comes out
    known = set(operands(node)) == set(node.all_input_nodes) and not _changes_its_input(node, layer)
    if described is None or not known:
        raise ExportError(f"expected a network of {_LAYERS}, got {name}")
    return described


def _changes_its_input(node: fx.Node, layer: nn.Module | None) -> bool:
    """Whether a call works in place on what another one reads, too."""
    in_place = getattr(layer, "inplace", False) or node.kwargs.get("inplace", False)
    return bool(in_place) and any(len(part.users) > 1 for part in node.all_input_nodes)


# --- The decoder ------------------------------------------------------------------------------


def _add_decoder(graph: _Graph, heatmaps: str, sizes: GraphSizes, decoder: GraphDecoder) -> tuple[str, str]:
    """Append the local soft-argmax; return the names of landmarks (B, K, 2) in crop pixels and scores (B, K).

    Elementwise and with sums only, as coordinates would suffer where a runtime multiplies matrices in
    half precision, and without gathering, which not every runtime can do.
    """
    matrix = decoder.heatmap_to_crop
    assert matrix[0, 1] == matrix[1, 0] == 0, "cells are not turned"

    def constant(name: str, values: Any, dtype: type = np.float32) -> str:
        return graph.constant(f"decoder.{name}", np.asarray(values, dtype))

    def add(kind: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        return graph.add(kind, inputs, f"decoder.{name}", **attributes)

    last = constant("last", [-1], np.int64)
    side = constant("side", sizes.heatmap, np.int64)
    cells = constant("cells", np.arange(sizes.heatmap))  # (H,), columns or rows
    reach = constant("reach", decoder.window // 2)
    flat_shape = [0, sizes.landmarks, sizes.heatmap**2]  # 0: as many as there are, also none

    flat = add("Reshape", [heatmaps, constant("flat_shape", flat_shape, np.int64)], "flat")  # (B, K, H * W)
    peak = add("ReduceMax", [flat, last], "peak")  # (B, K, 1)
    index = add("ArgMax", [flat], "index", axis=-1)  # (B, K, 1)
    heights = add("Sub", [heatmaps, add("Unsqueeze", [peak, last], "peak_cell")], "heights")  # at most 0
    weights = add(
        "Exp", [add("Mul", [heights, constant("temperature", decoder.temperature)], "logits")], "exp"
    )
    distances = {}
    for axis, kind, across in (("x", "Mod", -2), ("y", "Div", -1)):
        place = add("Cast", [add(kind, [index, side], f"index_{axis}")], f"peak_{axis}", to=1)  # float32
        distance = add("Sub", [cells, place], f"distance_{axis}")  # (B, K, H)
        near = add("LessOrEqual", [add("Abs", [distance], f"far_{axis}"), reach], f"near_{axis}")
        mask = add("Cast", [near], f"mask_{axis}", to=1)
        axes = constant(f"axes_{axis}", [across], np.int64)
        weights = add("Mul", [weights, add("Unsqueeze", [mask, axes], f"window_{axis}")], f"weights_{axis}")
        distances[axis] = place, distance, axes
    points = []
    for axis, (place, distance, axes) in distances.items():
        sums = add("ReduceSum", [weights, axes], f"sums_{axis}", keepdims=0)  # (B, K, H)
        total = add("ReduceSum", [sums, last], f"total_{axis}")  # (B, K, 1)
        moment = add("ReduceSum", [add("Mul", [sums, distance], f"moments_{axis}"), last], f"moment_{axis}")
        shift = add("Div", [moment, total], f"shift_{axis}")  # from the largest cell
        points.append(add("Add", [place, shift], f"cell_{axis}"))
    point = add("Concat", points, "points", axis=-1)  # (B, K, 2) in cells
    pixels = add("Mul", [point, constant("scale", [matrix[0, 0], matrix[1, 1]])], "pixels")
    landmarks = graph.add("Add", [pixels, constant("origin", matrix[:2, 2].tolist())], "landmarks")
    height = add("Squeeze", [peak, last], "height")
    scores = graph.add("Clip", [height, constant("zero", 0), constant("one", 1)], "scores")
    return landmarks, scores
