"""The folder of a run: what may continue, what is refused, and what stops a run."""

import csv
import dataclasses
import math
import re
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from tiny_training import TINY, bare_set, face_set, trainer, training_data
from torch_states import STATES

from face_landmarks.cli import main
from face_landmarks.errors import ExportError, InputError, TrainingError, WeightsFormatError, WriteError
from face_landmarks.models.hourglass import StackedHourglass
from face_landmarks.models.weights import LandmarkModel, load_model
from face_landmarks.training import export, loop
from face_landmarks.training.data import TrainingData
from face_landmarks.training.export import calibrate, export_model
from face_landmarks.training.loop import Trainer
from face_landmarks.training.runs import LOG_FIELDS, fingerprint, load_best, load_config, open_log

EXPORT = {"name": "tiny", "summary": "", "training_data": "", "command": ""}


def other_weights():
    torch.manual_seed(99)
    return StackedHourglass(TINY.network).state_dict()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda: {"labelled": face_set(5, margin=1.5, seed=3)}, "training faces"),
        (lambda: {"validation": face_set(3, seed=2)}, "validation faces"),
        (lambda: {"initial": other_weights()}, "initial weights"),
        (lambda: {"precision": torch.bfloat16}, "precision"),
        (lambda: {"normaliser": "box"}, "normaliser"),
    ],
)
def test_a_run_continues_only_with_the_data_and_weights_it_began_with(tmp_path, change, message):
    trainer(tmp_path).run(progress=False)
    before = (tmp_path / "checkpoint.pt").read_bytes(), (tmp_path / "best.pt").read_bytes()
    other = trainer(tmp_path, **change())
    with pytest.raises(InputError, match=f"expected a checkpoint of the same {message}, got one of others"):
        other.run(progress=False)
    assert before == ((tmp_path / "checkpoint.pt").read_bytes(), (tmp_path / "best.pt").read_bytes())
    again = trainer(tmp_path)
    again.run(progress=False)
    assert again.step == TINY.steps


@pytest.mark.parametrize("name", ["large_pose", "unlabelled"])
def test_a_further_set_of_faces_is_part_of_the_fingerprint(tmp_path, name):
    config = dataclasses.replace(TINY, batch_size=8, large_pose_share=0.25, unlabelled_share=0.25)
    sets = {"large_pose": face_set(2, margin=1.5, seed=4), "unlabelled": bare_set(2)}
    trainer(tmp_path, config, **sets).run(progress=False)
    other = trainer(tmp_path, config, **{k: v for k, v in sets.items() if k != name})
    with pytest.raises(InputError, match="checkpoint of the same (secondary|unlabelled) faces, got"):
        other.run(progress=False)


def test_one_pixel_one_coordinate_and_one_name_change_the_fingerprint():
    data = training_data()
    faces = data.labelled
    pixel, point = faces.pictures.clone(), faces.landmarks.clone()
    pixel[2, 1, 3, 4] += 1
    point[2, 5, 1] += 0.01
    changes = [{"pictures": pixel}, {"landmarks": point}, {"names": ("a", *faces.names[1:])}]
    same = fingerprint(data, None, None, torch.float32)
    assert same == fingerprint(training_data(), None, None, torch.float32)
    for change in changes:
        changed = dataclasses.replace(data, labelled=dataclasses.replace(faces, **change))
        found = fingerprint(changed, None, None, torch.float32)
        assert {name for name in same if same[name] != found[name]} == {"training faces"}


def test_a_checkpoint_from_before_fingerprints_continues_with_a_warning(tmp_path, caplog):
    trainer(tmp_path).run(progress=False)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    del state["fingerprint"]
    torch.save(state, tmp_path / "checkpoint.pt")
    resumed = trainer(tmp_path, labelled=face_set(4, margin=1.5, seed=3))
    resumed.resume()
    assert resumed.step == TINY.steps and "its data and initial weights are not compared" in caplog.text


@pytest.mark.parametrize("damage", [b"", b"nonsense", None])
def test_a_damaged_checkpoint_is_refused_by_name(tmp_path, damage):
    trainer(tmp_path).run(progress=False)
    for name in ("checkpoint.pt", "best.pt"):
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) // 2] if damage is None else damage)
    with pytest.raises(
        WeightsFormatError, match=r"checkpoint\.pt: expected a checkpoint of a training run, got"
    ):
        trainer(tmp_path).run(progress=False)
    for read in (load_best, load_config):
        with pytest.raises(WeightsFormatError, match=r"best\.pt: expected a checkpoint"):
            read(tmp_path)


def test_another_file_is_no_checkpoint(tmp_path):
    torch.save({"weights": torch.ones(2)}, tmp_path / "best.pt")
    with pytest.raises(
        WeightsFormatError, match=r"best\.pt: expected a checkpoint of a training run, got another"
    ):
        load_best(tmp_path)
    with pytest.raises(InputError, match=r"expected a training run with a best\.pt, got none"):
        load_best(tmp_path / "none")


def test_weights_alone_are_nothing_to_continue_from(tmp_path):
    trainer(tmp_path).run(progress=False)
    (tmp_path / "checkpoint.pt").write_bytes((tmp_path / "best.pt").read_bytes())
    with pytest.raises(WeightsFormatError, match="expected a checkpoint to continue from, got weights alone"):
        trainer(tmp_path).run(progress=False)


def test_a_damaged_log_loses_the_damaged_rows_alone(tmp_path):
    trainer(tmp_path).run(progress=False)
    with (tmp_path / "log.csv").open("ab") as file:
        file.write(b"\xff\xfe,rubbish\n")
    trainer(tmp_path).run(progress=False)
    with (tmp_path / "log.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["3", "6"]


def test_the_log_of_a_continued_run_has_no_row_later_than_its_checkpoint(tmp_path):
    row = dict.fromkeys(LOG_FIELDS, 0.5)
    with open_log(tmp_path, 0) as write:
        for step in (2, 4, 6):
            write({**row, "step": step})
    with open_log(tmp_path, 4) as write:
        write({**row, "step": 5})
    with (tmp_path / "log.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["2", "4", "5"]
    with open_log(tmp_path, 0):
        pass
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 1  # a run from the start


@pytest.mark.parametrize("state", STATES)
def test_training_and_export_in_a_foreign_state_of_torch_are_in_float32(tmp_path, state):
    config = dataclasses.replace(TINY, batch_size=8, near_weight=1.0, near_every=2, validate_every=6)
    data = training_data(config)
    with STATES[state]():
        run = Trainer(config, data, tmp_path, precision=torch.float32, compile=False)
        assert run.run(progress=False) < math.inf
        export_model(tmp_path, tmp_path / "tiny.safetensors", **EXPORT)
    for value in load_best(tmp_path)["average"].values():
        assert value.dtype in (torch.float32, torch.int64) and value.device.type == "cpu"
    crops = data.validation.pictures[:1] / 255
    assert load_model(tmp_path / "tiny.safetensors").network(crops).isfinite().all()


def test_a_run_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "run").touch()
    with pytest.raises(WriteError, match="run"):
        trainer(tmp_path / "run").run(progress=False)


def test_a_run_that_diverges_stops_and_keeps_its_files(tmp_path):
    run = trainer(tmp_path, dataclasses.replace(TINY, steps=9))
    step = run.train_step

    def train_step():
        if run.step == 4:
            with torch.no_grad():
                run.network.conv.weight.fill_(math.nan)
        return step()

    run.train_step = train_step
    with pytest.raises(TrainingError, match=r"step 6: expected finite losses, got .*loss nan"):
        run.run(progress=False, checkpoint_seconds=0)
    for name in ("best.pt", "checkpoint.pt"):
        state = torch.load(tmp_path / name, weights_only=True)
        assert state["step"] == 3 and all(value.isfinite().all() for value in state["average"].values())
    assert math.isfinite(run.best)


def test_predictions_that_are_not_finite_are_never_the_best(tmp_path):
    run = trainer(tmp_path)
    with torch.no_grad():
        run.average.conv.weight.fill_(math.nan)
    with pytest.raises(TrainingError, match="expected finite predictions"):
        run.run(progress=False)
    assert not (tmp_path / "best.pt").exists() and run.best == math.inf


def test_initial_weights_of_another_network_are_refused(tmp_path):
    state = other_weights()
    del state["conv.weight"]
    with pytest.raises(InputError, match=r"initial: expected weights of HourglassConfig.*conv\.weight"):
        trainer(tmp_path, initial=state)


def test_initial_weights_may_lack_the_blocks_of_a_waist(tmp_path):
    state = other_weights()
    wide = dataclasses.replace(TINY, network=dataclasses.replace(TINY.network, waist=1))
    run, plain = trainer(tmp_path / "wide", wide, initial=state), trainer(tmp_path / "plain", initial=state)
    assert run.validate() == plain.validate()
    run.run(progress=False)
    assert export_model(tmp_path / "wide", tmp_path / "w.safetensors", **EXPORT).network.waist == 1
    crops = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        run.average.load_state_dict(load_best(tmp_path / "wide")["average"])
        exported = load_model(tmp_path / "w.safetensors").network(crops)
        torch.testing.assert_close(exported, run.average(crops), atol=5e-3, rtol=0)
    with pytest.raises(InputError, match="initial: expected weights of"):
        trainer(tmp_path / "narrow", initial=run.average.state_dict())


def test_every_set_of_faces_has_a_part_in_the_loss(tmp_path):
    with pytest.raises(InputError, match="unlabelled: expected a term that needs no landmarks"):
        trainer(
            tmp_path,
            dataclasses.replace(TINY, siamese_weight=0, unlabelled_share=0.5),
            unlabelled=bare_set(2),
        )
    with pytest.raises(
        InputError, match="unlabelled_share: expected at least one of the 2 faces of a batch, got 0.1"
    ):
        trainer(tmp_path, dataclasses.replace(TINY, unlabelled_share=0.1), unlabelled=bare_set(2))
    with pytest.raises(InputError, match="large_pose_share: expected at least one"):
        trainer(tmp_path, large_pose=face_set(2, margin=1.5))
    with pytest.raises(InputError, match="expected faces to train and to validate on, got none"):
        trainer(tmp_path, validation=face_set(0))


def large_weight(folder, value):
    trainer(folder).run(progress=False)
    state = torch.load(folder / "best.pt", weights_only=True)
    state["average"]["stacks.0.heatmaps.weight"][3, 2] = value
    torch.save(state, folder / "best.pt")


@pytest.mark.parametrize("value", [70_000.0, -1e6, math.nan])
def test_a_weight_that_half_precision_cannot_hold_is_not_exported(tmp_path, value):
    large_weight(tmp_path, value)
    with pytest.raises(ExportError, match=r"stacks\.0\.heatmaps\.weight: expected .* up to 65504"):
        export_model(tmp_path, tmp_path / "m.safetensors", **EXPORT)
    assert not (tmp_path / "m.safetensors").exists()
    if math.isfinite(value):
        export_model(tmp_path, tmp_path / "m.safetensors", dtype=torch.float32, **EXPORT)


def test_an_export_is_compared_with_the_float32_network(tmp_path, monkeypatch):
    trainer(tmp_path).run(progress=False)
    stored = export._stored

    def rounded(state, dtype):
        result = stored(state, dtype)
        result["conv.weight"] = (result["conv.weight"] * 4).round() / 4
        return result

    monkeypatch.setattr(export, "_stored", rounded)
    with pytest.raises(
        ExportError, match=r"expected the heatmaps of the float32 network, to 0\.062 .*float16"
    ):
        export_model(tmp_path, tmp_path / "m.safetensors", **EXPORT)
    assert not (tmp_path / "m.safetensors").exists()


def test_a_model_is_calibrated_on_the_device_that_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # which it is not, here
    network = StackedHourglass(TINY.network)
    fitted = calibrate(network, TINY, face_set(6), "cpu")
    assert len(fitted["calibration"].scale) == 68
    assert next(network.parameters()).device.type == "cpu"


@pytest.mark.parametrize(("step", "old"), [(0, 2 / 11), (50, 0.75)])  # the first steps are soon forgotten
def test_averaged_weights_follow_weights_and_norm_statistics_alike(tmp_path, step, old):
    run = trainer(tmp_path, dataclasses.replace(TINY, ema_decay=0.75))
    before = {name: value.clone() for name, value in run.average.state_dict().items()}
    run.step = step
    run.train_step()
    new = run.network.state_dict()
    for name, value in run.average.state_dict().items():
        if value.is_floating_point():
            expected = old * before[name] + (1 - old) * new[name]
            torch.testing.assert_close(value, expected, msg=name)
        else:
            assert value == new[name] == before[name] + 1
    assert not torch.equal(new["bn.running_mean"], before["bn.running_mean"])


def test_gradients_are_clipped_to_their_largest_norm(tmp_path):
    run = trainer(tmp_path, dataclasses.replace(TINY, clip_norm=0.01))
    terms = run.train_step()
    norm = torch.stack([p.grad.square().sum() for p in run.network.parameters()]).sum().sqrt()
    assert float(terms["gradient"]) > 0.1  # before
    assert float(norm) == pytest.approx(0.01, rel=1e-3)


def test_weights_of_convolutions_alone_decay(tmp_path):
    run = trainer(tmp_path, dataclasses.replace(TINY, weight_decay=0.25))
    decay = {id(p): group["weight_decay"] for group in run.optimiser.param_groups for p in group["params"]}
    assert len(decay) == len(list(run.network.parameters()))
    convolutions = {
        id(module.weight) for module in run.network.modules() if isinstance(module, torch.nn.Conv2d)
    }
    assert {key for key, value in decay.items() if value == 0.25} == convolutions
    assert set(decay.values()) == {0.0, 0.25}


def test_the_learning_rate_rises_to_its_peak_and_falls_to_zero(tmp_path):
    run = trainer(tmp_path, dataclasses.replace(TINY, steps=20, warmup=0.2, learning_rate=0.4))
    rates = []
    for step in range(20):
        run.step = step
        rates.append(run.learning_rate())
    assert rates[:5] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4])
    assert (
        rates[12] == pytest.approx(0.2) and rates[-1] < 0.01 and rates[4:] == sorted(rates[4:], reverse=True)
    )
    run.step = 1
    run.train_step()
    assert {group["lr"] for group in run.optimiser.param_groups} == {rates[1]}


def test_a_run_without_a_compiler_trains_uncompiled_with_a_warning(tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", str(tmp_path / "no-such-compiler"))
    with pytest.warns(UserWarning, match=r"no C\+\+ compiler found .*no-such-compiler.*runs uncompiled"):
        run = Trainer(TINY, training_data(), tmp_path / "run", precision=torch.float32)
    assert run.forward == run.network.forward_stacks
    run.train_step()


class BackendError(RuntimeError):
    __module__ = "torch._dynamo.exc"


def test_a_compiler_that_fails_is_given_up_with_a_warning(tmp_path, monkeypatch):
    calls = []

    def broken(function):
        def call(*arguments):
            calls.append(arguments)
            raise BackendError("Python.h: no such file\n(a page of traceback)")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    monkeypatch.setattr(loop, "can_compile", lambda device: True)
    run = Trainer(TINY, training_data(), tmp_path / "run", precision=torch.float32)
    with pytest.warns(UserWarning, match=r"torch\.compile failed, .* uncompiled: Python\.h: no such file$"):
        run.train_step()
    run.train_step()
    assert len(calls) == 1


def test_an_error_of_the_network_itself_is_not_taken_for_a_compilers(tmp_path, monkeypatch):
    def broken(function):
        def call(*arguments):
            raise RuntimeError("out of memory")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    monkeypatch.setattr(loop, "can_compile", lambda device: True)
    run = Trainer(TINY, training_data(), tmp_path / "run", precision=torch.float32)
    with pytest.raises(RuntimeError, match="out of memory"):
        run.train_step()


def test_a_teacher_of_other_weights_does_not_continue_a_run(tmp_path):
    config = dataclasses.replace(TINY, teacher_weight=1.0)
    torch.manual_seed(5)
    teacher = LandmarkModel(load_model_card(tmp_path), StackedHourglass(TINY.network).eval())
    trainer(tmp_path / "run", config, teacher=teacher).run(progress=False)
    other = LandmarkModel(teacher.card, StackedHourglass(TINY.network).eval())
    with pytest.raises(InputError, match="the same teacher, got"):
        trainer(tmp_path / "run", config, teacher=other).run(progress=False)


def load_model_card(folder):
    trainer(folder / "first").run(progress=False)
    return export_model(folder / "first", folder / "first.safetensors", **EXPORT)


def test_the_command_refuses_what_cannot_continue_before_it_decodes_photos(tmp_path, capsys):
    trainer(tmp_path / "run").run(progress=False)
    words = ["train", "--train", str(tmp_path / "none"), "--val", str(tmp_path / "none")]
    quick = ["--no-compile", "--quiet", "--device=cpu"]
    assert main([*words, "--out", str(tmp_path / "run"), *quick]) == 2
    assert "expected a checkpoint of this configuration" in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert main([*words, "--out", str(tmp_path / "file"), *quick]) == 2
    assert re.search(r"file: expected a place to write to|file: ", capsys.readouterr().err)
    assert main([*words, "--out", str(tmp_path / "new"), "--device=cuda:99", *quick[:2]]) == 2
    assert "device: expected one that is present" in capsys.readouterr().err


def test_training_data_is_checked_by_layout():
    config = TINY
    data = TrainingData(face_set(2), dataclasses.replace(face_set(2), landmarks=torch.zeros(2, 29, 2)))
    with pytest.raises(InputError, match="expected 68 landmarks of layout ibug-68, got 29"):
        data.check(config)


def test_two_runs_do_not_train_in_one_folder(tmp_path):
    first, second = trainer(tmp_path), trainer(tmp_path)
    begun, go_on = threading.Event(), threading.Event()
    step = first.train_step

    def waits():
        begun.set()
        assert go_on.wait(60)
        return step()

    first.train_step = waits
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(first.run, progress=False)
        try:
            assert begun.wait(60)
            with pytest.raises(WriteError, match=f"{tmp_path.name}: expected no other run to write it"):
                second.run(progress=False)
            words = ["--train", "none", "--val", "none", "--out", str(tmp_path), "--device", "cpu", "--quiet"]
            assert main(["train", *words]) == 2  # before it reads photos
        finally:
            go_on.set()
        best = running.result()
    assert second.run(progress=False) == best
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint.pt", "best.pt", "log.csv"}
