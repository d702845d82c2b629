"""The runtimes of networks: torch, or, on the CPU, ONNX Runtime or OpenVINO, which are faster.

Each is a callable from images to what the network makes of them: of the landmark network from crops to
heatmaps; MTCNN's networks are run by the same. The other runtimes get the network as an ONNX graph,
made in memory within a tenth of a second; torch keeps cropping and decoding. docs/speed.md says what each
one gains.
"""

from __future__ import annotations

import copy
import logging
import os
import re
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from face_landmarks._system.arguments import check_choice
from face_landmarks._system.extras import import_extra
from face_landmarks._system.forking import ForkableLock, keep_in_children
from face_landmarks._system.torch_state import own_types
from face_landmarks.errors import ExportError, InputError
from face_landmarks.runtime.graph import GraphSizes, write_graph

_log = logging.getLogger(__name__)

Backend = Literal["auto", "torch", "onnxruntime", "openvino"]
Runtime = Literal["onnxruntime", "openvino"]
Run: TypeAlias = Callable[[NDArray[np.float32]], NDArray[np.float32]]

BACKENDS: Final[tuple[Backend, ...]] = ("auto", "torch", "onnxruntime", "openvino")
# Not "auto", so that landmarks do not depend on what else is installed.
DEFAULT_BACKEND: Final[Backend] = "torch"

_EXTRAS: Final[dict[Runtime, str]] = {"onnxruntime": "onnx", "openvino": "openvino"}
_FASTEST_FIRST: Final[tuple[Runtime, ...]] = ("openvino", "onnxruntime")  # see docs/speed.md
_LOWEST: Final = {"onnx": (1, 17), "onnxruntime": (1, 17), "openvino": (2024, 4)}  # as in the extras
_SPINS_FOR_A_TIME: Final = (1, 26)  # the first ONNX Runtime whose threads can be told how long
_PRECISIONS: Final = {torch.float32: "f32", torch.bfloat16: "bf16", torch.float16: "f16"}

_compiling = ForkableLock()


def default_device(device: str | torch.device | None, backend: Backend) -> str | torch.device | None:
    """The device that was given; the CPU if none was, for a backend that knows no other."""
    return "cpu" if device is None and backend not in ("auto", "torch") else device


def check_backend(backend: Backend, device: torch.device, dtype: torch.dtype) -> None:
    """Raise unless the backend supports this device and type.

    Raises:
        InputError: an unknown backend, another device than the CPU, or a type it cannot compute in.
    """
    check_choice("backend", backend, BACKENDS)
    if backend == "auto" or backend == "torch":
        return
    if device.type != "cpu":
        raise InputError(f"device: expected 'cpu' for backend {backend!r}, got '{device}'")
    allowed = _types(backend)
    if dtype not in allowed:
        expected = " or ".join(map(str, allowed))
        raise InputError(f"dtype: expected {expected} for backend {backend!r}, got {dtype}")


def make_runnable(
    network: nn.Module,
    backend: Backend,
    device: torch.device,
    dtype: torch.dtype,
    sizes: GraphSizes | None = None,
    candidates: Sequence[Runtime] = _FASTEST_FIRST,
) -> Network:
    """Prepare a network to be run by a backend.

    "auto" is the first of the candidates that is installed in a version that the extras allow, supports
    the device and type, and can compile the network; else torch.

    Args:
        network: in evaluation mode. Torch runs it itself, if it computes in float32 on the CPU.
        backend: one that `check_backend` accepts for this device and type.
        device: where to run it.
        dtype: what to compute in.
        sizes: of crops and heatmaps, if they are known.
        candidates: for "auto".

    Raises:
        MissingDependencyError: the backend is not installed; never for "auto" and "torch".
        ExportError: it cannot run this network; never for "auto" and "torch".
    """
    if backend == "auto":
        for candidate in candidates:
            if device.type == "cpu" and dtype in _types(candidate) and _is_installed(candidate):
                try:
                    return RuntimeNetwork(network, candidate, dtype, sizes)
                except Exception as error:  # also whatever a runtime raises on a processor it does not know
                    _log.warning("backend 'auto': not %s: %s", candidate, error)
    elif backend != "torch":
        return RuntimeNetwork(network, backend, dtype, sizes)
    return TorchNetwork(network, device, dtype)


def _types(backend: Runtime) -> tuple[torch.dtype, ...]:
    return tuple(_PRECISIONS) if backend == "openvino" else (torch.float32,)


def _is_installed(backend: Runtime) -> bool:
    """Whether a runtime and onnx can be imported, in versions that the extras allow."""
    for module in ("onnx", backend):
        try:
            version = import_extra(module, _EXTRAS[backend], "other runtimes").__version__
        except Exception:  # a damaged installation raises more than ImportError
            return False
        if _numbers(version) < _LOWEST[module]:
            return False
    return True


def _numbers(version: str) -> tuple[int, ...]:
    """The first two numbers of a version; none, which is less than any, where it does not begin with them."""
    found = re.match(r"(\d+)\.(\d+)", version)
    return (int(found[1]), int(found[2])) if found else ()


class TorchNetwork(nn.Module):
    """A network run by torch: called with crops, it returns heatmaps.

    Args:
        network: crops (B, 3, S, S) -> heatmaps (B, K, H, W). It is copied, unless
            it computes in float32 on the CPU: then it is used itself, in another memory format.
        device: where it runs.
        dtype: what it computes in.
    """

    backend: Final[Backend] = "torch"

    def __init__(self, network: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__()
        if device.type != "cpu" or dtype != torch.float32:
            network = copy.deepcopy(network)
        self.network = network.to(device, dtype).to(memory_format=torch.channels_last)
        self.device = device
        self.dtype = dtype

    def forward(self, crops: Tensor) -> Tensor:
        """Heatmaps (B, K, H, W) of crops (B, 3, S, S) of any type and device, in the network's own."""
        crops = crops.to(self.device, self.dtype).contiguous(memory_format=torch.channels_last)
        with own_types(self.device):
            heatmaps: Tensor = self.network(crops)
        return heatmaps


class RuntimeNetwork:
    """A network run by another runtime than torch: called with crops, it returns heatmaps.

    It may be shared by threads and can be pickled; unpickled, or in a forked process, it is compiled
    anew, which takes a moment.

    Args:
        network: crops (B, 3, S, S) -> heatmaps (B, K, H, W), for any B; of the layers that `write_graph`
            knows.
        backend: "onnxruntime" or "openvino".
        dtype: what the runtime computes in; heatmaps are float32 in any case. ONNX Runtime knows
            float32 only.
        sizes: of crops and heatmaps; if not given, crops may have any size.
        threads: that it computes on; by default as many as torch has when it is compiled.

    Raises:
        MissingDependencyError: the runtime, or the package onnx, is not installed.
        ExportError: the network holds another kind of layer.
    """

    def __init__(
        self,
        network: nn.Module,
        backend: Runtime,
        dtype: torch.dtype = torch.float32,
        sizes: GraphSizes | None = None,
        *,
        threads: int | None = None,
    ) -> None:
        self.backend: Runtime = backend
        self.dtype = dtype
        self.threads = threads
        self._fixed = sizes is not None
        try:
            self._graph = write_graph(network, sizes)
        except ExportError as error:
            raise ExportError(f"backend {backend!r}: {error}") from error
        self._compile()

    def __call__(self, crops: Tensor) -> Tensor:
        """Heatmaps (B, K, H, W), float32 on the CPU, of crops (B, 3, S, S) of any type and device."""
        process, run = self._compiled
        if process != os.getpid():
            with _compiling:
                process, run = self._compiled
                if process != os.getpid():  # no other thread has been here
                    run = self._compile()
        crops = crops.detach().cpu()
        if crops.dtype == torch.bfloat16:  # NumPy has none
            crops = crops.float()
        # Bytes become numbers here, as torch's threads would fight with those of the runtime.
        array = np.ascontiguousarray(crops.numpy()).astype(np.float32, copy=False)
        return torch.from_numpy(run(array))

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("backend", "dtype", "threads", "_fixed", "_graph")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._compile()

    def _compile(self) -> Run:
        threads = self.threads or torch.get_num_threads()
        if self.backend == "openvino":
            run = _compile_openvino(self._graph, self.dtype, threads)
        else:
            run = _compile_onnxruntime(self._graph, threads, fixed=self._fixed)
        self._compiled = os.getpid(), run
        return run


Network: TypeAlias = TorchNetwork | RuntimeNetwork


def _compile_onnxruntime(graph: bytes, threads: int, *, fixed: bool) -> Run:
    """The network in ONNX Runtime, for images of a fixed size or of any."""
    onnxruntime = import_extra("onnxruntime", "onnx", "other runtimes")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors
    options.enable_mem_pattern = fixed  # else a plan of the memory is kept for each size that was seen
    # Between layers its threads must spin, as to wake them takes longer than a layer; but if they spin on for
    # long after a run, they keep the cores from torch, and from the threads of the next network.
    if _numbers(onnxruntime.__version__) >= _SPINS_FOR_A_TIME:
        options.add_session_config_entry("session.intra_op.spin_duration_us", "300")
    else:
        options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    keep_in_children(session)
    name = session.get_inputs()[0].name

    def run(crops: NDArray[np.float32]) -> NDArray[np.float32]:
        heatmaps: NDArray[np.float32] = session.run(None, {name: crops})[0]
        return heatmaps

    return run


def _compile_openvino(graph: bytes, dtype: torch.dtype, threads: int) -> Run:
    openvino = import_extra("openvino", "openvino", "other runtimes")
    core = openvino.Core()
    options = {
        "INFERENCE_PRECISION_HINT": _PRECISIONS[dtype],
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
    }
    model = core.compile_model(core.read_model(graph), "CPU", options)
    keep_in_children(model)
    mine = threading.local()  # a request is for one thread at a time

    def run(crops: NDArray[np.float32]) -> NDArray[np.float32]:
        if not hasattr(mine, "request"):
            mine.request = model.create_infer_request()
        heatmaps: NDArray[np.float32] = mine.request.infer([crops], share_inputs=True)[0]
        return heatmaps

    return run
