"""Training: augmentation moves landmarks with pixels, losses are what they say, runs resume exactly."""

import csv
import dataclasses
from functools import partial

import cv2
import numpy as np
import pytest
import torch
from tiny_training import PLAIN, TINY, face_points, face_set, spots, trainer

from face_landmarks.cli import main
from face_landmarks.errors import InputError
from face_landmarks.geometry import similarity, transform_points
from face_landmarks.heatmap import decode_heatmaps, encode_heatmaps
from face_landmarks.layouts import IBUG_68
from face_landmarks.models.weights import load_weights
from face_landmarks.pts import write_pts
from face_landmarks.training.augment import mirror_landmarks, near_views, random_views
from face_landmarks.training.config import RECIPES, AugmentConfig, restore_config
from face_landmarks.training.data import FaceSet, TrainingData, join_faces, load_faces, load_unlabelled
from face_landmarks.training.export import export_model
from face_landmarks.training.loop import Trainer
from face_landmarks.training.losses import (
    coordinate_loss,
    heatmap_loss,
    loss_terms,
    near_loss,
    siamese_coordinate_loss,
    siamese_loss,
)
from face_landmarks.training.runs import load_config
from face_landmarks.training.settings import override


@pytest.mark.parametrize("stretch", [0.0, 0.1])
@pytest.mark.parametrize("flip", [False, True])
def test_landmarks_follow_every_augmentation(flip, stretch):
    points = face_points(6, 96)
    points[:, 16] = points[:, 0]  # the jaw's ends trade places in a mirror
    views = random_views(
        spots(points, 96),
        points,
        torch.full((6,), flip),
        64,
        IBUG_68,
        0.0,
        dataclasses.replace(PLAIN, stretch=stretch),
        torch.Generator().manual_seed(0),
    )
    found, _ = decode_heatmaps(views.crops[:, :1], method="log-parabola")
    off = float((found[:, 0] - views.landmarks[:, 0]).norm(dim=-1).max())
    assert off < (0.2 if stretch else 0.1)  # the spot is less round, and its samples fewer, where stretched
    by_matrix = transform_points(views.source_to_crop, points[:, :1])
    assert float((by_matrix - views.landmarks[:, :1]).norm(dim=-1).max()) < 1e-3


def test_disturbing_the_colours_moves_no_landmark_and_stays_in_range():
    points = face_points(4, 48)
    flips = torch.zeros(4, dtype=torch.bool)
    still, disturbed = (
        random_views(
            spots(points, 48), points, flips, 32, IBUG_68, 0.0,
            dataclasses.replace(config, rotation=0, scale=0, shift=0), torch.Generator().manual_seed(1),
        )
        for config in (PLAIN, AugmentConfig(blur=1, occlusion=1, gray=1))
    )  # fmt: skip
    torch.testing.assert_close(still.landmarks, disturbed.landmarks)
    assert float(disturbed.crops.min()) >= 0 and float(disturbed.crops.max()) <= 1
    assert not torch.allclose(still.crops, disturbed.crops, atol=0.05)


def test_near_views_are_one_view_moved_by_less_than_their_reach():
    points = face_points(6, 96)
    flips = torch.arange(6) % 2 == 0
    views = near_views(
        spots(points, 96), points, flips, 64, IBUG_68, 0.0, PLAIN, torch.Generator().manual_seed(0), reach=1.5
    )
    first, second = views.landmarks.chunk(2)
    moved = second - first
    torch.testing.assert_close(moved, moved[:, :1].expand_as(moved), atol=1e-4, rtol=0)
    assert 0.5 < float(moved.abs().max()) < 1.5
    assert len(moved[:, 0].unique(dim=0)) == 6
    carried = transform_points(
        views.source_to_crop[6:] @ views.source_to_crop[:6].inverse(), views.landmarks[:6]
    )
    torch.testing.assert_close(carried, second, atol=1e-4, rtol=0)


def test_near_views_are_disturbed_alike():
    points = face_points(4, 48)
    views = near_views(
        spots(points, 48), points, torch.zeros(4, dtype=torch.bool), 32, IBUG_68, 0.0,
        AugmentConfig(occlusion=1, gray=1), torch.Generator().manual_seed(1), reach=0.0,
    )  # fmt: skip
    torch.testing.assert_close(*views.crops.chunk(2))


def test_mirrored_labels_lean_to_the_same_side():
    symmetric = face_points(2, 64)
    symmetric[:, 27, 0] = 31.5  # on the midline of a picture 64 pixels wide
    inter_ocular = 0.3 * 64
    leaning = symmetric + torch.tensor([0.01 * inter_ocular, 0.0])
    mirrored = mirror_landmarks(leaning, 64, IBUG_68, lean=0.01)
    torch.testing.assert_close(mirrored[:, 27, 0], leaning[:, 27, 0], atol=1e-4, rtol=0)
    torch.testing.assert_close(mirror_landmarks(mirrored, 64, IBUG_68, lean=0.01), leaning)


def test_the_heatmap_loss_sums_cells_and_averages_landmarks():
    target = torch.zeros(2, 3, 5, 7)
    predicted = target.clone()
    predicted[0, 0, 0, 0] = 2.0
    assert float(heatmap_loss(predicted, target)) == pytest.approx(4 / 6)


def test_the_coordinate_loss_is_the_distance_in_cells():
    points = torch.tensor([[[4.0, 5.0], [6.0, 3.0]]])
    heatmaps = encode_heatmaps(points, (11, 11), 1.5)
    assert float(coordinate_loss(heatmaps, points, 5, 10)) == pytest.approx(0, abs=1e-4)
    moved = points + torch.tensor([1.0, 0.5])
    assert float(coordinate_loss(heatmaps, moved, 5, 10)) == pytest.approx(1.5, abs=0.01)


def test_the_coordinate_loss_leaves_out_what_no_window_can_reach():
    points = torch.tensor([[[4.0, 5.0], [40.0, 5.0]]])
    heatmaps = encode_heatmaps(torch.tensor([[[5.0, 5.0], [5.0, 5.0]]]), (11, 11), 1.5)
    assert float(coordinate_loss(heatmaps, points, 5, 10)) == pytest.approx(1.0, abs=0.01)


def test_two_views_of_one_truth_agree_in_a_common_frame():
    size = 24
    points = 8 + 8 * torch.rand(2, 3, 2, generator=torch.Generator().manual_seed(0))
    move = similarity(
        torch.tensor([1.0, 1.0]), torch.tensor([0.3, -0.2]),
        torch.full((2, 2), 11.5), torch.tensor([[12.0, 11.0], [10.5, 12.5]]),
    )  # fmt: skip
    first = encode_heatmaps(points, (size, size), 2.0)
    second = encode_heatmaps(transform_points(move, points), (size, size), 2.0)
    assert float(siamese_loss(first, second, move)) < 0.05
    assert float(siamese_loss(first, second, torch.eye(3).expand(2, 3, 3))) > 1.0


def test_landmarks_that_do_not_move_with_their_crop_disagree_by_as_much():
    size = 24
    points = 8 + 8 * torch.rand(2, 3, 2, generator=torch.Generator().manual_seed(0))
    shift = torch.eye(3, dtype=torch.float64).repeat(2, 1, 1)
    shift[:, :2, 2] = torch.tensor([0.5, -0.25])
    first = encode_heatmaps(points, (size, size), 1.5)
    followed = encode_heatmaps(points + torch.tensor([0.5, -0.25]), (size, size), 1.5)
    assert float(siamese_coordinate_loss(first, followed, shift, 7, 10)) == pytest.approx(0, abs=0.1)
    assert float(siamese_coordinate_loss(first, first, shift, 7, 10)) == pytest.approx(0.75, abs=1e-3)


def test_near_views_disagree_by_the_square_of_the_distance():
    points = torch.tensor([[[8.0, 9.0], [12.0, 10.0], [5.0, 6.0]], [[9.0, 9.0], [7.0, 13.0], [11.0, 4.0]]])
    shift = torch.eye(3, dtype=torch.float64).repeat(2, 1, 1)
    shift[:, :2, 2] = torch.tensor([0.5, -0.25])
    first = encode_heatmaps(points, (17, 19), 1.5)
    followed = encode_heatmaps(points + torch.tensor([0.5, -0.25]), (17, 19), 1.5)
    assert float(near_loss(first, followed, shift, 7, 10)) == pytest.approx(0, abs=0.01)
    assert float(near_loss(first, first, shift, 7, 10)) == pytest.approx(0.25 + 0.0625, abs=1e-3)
    elsewhere = encode_heatmaps(points.flip(1), (17, 19), 1.5)  # the middle landmark alone stays
    still = torch.eye(3, dtype=torch.float64).expand(2, 3, 3)
    assert float(near_loss(first, elsewhere, still, 7, 10)) == pytest.approx(0, abs=1e-6)


def test_near_steps_train_on_near_views_alone(tmp_path):
    config = dataclasses.replace(TINY, near_weight=1.0, near_every=2, siamese_coordinate_weight=0.5)
    run = trainer(tmp_path, config)
    near, far = run.train_step(), run.train_step()
    assert float(near["near"]) > 0 and float(far["siamese"]) > 0 and float(far["agreement"]) > 0
    assert not {"siamese", "agreement"} & near.keys() and "near" not in far


def test_the_log_has_the_mean_of_a_term_over_the_steps_that_had_it(tmp_path):
    config = dataclasses.replace(TINY, steps=4, validate_every=4, near_weight=1.0, near_every=2)
    run, seen = trainer(tmp_path, config), []
    step = run.train_step
    run.train_step = lambda: seen.append(step()) or seen[-1]
    run.run(progress=False)
    with (tmp_path / "log.csv").open() as file:
        (row,) = csv.DictReader(file)
    for name in ("loss", "heatmap", "siamese", "near"):
        values = [float(terms[name]) for terms in seen if name in terms]
        assert len(values) == (2 if name in ("siamese", "near") else 4)
        assert float(row[name]) == pytest.approx(np.mean(values), rel=1e-4), name
    assert row["agreement"] == "" and row["teacher"] == ""


def test_near_views_are_compared_without_a_siamese_term(tmp_path):
    config = dataclasses.replace(TINY, siamese_weight=0.0, near_weight=1.0, near_every=2)
    run = trainer(tmp_path, config)
    near, far = run.train_step(), run.train_step()
    assert float(near["near"]) > 0 and not {"siamese", "near"} & far.keys()


def test_secondary_faces_of_several_folders_are_drawn_from_alike():
    first, second = face_set(2), face_set(3, seed=5)
    joined = join_faces([first, second])
    assert len(joined) == 5 and joined.names == first.names + second.names
    torch.testing.assert_close(joined.landmarks[2:], second.landmarks)
    torch.testing.assert_close(joined.pictures[:2], first.pictures)
    assert join_faces([]) is None


def test_a_killed_run_goes_on_as_if_nothing_had_happened(tmp_path):
    whole = trainer(tmp_path / "whole")
    whole.run(progress=False, checkpoint_seconds=0)

    interrupted = trainer(tmp_path / "parts")
    step, killed_at = interrupted.train_step, 5

    def train_step():
        if interrupted.step == killed_at:
            raise KeyboardInterrupt
        return step()

    interrupted.train_step = train_step
    with pytest.raises(KeyboardInterrupt):
        interrupted.run(progress=False, checkpoint_seconds=0)
    resumed = trainer(tmp_path / "parts")
    best = resumed.run(progress=False)

    assert best == whole.best
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name]), name
    with (tmp_path / "parts" / "log.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["3", "6"]


def test_another_configuration_does_not_resume(tmp_path):
    trainer(tmp_path).run(progress=False)
    other = trainer(tmp_path, dataclasses.replace(TINY, sigma=2.0))
    with pytest.raises(InputError, match="expected a checkpoint of this configuration"):
        other.run(progress=False)


def test_a_checkpoint_older_than_a_setting_goes_on_with_its_default(tmp_path):
    trainer(tmp_path).run(progress=False)
    path = tmp_path / "checkpoint.pt"
    state = torch.load(path, weights_only=True)
    del state["config"]["siamese_coordinate_weight"]
    torch.save(state, path)
    resumed = trainer(tmp_path)
    resumed.resume()
    assert resumed.step == TINY.steps


def test_a_run_learns_the_faces_it_sees(tmp_path):
    config = dataclasses.replace(
        TINY,
        steps=60,
        validate_every=60,
        augment=dataclasses.replace(PLAIN, rotation=0, scale=0, shift=0, flip=0),
        siamese_weight=0.0,
        batch_size=2,
        ema_decay=0.9,
    )
    same = face_set(1, config)
    run = trainer(tmp_path, dataclasses.replace(config, source_margin=1.0), labelled=same, validation=same)
    before = run.validate()["val_nme"]
    assert run.run(progress=False) < 0.5 * before


def test_unlabelled_faces_take_part_in_the_siamese_term_only(tmp_path):
    config = dataclasses.replace(TINY, unlabelled_share=0.5)
    size = round(1.5 * 32)
    bare = FaceSet(torch.full((2, 3, size, size), 128, dtype=torch.uint8), torch.empty(2, 0, 2), ("a", "b"))
    run = trainer(tmp_path, config, unlabelled=bare)
    views, labelled, pictures = run.draw()
    assert (len(views.crops), labelled, len(pictures)) == (4, 1, 2)
    stacks = [torch.rand(4, 68, 8, 8, generator=torch.Generator().manual_seed(0))]
    terms = loss_terms(stacks, views, labelled, config, run.heatmap_to_crop)
    stacks[0][[1, 3]] += 1  # the unlabelled face, in both views
    changed = loss_terms(stacks, views, labelled, config, run.heatmap_to_crop)
    assert float(changed["heatmap"]) == float(terms["heatmap"])
    assert float(changed["siamese"]) != float(terms["siamese"])


def test_settings_are_replaced_by_name_and_type():
    config = override(TINY, ["steps=7", "network.features=32", "augment.flip=0.25", "rounded=true"])
    assert (config.steps, config.network.features, config.augment.flip, config.rounded) == (7, 32, 0.25, True)


@pytest.mark.parametrize(
    "setting", ["steps", "stps=3", "network.sides=3", "network=3", "steps=many", "steps.a=1"]
)
def test_an_unknown_setting_is_refused(setting):
    with pytest.raises(InputError, match="--set"):
        override(TINY, [setting])


def test_a_group_cannot_also_be_a_value():
    with pytest.raises(InputError, match="as one value and as a group"):
        override(TINY, ["network=3", "network.features=32"])


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_holds_together(name):
    config = RECIPES[name]
    assert config.batch_size % config.views == 0
    assert override(config, ["steps=10"]).network == config.network


@pytest.fixture
def photo_folder(tmp_path):
    """Two photos, the second with two faces, as real files."""
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, faces in (("a", 1), ("b", 2)):
        cv2.imwrite(str(folder / f"{name}.jpg"), rng.integers(0, 256, (120, 150, 3), dtype=np.uint8))
        for face in range(faces):
            suffix = f".{face + 1}" if faces > 1 else ""
            write_pts(folder / f"{name}{suffix}.pts", face_points(1, 100, seed=face)[0].numpy())
    return folder


def test_every_annotated_face_becomes_one_centred_picture(photo_folder):
    faces = load_faces(photo_folder, crop_size=32, crop_scale=0.61, crop_shift=0.1365, margin=1.5)
    assert faces.pictures.shape == (3, 3, 48, 48) and faces.names == ("a", "b", "b")
    low, high = faces.landmarks.amin(dim=1), faces.landmarks.amax(dim=1)
    torch.testing.assert_close((low + high) / 2, torch.full((3, 2), 23.5), atol=0.1, rtol=0)


def test_unlabelled_photos_fill_the_picture(tmp_path):
    cv2.imwrite(str(tmp_path / "white.png"), np.full((40, 40, 3), 255, np.uint8))
    faces = load_unlabelled(tmp_path, 24)
    assert faces.pictures.shape == (1, 3, 24, 24) and int(faces.pictures[..., 1:-1, 1:-1].min()) == 255
    assert faces.landmarks.shape == (1, 0, 2)


def test_hidden_companions_of_photos_are_no_unlabelled_photos(tmp_path):
    (tmp_path / "._white.png").write_bytes(b"what macOS keeps beside a file")
    with pytest.raises(InputError, match="expected a folder of photos, got one without any"):
        load_unlabelled(tmp_path, 24)
    cv2.imwrite(str(tmp_path / "white.png"), np.full((40, 40, 3), 255, np.uint8))
    assert load_unlabelled(tmp_path, 24).names == ("white",)


def test_an_unlabelled_photo_as_wide_as_the_picture_keeps_its_pixels(tmp_path):
    photo = np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "wide.png"), photo[:, :, ::-1])
    (picture,) = load_unlabelled(tmp_path, 24).pictures.permute(0, 2, 3, 1).numpy()
    np.testing.assert_array_equal(picture[4:20], photo)
    assert not picture[:4].any() and not picture[20:].any()


def test_the_command_trains_and_says_how_well(photo_folder, tmp_path, capsys):
    small = ["network.features=16", "network.crop_size=32", "network.heatmap_size=8", "network.depth=2"]
    settings = [f"--set={s}" for s in (*small, "steps=2", "batch_size=2", "validate_every=1")]
    folders = ["--train", str(photo_folder), "--val", str(photo_folder), "--out", str(tmp_path / "run")]
    assert main(["train", *folders, *settings, "--device=cpu", "--no-compile", "--quiet"]) == 0
    assert "best validation NME (inter-ocular)" in capsys.readouterr().out
    assert (tmp_path / "run" / "best.pt").exists()
    card, _ = load_weights(tmp_path / "run" / "model.safetensors")
    assert card.training_data == "3 faces of photos" and card.command.startswith("face-landmarks train ")

    more = ["--large-pose", str(photo_folder), "--unlabelled", str(photo_folder)]
    shares = ["--set=large_pose_share=0.25", "--set=unlabelled_share=0.25", "--set=batch_size=8"]
    words = [*folders[:-1], str(tmp_path / "second"), *settings, *more, *shares]
    first = str(tmp_path / "run" / "model.safetensors")
    words.append("--set=network.stem_pool=blur")  # has no weights, and so may change
    assert main(["train", *words, "--init", first, "--device=cpu", "--no-compile", "--quiet"]) == 0
    card, _ = load_weights(tmp_path / "second" / "model.safetensors")
    assert card.training_data == (
        "3 faces of photos, 3 of photos, 2 without landmarks of photos, "
        "from shr-fan-68-fast-run, trained on 3 faces of photos"
    )
    assert card.network.stem_pool == "blur"


def test_the_command_explains_a_missing_folder(tmp_path, capsys):
    folders = ["--train", str(tmp_path / "none"), "--val", str(tmp_path), "--out", str(tmp_path / "run")]
    assert main(["train", *folders, "--quiet"]) == 2
    assert "none" in capsys.readouterr().err


def test_a_model_exported_with_held_out_faces_knows_its_errors(tmp_path):
    run = trainer(tmp_path / "run")
    run.run(progress=False)
    export = partial(
        export_model, tmp_path / "run", tmp_path / "m.safetensors", name="tiny", summary="", training_data="",
        command="",
    )  # fmt: skip
    assert export().calibration is None
    calibration = export(validation=run.data.validation).calibration
    assert calibration is not None and len(calibration.scale) == 68 and min(calibration.scale) > 0
    card, _ = load_weights(tmp_path / "m.safetensors")
    assert card.calibration == calibration  # the file tells, too


def test_fine_tuning_starts_from_the_weights_given(tmp_path):
    whole = trainer(tmp_path / "first")
    whole.run(progress=False)
    weights = whole.average.state_dict()
    data = TrainingData(face_set(5, margin=1.5), face_set(3, seed=1))
    tuned = Trainer(TINY, data, tmp_path / "second", initial=weights, precision=torch.float32, compile=False)
    assert tuned.validate() == whole.validate()


def test_weights_of_another_shape_cannot_be_fine_tuned(photo_folder, tmp_path, capsys):
    folders = ["--train", str(photo_folder), "--val", str(photo_folder), "--out", str(tmp_path / "run")]
    words = [*folders, "--init=shr-fan-68-fast", "--set=network.features=64", "--no-compile", "--quiet"]
    assert main(["train", *words]) == 2
    assert "--init: expected weights of" in capsys.readouterr().err


def test_the_command_does_not_pass_over_a_folder_without_photos(photo_folder, tmp_path, capsys):
    folders = ["--train", str(photo_folder), "--val", str(photo_folder), "--out", str(tmp_path / "run")]
    words = [*folders, "--unlabelled", str(tmp_path / "none"), "--no-compile", "--quiet"]
    assert main(["train", *words, "--set=unlabelled_share=0.5"]) == 2
    assert f"{tmp_path / 'none'}: expected a folder of photos" in capsys.readouterr().err
    assert main(["train", *words]) == 2
    assert "--unlabelled: expected --set unlabelled_share" in capsys.readouterr().err
    assert main(["train", *folders, "--large-pose", str(photo_folder), "--no-compile", "--quiet"]) == 2
    assert "--large-pose: expected --set large_pose_share" in capsys.readouterr().err


@pytest.mark.parametrize(
    "setting", ["validate_every=0", "near_weight=1", "siamese_coordinate_weight=1", "near_every=2"]
)
def test_settings_without_effect_are_refused(setting):
    with pytest.raises(InputError, match=f"{setting.partition('=')[0]}: expected"):
        override(dataclasses.replace(TINY, siamese_weight=0.0), [setting])


def test_settings_without_a_network_are_refused():
    values = dataclasses.asdict(TINY)
    del values["network"]
    with pytest.raises(InputError, match="expected the settings of this version's runs"):
        restore_config(values)


def test_the_command_learns_from_a_teacher_with_larger_crops(photo_folder, tmp_path, capsys):
    def words(out, size, *more):
        shape = [
            f"network.{name}" for name in ("features=16", f"crop_size={size}", f"heatmap_size={size // 4}")
        ]
        settings = [
            *shape,
            "network.depth=2",
            "steps=2",
            "batch_size=4",
            "validate_every=1",
            "siamese_weight=0",
        ]
        folders = ["--train", str(photo_folder), "--val", str(photo_folder), "--out", str(tmp_path / out)]
        flags = ["--device=cpu", "--no-compile", "--quiet", *(f"--set={setting}" for setting in settings)]
        return ["train", *folders, *flags, *more]

    assert main(words("teacher", 48)) == 0
    teacher = ["--teacher", str(tmp_path / "teacher" / "model.safetensors")]
    assert main(words("student", 32, *teacher)) == 2
    assert "teacher: expected None, or a weight above 0" in capsys.readouterr().err
    weights = ["--set=teacher_weight=1", "--set=teacher_coordinate_weight=0.5"]
    assert main(words("student", 32, *weights)) == 2
    assert "teacher: expected a model" in capsys.readouterr().err
    bare = ["--unlabelled", str(photo_folder), "--set=unlabelled_share=0.5"]
    assert main(words("student", 32, *teacher, *weights, *bare)) == 0
    card, _ = load_weights(tmp_path / "student" / "model.safetensors")
    assert card.training_data == (
        "3 faces of photos, 2 without landmarks of photos, "
        "taught by shr-fan-68-fast-teacher, trained on 3 faces of photos"
    )
    assert (
        load_config(tmp_path / "student").source_scale == 1.5
    )  # pictures are as fine as the teacher's crops
    with (tmp_path / "student" / "log.csv").open() as file:
        assert all(float(row["teacher"]) > 0 and row["teacher_coordinate"] for row in csv.DictReader(file))
    assert main(words("student", 32, *teacher, *weights, *bare)) == 0  # it has all its steps


def test_a_run_of_another_version_is_refused(tmp_path):
    values = dataclasses.asdict(TINY) | {"colour_of_the_sky": "blue"}
    with pytest.raises(InputError, match="colour_of_the_sky"):
        restore_config(values)
