"""Each benchmark by its two commands, on small samples of the official files: train, stop, go on, score."""

import csv
import functools
import json

import cv2
import numpy as np
import pytest
import torch
from drawn_faces import draw_photo, mean_shape
from official_files import write_300w, write_300w_lp, write_benchmark, write_cofw

from face_landmarks import FaceAligner, cli
from face_landmarks.benchmarks.annotations import AnnotatedImage
from face_landmarks.benchmarks.evaluation import evaluate
from face_landmarks.benchmarks.protocols import BENCHMARKS, TRAINING_SETS
from face_landmarks.errors import InputError
from face_landmarks.layouts import LAYOUTS
from face_landmarks.models.hourglass import HourglassConfig
from face_landmarks.models.weights import load_weights
from face_landmarks.training import data
from face_landmarks.training.augment import mirror_landmarks
from face_landmarks.training.config import RECIPES, TrainConfig
from face_landmarks.training.data import FaceSet, TrainingData, crop_faces
from face_landmarks.training.loop import Trainer

pytest.importorskip("scipy")
pytest.importorskip("h5py")

CROP_RULE = {"crop_size": 32, "crop_scale": 0.61, "crop_shift": 0.1365}
STILL = [f"augment.{name}=0" for name in ("rotation", "scale", "shift", "flip")]
BRIGHT = [f"augment.{name}=0" for name in ("colour", "gray", "blur", "noise", "occlusion")]


@pytest.fixture(autouse=True)
def one_thread():
    """Networks as small as these are faster on one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def train(recipe, root, out, *words, settings=(), crop=32, features=16, depth=1):
    """Run the train command with a tiny network, as a user would with more --set."""
    network = {"crop_size": crop, "heatmap_size": crop // 4, "features": features, "depth": depth}
    shape = [f"network.{name}={value}" for name, value in network.items()]
    small = ["batch_size=2", "network.stacks=1", *shape, *settings]
    places = ["--recipe", recipe, "--root", root, "--out", out, "--device=cpu", "--precision=float32"]
    flags = ["--no-compile", "--quiet", *(f"--set={setting}" for setting in small)]
    return cli.main(["train", *map(str, [*places, *words]), *flags])


@pytest.fixture
def stop(monkeypatch):
    """Saves a checkpoint at every validation; a step number in the list stops the run there."""
    steps, take = [], Trainer.train_step

    def train_step(trainer):
        if trainer.step in steps:
            raise KeyboardInterrupt
        return take(trainer)

    monkeypatch.setattr(Trainer, "train_step", train_step)
    monkeypatch.setattr(Trainer, "run", functools.partialmethod(Trainer.run, checkpoint_seconds=0))
    return steps


@pytest.fixture
def decoded(monkeypatch):
    """How many photos training has decoded."""
    sources, read = [], data.read_image
    monkeypatch.setattr(data, "read_image", lambda source: sources.append(source) or read(source))
    return sources


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_is_trained_stopped_gone_on_with_and_scored(name, tmp_path, stop, decoded, capsys):
    root, run, scores = tmp_path / "data", tmp_path / "run", tmp_path / "scores"
    write_benchmark(name, root)
    faces = len(TRAINING_SETS[name].read(root))

    stop.append(2)
    words = (f"shr-fan-{name}", root, run, "--hold-out", "0")
    assert train(*words, settings=["steps=3", "validate_every=1"]) == 130
    assert capsys.readouterr().err.splitlines()[-1] == (
        "face-landmarks: stopped, 2 of 3 steps done; run it again to go on from the last checkpoint"
    )
    assert len(decoded) == 2 * faces  # all of them train and validate
    stop.clear(), decoded.clear()
    assert train(*words, settings=["steps=3", "validate_every=1"]) == 0
    assert len(decoded) == faces  # the pictures to train on were kept
    with (run / "log.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["1", "2", "3"]
    out = capsys.readouterr().out
    assert f"best validation NME ({TRAINING_SETS[name].normaliser})" in out

    model = run / "model.safetensors"
    assert cli.main(
        ["evaluate", "--benchmark", name, "--root", str(root), "--model", str(model), "--save", str(scores)]
    ) == 0  # fmt: skip
    table = capsys.readouterr().out
    assert table.startswith(f"{BENCHMARKS[name].title}: ") and "not the published protocol" in table
    for column in BENCHMARKS[name].columns:
        assert any(line.startswith(column.subset) and str(column) in line for line in table.splitlines())
        assert column.published is None or f"{column.published:.2f}" in table
    summary = json.loads((scores / "summary.json").read_text())
    assert [entry["paper"] for entry in summary["columns"]] == [c.published for c in BENCHMARKS[name].columns]
    assert summary["columns"][0]["ours"] > 0 and summary["deviations"]
    with (scores / "faces.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == summary["all_faces"]["faces"]
    assert np.mean([float(row[f"nme_{BENCHMARKS[name].columns[0].normaliser}"]) for row in rows]) == (
        pytest.approx(summary["all_faces"]["nme"])
    )
    assert (scores / "ced.png").stat().st_size > 10_000


def test_drawn_faces_are_learnt_by_heart(tmp_path):
    write_cofw(tmp_path)  # the other benchmarks: examples/lab/checks/overfit_benchmarks.py
    still = [*STILL, *BRIGHT, "source_margin=1", "siamese_weight=0", "weight_decay=0", "ema_decay=0.9"]
    schedule = ["steps=120", "validate_every=120", "learning_rate=3e-3"]
    words = ("shr-fan-cofw", tmp_path, tmp_path / "run", "--hold-out", "0")
    assert train(*words, settings=[*still, *schedule], crop=64, features=48, depth=2) == 0
    aligner = FaceAligner(tmp_path / "run" / "model.safetensors", detector=None, device="cpu")
    evaluation = evaluate(aligner, TRAINING_SETS["cofw"].read(tmp_path))
    assert evaluation.nme < 0.5  # %, through files, boxes, crops, heatmaps and back
    assert max(map(abs, evaluation.signed_error)) < 0.2


def test_the_second_split_starts_from_a_model_of_large_poses(tmp_path, capsys):
    write_300w_lp(tmp_path / "data")
    write_300w(tmp_path / "data")
    settings = ["steps=1", "validate_every=1"]
    first, second = tmp_path / "lp", tmp_path / "split2"
    assert train("shr-fan-300w-lp", tmp_path / "data", first, "--hold-out", "2", settings=settings) == 0
    model = first / "model.safetensors"
    words = ("--init", model, "--hold-out", "3")
    assert train("shr-fan-300w-split2", tmp_path / "data", second, *words, settings=settings) == 0
    card, _ = load_weights(second / "model.safetensors")
    assert card.lean == 0.0098
    assert card.training_data == (
        "4 faces of 300-W, public, from shr-fan-300w-lp-lp, trained on 8 faces of 300W-LP"
    )
    assert load_weights(model)[0].lean == 0
    assert load_weights(model)[0].training_data == "8 faces of 300W-LP"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "--recipe", "shr-fan-68-fast", "--root", "."], "expected a recipe of a benchmark"),
        (["train", "--recipe", "shr-fan-wflw", "--root", "."], "WFLW_annotations"),
        (["train", "--recipe", "shr-fan-wflw", "--root", ".", "--val", "."], "expected no --train"),
        (["train", "--recipe", "shr-fan-wflw"], "expected --train and --val, or --root"),
        (["train", "--recipe", "shr-fan-wflw", "--set", "layout=ibug-68"], "network.landmarks: expected 68"),
        (["evaluate", "--benchmark", "300w", "--root", "."], "afw/"),
        (["evaluate", "--benchmark", "wflw", "--root", "."], "expected a model of wflw-98, as WFLW has it"),
        (["evaluate", "--benchmark", "300w"], "expected --root"),
        (["evaluate", "--benchmark", "300w", "--root", ".", "--normaliser", "box"], "no --normaliser"),
        (["evaluate", "photos", "--root", "."], "--root: expected --benchmark beside it"),
        (["evaluate", "photos", "--benchmark", "300w"], "expected a folder of photos, or --benchmark"),
        (["evaluate"], "expected a folder of photos, or --benchmark"),
    ],
)
def test_what_does_not_go_together_is_said(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main([*words, *(["--out", "run", "--quiet"] if words[0] == "train" else [])]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("save", ["file", "file/below", "/dev/null/below"])
def test_scores_that_cannot_be_saved_are_refused_before_the_work(tmp_path, monkeypatch, capsys, save):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    assert cli.main(["evaluate", "no-such-photos", "--save", save]) == 2
    out, err = capsys.readouterr()
    assert save in err and "no-such-photos" not in err and out == ""


def samples_of(layout, seeds):
    """Annotated photos that are nowhere on disk."""

    class Drawn:
        def __init__(self, seed):
            self.seed = seed

        def __str__(self):
            return f"drawn {self.seed}"

        def read(self):
            return draw_photo(self.seed, layout)[0]

    return [AnnotatedImage(Drawn(seed), draw_photo(seed, layout)[1][np.newaxis]) for seed in seeds]


def test_pictures_in_a_file_are_those_in_memory_and_stay_there(tmp_path, decoded):
    samples, store = samples_of(LAYOUTS["ibug-68"], range(3)), tmp_path / "run" / "pictures"
    in_memory = crop_faces(samples, **CROP_RULE)
    in_file = crop_faces(samples, **CROP_RULE, store=store)
    assert torch.equal(in_memory.pictures, in_file.pictures) and store.stat().st_size == 3 * 3 * 32 * 32
    assert not in_memory.mapped and in_file.mapped
    away = torch.device("meta")
    assert in_file.to(away).pictures.device.type == "cpu" and in_memory.to(away).pictures.is_meta
    decoded.clear()
    assert torch.equal(crop_faces(samples, **CROP_RULE, store=store).pictures, in_memory.pictures)
    assert decoded == []


@pytest.mark.parametrize("change", [{"crop_scale": 0.7}, {"margin": 1.5}, {"samples": 2}])
def test_pictures_of_other_faces_or_another_crop_are_made_anew(tmp_path, decoded, change):
    layout, store = LAYOUTS["ibug-68"], tmp_path / "pictures"
    crop_faces(samples_of(layout, range(3)), **CROP_RULE, store=store)
    decoded.clear()
    samples = samples_of(layout, range(change.pop("samples", 3)))
    faces = crop_faces(samples, **{**CROP_RULE, **change}, store=store)
    assert len(decoded) == len(samples)
    assert store.stat().st_size == faces.pictures.numel()


def test_pictures_that_were_not_finished_are_made_anew(tmp_path, monkeypatch, decoded):
    samples, store = samples_of(LAYOUTS["ibug-68"], range(3)), tmp_path / "pictures"
    read, broken = data.read_image, iter([False, True])
    monkeypatch.setattr(data, "read_image", lambda source: read(None if next(broken) else source))
    with pytest.raises(InputError):
        crop_faces(samples, **CROP_RULE, store=store)
    monkeypatch.setattr(data, "read_image", read)
    assert torch.equal(
        crop_faces(samples, **CROP_RULE, store=store).pictures, crop_faces(samples, **CROP_RULE).pictures
    )


def test_a_store_of_another_length_is_made_anew(tmp_path, decoded):
    samples, store = samples_of(LAYOUTS["ibug-68"], range(3)), tmp_path / "pictures"
    whole = crop_faces(samples, **CROP_RULE, store=store).pictures.clone()
    store.write_bytes(store.read_bytes()[:5000])
    decoded.clear()
    assert torch.equal(crop_faces(samples, **CROP_RULE, store=store).pictures, whole)
    assert len(decoded) == 3


def test_pictures_of_photos_that_changed_are_made_anew(tmp_path, decoded):
    layout, photo, store = LAYOUTS["ibug-68"], tmp_path / "a.png", tmp_path / "pictures"
    sample = AnnotatedImage(photo, draw_photo(0, layout)[1][np.newaxis])
    pictures = []
    for seed in (0, 1):
        cv2.imwrite(str(photo), draw_photo(seed, layout)[0])
        pictures.append(crop_faces([sample], **CROP_RULE, store=store).pictures.clone())
    assert not torch.equal(*pictures) and len(decoded) == 2


def test_a_disk_without_room_is_refused_before_it_is_full(tmp_path, monkeypatch):
    monkeypatch.setattr(data.shutil, "disk_usage", lambda place: data.shutil._ntuple_diskusage(1, 1, 0))
    with pytest.raises(InputError, match="expected 0.0 GB of free space, got 0.0"):
        crop_faces(samples_of(LAYOUTS["ibug-68"], [0]), **CROP_RULE, store=tmp_path / "pictures")


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_a_mirrored_face_is_a_face_in_every_layout(layout):
    shape = torch.from_numpy(99 * mean_shape(layout))[None]  # symmetric about x = 49.5
    torch.testing.assert_close(mirror_landmarks(shape, 100, layout, lean=0.0), shape)


@pytest.mark.parametrize("name", TRAINING_SETS)
def test_every_recipe_of_a_benchmark_fits_its_layout_and_leans_only_as_300w_does(name):
    config = RECIPES[f"shr-fan-{name}"]
    assert config.layout == TRAINING_SETS[name].layout.name
    assert config.network.landmarks == len(TRAINING_SETS[name].layout)
    assert config.lean == (0.0098 if name in ("300w", "300w-split2") else 0)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_landmark_lies_well_inside_the_crop_of_its_recipe(name, tmp_path):
    write_benchmark(name, tmp_path)
    config = RECIPES[f"shr-fan-{name}"]
    size = config.network.crop_size
    rule = {"crop_size": size, "crop_scale": config.crop_scale, "crop_shift": config.crop_shift}
    points = crop_faces(TRAINING_SETS[name].read(tmp_path), **rule).landmarks / size
    low, high = points.amin(dim=1), points.amax(dim=1)  # (M, 2)
    assert float(low.min()) > 0.05 and float(high.max()) < 0.95
    assert float((high - low)[:, 1].min()) > 0.55  # the face fills the crop


def test_faces_of_another_layout_are_not_trained_on(tmp_path):
    config = TrainConfig(
        HourglassConfig(landmarks=29, stacks=1, features=16, depth=1, crop_size=32, heatmap_size=8),
        layout="cofw-29",
    )
    faces = FaceSet(torch.zeros(2, 3, 32, 32, dtype=torch.uint8), torch.zeros(2, 68, 2), ("a", "b"))
    with pytest.raises(InputError, match="expected 29 landmarks of layout cofw-29, got 68"):
        Trainer(config, TrainingData(faces, faces), tmp_path, compile=False)
