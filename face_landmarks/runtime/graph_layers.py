"""The layers of a traced network that `write_graph` knows, as operators of ONNX."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, Final, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn
from torch.nn import functional as F

# An operator's name, its attributes, and those of its inputs that are constants.
Operator: TypeAlias = tuple[str, dict[str, Any], "dict[str, Tensor | NDArray[Any] | None]"]


def operands(node: fx.Node) -> list[fx.Node]:
    """The tensors a traced call works on, in order, the same one twice if it is given twice."""
    parts = node.args[0] if node.args and isinstance(node.args[0], list | tuple) else node.args
    return [part for part in parts if isinstance(part, fx.Node)]


def _convolution(layer: nn.Conv2d) -> Operator | None:
    if not isinstance(layer.padding, tuple) or layer.padding_mode != "zeros":
        return None
    attributes = {
        "kernel_shape": layer.kernel_size,
        "strides": layer.stride,
        "pads": layer.padding * 2,
        "dilations": layer.dilation,
        "group": layer.groups,
    }
    return "Conv", attributes, {"weight": layer.weight, "bias": layer.bias}


def _norm(layer: nn.BatchNorm2d) -> Operator | None:
    if not layer.affine or not layer.track_running_stats:
        return None
    names = ("weight", "bias", "running_mean", "running_var")
    return "BatchNormalization", {"epsilon": layer.eps}, {name: getattr(layer, name) for name in names}


def _pool(layer: nn.AvgPool2d) -> Operator | None:
    sides = (layer.kernel_size, layer.stride, layer.padding)
    if not all(isinstance(side, int) for side in sides) or layer.ceil_mode or layer.divisor_override:
        return None
    attributes = {
        "kernel_shape": [layer.kernel_size] * 2,
        "strides": [layer.stride] * 2,
        "pads": [layer.padding] * 4,
        "count_include_pad": int(layer.count_include_pad),
    }
    return "AveragePool", attributes, {}


def _max_pool(layer: nn.MaxPool2d) -> Operator | None:
    size, stride, padding, dilation = layer.kernel_size, layer.stride, layer.padding, layer.dilation
    if not isinstance(size, int) or not isinstance(stride, int) or layer.return_indices:
        return None
    if not isinstance(padding, int) or not isinstance(dilation, int):
        return None
    # Where a window could begin outside, torch leaves it out and other runtimes may not.
    if layer.ceil_mode and (padding or stride > size):
        return None
    attributes = {
        "kernel_shape": [size] * 2,
        "strides": [stride] * 2,
        "pads": [padding] * 4,
        "dilations": [dilation] * 2,
        "ceil_mode": int(layer.ceil_mode),
    }
    return "MaxPool", attributes, {}


def _linear(layer: nn.Linear) -> Operator:
    return "Gemm", {"transB": 1}, {"weight": layer.weight, "bias": layer.bias}


def _flatten(layer: nn.Flatten) -> Operator | None:
    return ("Flatten", {"axis": 1}, {}) if (layer.start_dim, layer.end_dim) == (1, -1) else None


def _unflatten(layer: nn.Unflatten) -> Operator | None:
    sizes = layer.unflattened_size
    known = layer.dim == 1 and len(sizes) == 3 and all(isinstance(size, int) and size > 0 for size in sizes)
    return ("Reshape", {}, {"shape": np.array([0, *sizes])}) if known else None  # 0: as many as there are


def _pool_function(node: fx.Node) -> Operator | None:
    arguments: tuple[Any, ...] = node.args[1:]
    options: dict[str, Any] = node.kwargs
    return None if "input" in options else _pool(nn.AvgPool2d(*arguments, **options))  # which takes the same


def _add(node: fx.Node) -> Operator | None:
    return ("Add", {}, {}) if len(operands(node)) == 2 else None


def _concatenate(node: fx.Node) -> Operator | None:
    dim = {"dim": node.args[1]} if len(node.args) == 2 else node.kwargs
    return ("Concat", {"axis": 1}, {}) if dim == {"dim": 1} else None


def _enlarge(node: fx.Node) -> Operator | None:
    scale = node.kwargs.get("scale_factor")
    if len(node.args) != 1 or node.kwargs.get("mode") != "nearest":
        return None
    if not isinstance(scale, int | float) or scale < 1 or scale != int(scale):
        return None
    attributes = {"nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}
    return "Resize", attributes, {"roi": None, "scales": np.array([1, 1, scale, scale], np.float32)}


MODULES: Final[dict[type[nn.Module], Callable[[Any], Operator | None]]] = {
    nn.Conv2d: _convolution,
    nn.BatchNorm2d: _norm,
    nn.AvgPool2d: _pool,
    nn.MaxPool2d: _max_pool,
    nn.Linear: _linear,
    nn.Flatten: _flatten,
    nn.Unflatten: _unflatten,
    nn.ReLU: lambda layer: ("Relu", {}, {}),
    nn.Identity: lambda layer: ("Identity", {}, {}),
}
FUNCTIONS: Final[dict[Any, Callable[[fx.Node], Operator | None]]] = {
    operator.add: _add,
    torch.cat: _concatenate,
    F.relu: lambda node: ("Relu", {}, {}),
    F.avg_pool2d: _pool_function,
    F.interpolate: _enlarge,
}
