"""ONNX files: torch's answers for any batch, facts enough to use them alone, and clear refusals."""

import copy
import json
import logging
import pickle
import re
import subprocess
import sys
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from packaging.version import Version
from torch import nn

from face_landmarks import FaceAligner, InputError, LandmarkModel, MissingDependencyError
from face_landmarks.benchmarks.annotations import read_folder
from face_landmarks.cli import main
from face_landmarks.errors import ExportError, WriteError
from face_landmarks.geometry import boxes_from_landmarks, crop_matrices, warp
from face_landmarks.images import read_image
from face_landmarks.layouts import IBUG_68
from face_landmarks.models.card import ModelCard
from face_landmarks.models.hourglass import HourglassConfig, StackedHourglass, fold_batch_norms
from face_landmarks.runtime import export

onnx = pytest.importorskip("onnx", reason="needs onnx: pip install 'shr-fan[onnx]'")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs onnxruntime: pip install 'shr-fan[onnx]'")

ROOT = Path(__file__).parents[2]
ASTRONAUT = ROOT / "examples" / "data" / "astronaut.jpg"
PAGE = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def aligner():
    return FaceAligner(device="cpu", detector=None)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The embedded model without and with its decoder, by `decode`, as the page has them made."""
    folder = tmp_path_factory.mktemp("files")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        (command,) = re.findall("^face-landmarks (.*)$", PAGE, re.MULTILINE)
        assert main(command.split()) == 0
        exec(compile(BLOCKS[0], "export.md", "exec"), {})
    return {False: folder / "heatmaps.onnx", True: folder / "landmarks.onnx"}


def shallow():
    """Crops (B, 3, 32, 32) -> heatmaps (B, 68, 8, 8), by a norm that no convolution can take in."""
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(3)
    for values in (norm.weight, norm.running_mean, norm.running_var):
        nn.init.uniform_(values, 0.5, 1.5)
    return nn.Sequential(norm, nn.ReLU(), nn.Conv2d(3, 68, 4, stride=4))


def small(network=None, card=None, **options):
    """An aligner with an offset and a shallow network, which is exported in no time."""
    standard = ModelCard(
        name="small",
        summary="a network for tests",
        licence="none",
        layout="ibug-68",
        network=HourglassConfig(depth=3, crop_size=32, heatmap_size=8),
        format="native",
        crop_scale=0.61,
        crop_shift=0.1365,
        window=5,
        temperature=10.0,
        offset=(0.25, -0.5),
        lean=0.0,
        training_data="none",
        command="none",
        scores={},
    )
    model = LandmarkModel(replace(standard, **(card or {})), network or shallow())
    return FaceAligner(model, detector=None, device="cpu", **options)


def run(path, crops):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return [torch.from_numpy(output) for output in session.run(None, {"crops": crops.numpy()})]


def crops_of(aligner, photo, boxes):
    matrices = crop_matrices(
        torch.tensor(boxes), aligner.crop_size, aligner.card.crop_scale, aligner.card.crop_shift
    )
    return warp(read_image(photo), matrices, aligner.crop_size)


def assert_the_files_agree(aligner, files, crops):
    points, scores = aligner._locator.locate_in_crops(crops)
    landmarks, landmark_scores = run(files[True], crops)
    assert float((landmarks - points).norm(dim=-1).max()) < 1e-3
    assert float((landmark_scores - scores).abs().max()) < 1e-4
    (heatmaps,) = run(files[False], crops)
    assert float((aligner._locator.decode(heatmaps)[0] - points).norm(dim=-1).max()) < 1e-3


def test_the_files_take_a_batch_of_no_crops(aligner, files):
    if Version(version("onnxruntime")) < Version("1.24"):
        pytest.skip("ONNX Runtime has no maximum over the cells of no heatmaps before 1.24")
    none = torch.empty(0, 3, aligner.crop_size, aligner.crop_size)
    landmarks, scores = run(files[True], none)
    assert landmarks.shape == (0, 68, 2) and scores.shape == (0, 68)
    assert run(files[False], none)[0].shape[:2] == (0, 68)


@pytest.mark.parametrize("faces", [1, 2, 5])
def test_the_files_agree_with_torch_for_any_number_of_crops(aligner, files, faces):
    boxes = np.array([[178, 59, 267, 175]], np.float32) + 7 * np.arange(faces, dtype=np.float32)[:, None]
    assert_the_files_agree(aligner, files, crops_of(aligner, ASTRONAUT, boxes))


def test_the_files_agree_with_torch_on_the_validation_faces(aligner, files, shared_data):
    crops = [
        crops_of(aligner, sample.image, boxes_from_landmarks(sample.landmarks))
        for sample in list(read_folder(shared_data / "300w" / "crops" / "val"))[::5]
    ]
    assert len(crops) > 30
    assert_the_files_agree(aligner, files, torch.cat(crops))


@pytest.mark.parametrize("decode", [False, True])
def test_the_graph_is_float32_with_a_free_batch_and_says_nothing_of_this_machine(files, aligner, decode):
    model = onnx.load(files[decode])
    size, cells = aligner.crop_size, aligner.card.network.heatmap_size
    shapes = {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    assert shapes.pop("crops") == ["batch", 3, size, size]
    assert shapes == (
        {"landmarks": ["batch", 68, 2], "scores": ["batch", 68]}
        if decode
        else {"heatmaps": ["batch", 68, cells, cells]}
    )
    assert [opset.version for opset in model.opset_import if not opset.domain] == [18]
    types = {tensor.data_type for tensor in model.graph.initializer}
    assert onnx.TensorProto.DOUBLE not in types and onnx.TensorProto.FLOAT in types
    data = files[decode].read_bytes().replace(aligner.card.command.encode(), b"")  # which names scripts
    assert str(ROOT).encode() not in data and b".py" not in data


def test_the_metadata_tells_what_a_user_must_know(files, aligner):
    for decode, path in files.items():
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        facts = session.get_modelmeta().custom_metadata_map
        assert ModelCard.from_dict(json.loads(facts["card"])) == aligner.card
        for name in ("name", "summary", "licence", "layout", "training_data"):
            assert facts[name] == getattr(aligner.card, name)
        for name in ("crop_scale", "crop_shift", "window", "temperature", "lean"):
            assert json.loads(facts[name]) == getattr(aligner.card, name)
        assert json.loads(facts["crop_size"]) == aligner.crop_size
        assert json.loads(facts["landmark_names"]) == list(IBUG_68.names)
        assert json.loads(facts["heatmap_to_crop"]) == aligner.heatmap_to_crop.tolist()
        assert json.loads(facts["mean"]) == [0, 0, 0] and json.loads(facts["scale"]) == [1 / 255] * 3
        assert "RGB" in facts["input"] and "black" in facts["crop"]
        assert facts["output"].startswith("landmarks" if decode else "heatmaps")
        assert "research only" in onnx.load(path).doc_string


def test_the_offset_of_a_card_is_in_the_graph_and_in_the_matrix(tmp_path):
    aligner = small()
    files = {decode: aligner.export(tmp_path / f"{decode}.onnx", decode=decode) for decode in (False, True)}
    torch.manual_seed(1)
    assert_the_files_agree(aligner, files, torch.rand(2, 3, 32, 32))
    facts = {fact.key: fact.value for fact in onnx.load(files[False]).metadata_props}
    assert json.loads(facts["heatmap_to_crop"]) == [[4, 0, 1.25], [0, 4, 2], [0, 0, 1]]


@pytest.mark.parametrize("decode", [False, True])
@pytest.mark.parametrize(
    "options", [{}, {"dtype": torch.bfloat16}, {"dtype": torch.float16}, {"backend": "onnxruntime"}], ids=str
)
def test_any_aligner_of_a_model_writes_the_same_bytes_and_stays_as_it_is(tmp_path, options, decode):
    """Those of the float32 weights, which 16 bits do not hold."""
    expected = small().export(tmp_path / "expected.onnx", decode=decode).read_bytes()
    aligner = small(**options)
    first, second = (aligner.export(tmp_path / f"{n}.onnx", decode=decode).read_bytes() for n in (1, 2))
    assert first == second == expected
    if "dtype" in options:
        assert {p.dtype for p in aligner.network.parameters()} == {options["dtype"]}
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["1.onnx", "2.onnx", "expected.onnx"]


def test_a_pickled_aligner_in_half_precision_still_exports_float32(tmp_path):
    aligner = pickle.loads(pickle.dumps(small(dtype=torch.bfloat16)))
    file = aligner.export(tmp_path / "half.onnx").read_bytes()
    assert file == small().export(tmp_path / "whole.onnx").read_bytes()


def test_the_file_holds_the_weights_of_the_model_and_is_compared_with_them(tmp_path, monkeypatch):
    """Not with the rounded ones of the aligner, which would agree with a rounded file."""
    network = shallow()
    aligner = small(network, dtype=torch.bfloat16)
    constants = onnx.load(aligner.export(tmp_path / "a.onnx")).graph.initializer
    weight = next(constant for constant in constants if constant.name.endswith("2.weight"))
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(weight), network[2].weight.detach())

    write = export.write_graph
    monkeypatch.setattr(
        export,
        "write_graph",
        lambda network, *rest, **facts: write(copy.deepcopy(network).bfloat16(), *rest, **facts),
    )
    with pytest.raises(ExportError, match="small: expected a file that agrees with torch to 0.001 crop pix"):
        aligner.export(tmp_path / "b.onnx", decode=True)


def test_an_embedded_model_is_exported_within_ten_seconds(tmp_path):
    aligner = FaceAligner("shr-fan-68", device="cpu", detector=None)
    start = time.process_time()
    aligner.export(tmp_path / "landmarks.onnx", decode=True)
    assert time.process_time() - start < 10


def test_a_network_of_the_form_of_fan_is_exported(tmp_path):
    """Four stacks, norms before their convolutions, and the card's crop."""
    torch.manual_seed(0)
    config = HourglassConfig(landmarks=68, stacks=4, features=32, depth=3, crop_size=32, heatmap_size=8)
    network = StackedHourglass(config)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.uniform_(0.5, 2)
    aligner = small(fold_batch_norms(network), card={"format": "fan", "network": config, "crop_shift": -0.12})
    files = {decode: aligner.export(tmp_path / f"{decode}.onnx", decode=decode) for decode in (False, True)}
    kinds = {node.op_type for node in onnx.load(files[True]).graph.node}
    assert "BatchNormalization" in kinds
    assert_the_files_agree(aligner, files, torch.rand(3, 3, 32, 32))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_an_export_is_the_same_under_autocast_and_another_default_type(tmp_path, dtype):
    aligner = small()
    expected = aligner.export(tmp_path / "a.onnx", decode=True).read_bytes()
    torch.set_default_dtype(dtype)
    try:
        with torch.autocast("cpu", torch.bfloat16):
            assert aligner.export(tmp_path / "b.onnx", decode=True).read_bytes() == expected
    finally:
        torch.set_default_dtype(torch.float32)


def test_a_file_that_differs_from_torch_is_not_written(tmp_path, monkeypatch):
    transform = export.transform_points
    monkeypatch.setattr(export, "transform_points", lambda matrix, points: transform(matrix, points) + 0.002)
    with pytest.raises(
        ExportError, match=r"small: expected .* to 0.001 crop pixels, got 0.0028; nothing was"
    ):
        small().export(tmp_path / "a.onnx", decode=True)
    assert list(tmp_path.iterdir()) == []


def test_without_onnxruntime_the_file_is_written_with_a_warning(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with caplog.at_level(logging.WARNING, "face_landmarks"):
        path = small().export(tmp_path / "a.onnx")
    assert caplog.messages == ["small: not compared with torch, as onnxruntime is not installed"]
    onnx.checker.check_model(path)


def test_a_missing_package_is_named_with_the_extra_that_brings_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "shr-fan\[onnx\]"'):
        small().export(tmp_path / "a.onnx")


class Moody(nn.Module):
    """What it computes depends on what it sees, so it is no graph."""

    def forward(self, crops):
        heatmaps = crops[:, :1, ::4, ::4].expand(-1, 68, -1, -1)
        return heatmaps if crops.sum() > 0 else -heatmaps


def test_what_cannot_be_exported_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"path: expected a name that ends in \.onnx, got 'a\.pt'"):
        small().export(tmp_path / "a.pt")
    for name in ("flip", "refine"):
        with pytest.raises(InputError, match=f"{name}: expected False, as an exported network runs once"):
            small(**{name: True}).export(tmp_path / "a.onnx")
    with pytest.raises(WriteError, match="expected a place to write to, got No such file"):
        small().export(tmp_path / "nowhere" / "a.onnx")
    with pytest.raises(ExportError, match="small: expected a network that is a fixed graph of convolutions"):
        small(Moody()).export(tmp_path / "a.onnx")
    with pytest.raises(ExportError, match=r"small: expected a network of .*, got Tanh\(\)"):
        small(nn.Sequential(nn.Conv2d(3, 68, 4, stride=4), nn.Tanh())).export(tmp_path / "a.onnx")
    with pytest.raises(ExportError, match=r"small: .*68"):  # landmarks, on its card
        small(nn.Conv2d(3, 67, 4, stride=4)).export(tmp_path / "a.onnx")
    assert list(tmp_path.iterdir()) == []


def test_the_command_names_the_file_and_an_unknown_model(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("face_landmarks.cli.commands.export.FaceAligner", lambda model, **_: small())
    path = tmp_path / "out.onnx"
    assert main(["export", "mine.safetensors", str(path)]) == 0
    assert capsys.readouterr().out == f"{path}\n" and path.exists()
    monkeypatch.undo()
    assert main(["export", "2dfan5", str(path)]) == 2
    assert "did you mean '2dfan4'" in capsys.readouterr().err


def test_the_page_shows_how_to_use_a_file_alone(tmp_path, monkeypatch, aligner, files):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photo.jpg").write_bytes(ASTRONAUT.read_bytes())
    for file in files.values():
        (tmp_path / file.name).symlink_to(file)
    _, use_landmarks, use_heatmaps = BLOCKS
    alone = "\nimport sys\nassert not {'torch', 'face_landmarks', 'cv2'} & set(sys.modules)\n"
    done = subprocess.run(
        [sys.executable, "-c", use_landmarks + alone + "np.save('points.npy', points)"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "right_eye_outer" in done.stdout
    found = np.load("points.npy")
    expected = aligner.get_landmarks(ASTRONAUT, [[178, 59, 267, 175]])[0]
    inter_ocular = np.linalg.norm(expected[45] - expected[36])
    assert np.linalg.norm(found - expected, axis=1).mean() < 0.005 * inter_ocular

    names = {}
    exec(compile(use_heatmaps, "export.md", "exec"), names)
    assert names["landmarks"].shape == (68, 2)
    crops = crops_of(aligner, ASTRONAUT, [[178.0, 59.0, 267.0, 175.0]])
    points, scores = aligner._locator.locate_in_crops(crops)
    read = [names["decode"](heatmap) for heatmap in run("heatmaps.onnx", crops)[0][0].numpy()]
    np.testing.assert_allclose([point for point, _ in read], points[0], atol=1e-3)
    np.testing.assert_allclose([score for _, score in read], scores[0], atol=1e-3)
