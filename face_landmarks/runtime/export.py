"""A landmark network as one ONNX file, which describes itself and gives torch's answers.

    input     crops      (B, 3, S, S) float32, RGB / 255, for any B
    output    heatmaps   (B, K, H, W) float32
              or, with the decoder in the graph:
              landmarks  (B, K, 2) float32, x y in crop pixels
              scores     (B, K) float32

The file's metadata says how to cut the crops and how to read the output; `docs/export.md` shows it
used with ONNX Runtime and nothing else.
"""

from __future__ import annotations

import copy
import json
import logging
import os
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from face_landmarks import __version__
from face_landmarks._system.extras import import_extra
from face_landmarks._system.files import write_whole
from face_landmarks.errors import ExportError, InputError
from face_landmarks.geometry import crop_matrices, transform_points, warp
from face_landmarks.heatmap import decode_heatmaps
from face_landmarks.images import read_image
from face_landmarks.layouts import get_layout
from face_landmarks.models.card import ModelCard

_log = logging.getLogger(__name__)

_TOLERANCE = 1e-3  # crop pixels, and units of score
_OPSET = 18  # the oldest that the exporter speaks, for the sake of older runtimes
_PORTRAIT = Path(__file__).with_name("portrait.jpg")
_BOXES = ((65.3, 54.9, 154.6, 178.6), (71.0, 49.0, 165.0, 170.0), (52.0, 38.0, 171.0, 197.0))  # of its face


class _Decoded(nn.Module):
    """Network and decoder in one, in float32 throughout: runtimes for small devices have no more."""

    def __init__(self, network: nn.Module, card: ModelCard, heatmap_to_crop: Tensor) -> None:
        super().__init__()
        self.network = network
        self.card = card
        self.cell = float(heatmap_to_crop[0, 0])  # its side in crop pixels
        self.origin = nn.Buffer(heatmap_to_crop[:2, 2].float())  # centre of the first cell

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        points, scores = _decode(self.network(crops), self.card)
        return points * self.cell + self.origin, scores


class _Affine(nn.Module):
    """A batch norm at inference: (B, C, H, W) times one number per channel, plus another."""

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        zero = torch.zeros(1, norm.num_features, 1, 1, dtype=torch.float64)
        shift, slope = norm.double()(zero), norm(zero + 1) - norm(zero)
        self.shift, self.slope = nn.Buffer(shift.detach().float()), nn.Buffer(slope.detach().float())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.slope + self.shift


def _replace_norms(network: nn.Module) -> nn.Module:
    """In place: torch 2.6 fails to export a batch norm."""
    for name, part in network.named_children():
        setattr(network, name, _Affine(part) if isinstance(part, nn.BatchNorm2d) else _replace_norms(part))
    return network


def export_onnx(
    path: str | os.PathLike[str],
    network: nn.Module,
    card: ModelCard,
    heatmap_to_crop: Tensor,
    *,
    decode: bool = False,
) -> Path:
    """Write a network as ONNX, in float32.

    The answers of the file on three crops of a real face are compared with torch's, to 0.001 crop
    pixels, before it takes its place; a warning is logged if ONNX Runtime is not there to do so.

    Args:
        path: the file, whose name ends in .onnx; it is replaced in one step.
        network: crops (B, 3, S, S) -> heatmaps (B, K, H, W); left as it is.
        card: its model card; all of it goes into the file's metadata.
        heatmap_to_crop: (3, 3), the card's offset included.
        decode: also put the local soft-argmax into the graph.

    Returns:
        The path.

    Raises:
        InputError: the name does not end in .onnx.
        MissingDependencyError: onnx or onnxscript is not installed.
        ExportError: torch cannot export the network, or the file answers differently.
        WriteError: the file cannot be written.
    """
    path = Path(path)
    if path.suffix != ".onnx":
        raise InputError(f"path: expected a name that ends in .onnx, got {path.name!r}")
    network = copy.deepcopy(network).eval().to("cpu", torch.float32).to(memory_format=torch.contiguous_format)
    graph = _replace_norms(copy.deepcopy(network))
    if decode:
        graph = _Decoded(graph, card, heatmap_to_crop)
    names = ["landmarks", "scores"] if decode else ["heatmaps"]
    data = _convert(graph, card.network.crop_size, names, _describe(card, heatmap_to_crop, decode=decode))
    _check(data, network, card, heatmap_to_crop, decode=decode)
    write_whole(path, data)
    return path


def _convert(graph: nn.Module, crop_size: int, outputs: list[str], facts: dict[str, str]) -> bytes:
    """The graph as an ONNX file that carries the facts."""
    onnx = import_extra("onnx", "onnx", "exports")
    import_extra("onnxscript", "onnx", "exports")  # torch's exporter is written in it
    crops = torch.zeros(2, 3, crop_size, crop_size)  # two: an axis of one would be taken for a constant
    try:
        with warnings.catch_warnings():  # of the exporter, about itself
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                graph,
                (crops,),
                dynamo=True,
                input_names=["crops"],
                output_names=outputs,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                opset_version=_OPSET,
                verbose=False,
            )
            assert program is not None, "dynamo=True returns the program"
            model = program.model_proto
    except Exception as error:  # torch raises whatever the network makes it
        raise ExportError(f"{facts['name']}: expected what torch can export, got: {error}") from error
    for value in (*model.graph.input, *model.graph.output):  # torch 2.6 names the batch it was shown
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    for part in (*model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output):
        del part.metadata_props[:]  # the exporter's own: where in whose source each node comes from
    onnx.helper.set_model_props(model, facts)
    model.doc_string = f"{facts['summary']}\nLicence: {facts['licence']}"
    model.producer_name, model.producer_version = "face_landmarks", __version__
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _describe(card: ModelCard, heatmap_to_crop: Tensor, *, decode: bool) -> dict[str, str]:
    """What a reader must know who has only the file: words in English, numbers in JSON."""
    size, cells = card.network.crop_size, card.network.heatmap_size
    layout = get_layout(card.layout)
    heatmaps = (
        f"heatmaps (B, {len(layout)}, {cells}, {cells}); landmarks are the softmax(temperature * h)-weighted "
        "mean of the cells in a window x window neighbourhood of the largest, taken through heatmap_to_crop"
    )
    landmarks = (
        f"landmarks (B, {len(layout)}, 2), x y in crop pixels, pixel centres at integers; "
        f"scores (B, {len(layout)}), the height of each heatmap"
    )
    return {
        "name": card.name,
        "summary": card.summary,
        "licence": card.licence,
        "training_data": card.training_data,
        "layout": card.layout,
        "landmark_names": json.dumps(layout.names),
        "input": f"crops (B, 3, {size}, {size}) float32, RGB: (value in 0..255 - mean) * scale",
        "mean": json.dumps([0.0, 0.0, 0.0]),
        "scale": json.dumps([1 / 255] * 3),
        "crop": (
            "a square of side crop_scale * (width + height) of the face box, forehead to chin, centred "
            "crop_shift * height below the box's centre; what lies outside the photo is black"
        ),
        "crop_size": json.dumps(size),
        "crop_scale": json.dumps(card.crop_scale),
        "crop_shift": json.dumps(card.crop_shift),
        "output": landmarks if decode else heatmaps,
        "window": json.dumps(card.window),
        "temperature": json.dumps(card.temperature),
        "heatmap_to_crop": json.dumps(heatmap_to_crop.tolist()),
        "lean": json.dumps(card.lean),
        "card": json.dumps(card.to_dict()),
    }


def _check(
    data: bytes, network: nn.Module, card: ModelCard, heatmap_to_crop: Tensor, *, decode: bool
) -> None:
    """Compare the file's answers with those of torch, on one crop and on a batch."""
    try:
        import onnxruntime
    except ImportError:
        _log.warning("%s: not compared with torch, as onnxruntime is not installed", card.name)
        return
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; it warns of constants that it could have folded
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])

    def read(heatmaps: Tensor) -> tuple[Tensor, Tensor]:
        points, scores = _decode(heatmaps, card)
        return transform_points(heatmap_to_crop, points), scores

    crops = _portraits(card)
    differences = []
    for batch in (crops[:1], crops):
        with torch.inference_mode():
            expected_points, expected_scores = read(network(batch))
        try:
            outputs = [torch.from_numpy(output) for output in session.run(None, {"crops": batch.numpy()})]
        except Exception as error:  # onnxruntime's own kinds, e.g. for a batch of another size
            raise ExportError(f"{card.name}: expected a file for any batch, got: {error}") from error
        points, scores = outputs if decode else read(outputs[0])
        differences += [(points - expected_points).norm(dim=-1).max(), (scores - expected_scores).abs().max()]
    worst = float(torch.stack(differences).max())  # NaN if any is
    if not worst <= _TOLERANCE:
        raise ExportError(
            f"{card.name}: expected a file that agrees with torch to {_TOLERANCE} crop pixels, "
            f"got {worst:.2g}; nothing was written"
        )
    _log.info("%s: within %.1g crop pixels of torch on %d crops", card.name, worst, len(crops))


def _decode(heatmaps: Tensor, card: ModelCard) -> tuple[Tensor, Tensor]:
    """Points (B, K, 2) in cells and scores (B, K)."""
    return decode_heatmaps(heatmaps, window=card.window, temperature=card.temperature)


def _portraits(card: ModelCard) -> Tensor:
    """Crops (3, 3, S, S) of one real face, as three boxes of it give them."""
    size = card.network.crop_size
    boxes = torch.tensor(_BOXES, dtype=torch.float64)
    image_to_crop = crop_matrices(boxes, size, card.crop_scale, card.crop_shift)
    return warp(read_image(_PORTRAIT), image_to_crop, size)
