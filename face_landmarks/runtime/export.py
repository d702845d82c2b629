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
from pathlib import Path

import torch
from torch import Tensor, nn

from face_landmarks._system.arguments import check_flag, check_path
from face_landmarks._system.extras import import_extra
from face_landmarks._system.files import write_whole
from face_landmarks.errors import ExportError, MissingDependencyError
from face_landmarks.geometry import transform_points, warp
from face_landmarks.images import read_image
from face_landmarks.layouts import get_layout
from face_landmarks.models.card import ModelCard
from face_landmarks.runtime.graph import GraphDecoder, GraphSizes, write_graph
from face_landmarks.runtime.runtimes import TorchNetwork

_log = logging.getLogger(__name__)

_TOLERANCE = 1e-3  # crop pixels, and units of score
_PORTRAIT = Path(__file__).with_name("portrait.jpg")
_BOXES = ((65.3, 54.9, 154.6, 178.6), (71.0, 49.0, 165.0, 170.0), (52.0, 38.0, 171.0, 197.0))  # of its face


def export_onnx(
    path: str | os.PathLike[str],
    network: nn.Module,
    card: ModelCard,
    heatmap_to_crop: Tensor,
    *,
    decode: bool = False,
) -> Path:
    """Write a network as ONNX, in float32.

    Before it takes its place, the file's answers on three crops of a real face are compared with those
    of torch in float32, to 0.001 crop pixels. Without ONNX Runtime a warning is logged instead.

    Args:
        path: the file, whose name ends in .onnx; it is replaced in one step.
        network: crops (B, 3, S, S) -> heatmaps (B, K, H, W), of the layers that `write_graph` knows, with
            the weights that the file is to have; left as it is.
        card: its model card; all of it goes into the file's metadata.
        heatmap_to_crop: (3, 3), the card's offset included.
        decode: also put the local soft-argmax into the graph.

    Returns:
        The path.

    Raises:
        InputError: not a path, or its name does not end in .onnx.
        MissingDependencyError: onnx is not installed.
        ExportError: the network holds another kind of layer, or the file answers differently.
        WriteError: the file cannot be written.
    """
    path = check_path("path", path, suffix=".onnx")
    decode = check_flag("decode", decode)
    network = copy.deepcopy(network).eval().to("cpu", torch.float32)
    sizes = GraphSizes.of(card.network)
    decoder = GraphDecoder(card.window, card.temperature, heatmap_to_crop) if decode else None
    facts = _describe(card, heatmap_to_crop, decode=decode)
    description = f"{card.summary}\nLicence: {card.licence}"
    onnx = import_extra("onnx", "onnx", "exports")
    try:
        data = write_graph(network, sizes, decoder, metadata=facts, description=description)
        onnx.checker.check_model(data, full_check=True)  # also that the network fits the sizes on its card
    except (ExportError, onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"{card.name}: {error}") from error
    _check(data, network, card, heatmap_to_crop, decode=decode)
    write_whole(path, data)
    return path


def _describe(card: ModelCard, heatmap_to_crop: Tensor, *, decode: bool) -> dict[str, str]:
    """All that is needed to use the file alone: words in English, numbers in JSON."""
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
        onnxruntime = import_extra("onnxruntime", "onnx", "comparisons")
    except MissingDependencyError:
        _log.warning("%s: not compared with torch, as onnxruntime is not installed", card.name)
        return
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; it warns of constants that it could have folded
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])

    def read(heatmaps: Tensor) -> tuple[Tensor, Tensor]:
        points, scores = card.decode(heatmaps)
        return transform_points(heatmap_to_crop, points), scores

    crops = _portraits(card)
    reference = TorchNetwork(network, torch.device("cpu"), torch.float32)
    differences = []
    for batch in (crops[:1], crops):
        with torch.inference_mode():
            expected_points, expected_scores = read(reference(batch))
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


def _portraits(card: ModelCard) -> Tensor:
    """Crops (3, 3, S, S) of one real face, as three boxes of it give them."""
    boxes = torch.tensor(_BOXES, dtype=torch.float64, device="cpu")
    return warp(read_image(_PORTRAIT), card.image_to_crop(boxes), card.network.crop_size)
