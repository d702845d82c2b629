"""Evaluation: every annotated face counts, and no failure is matched away."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from face_landmarks.benchmarks.annotations import AnnotatedImage
from face_landmarks.benchmarks.comparison import BenchmarkResult, evaluate_benchmark
from face_landmarks.benchmarks.evaluation import Evaluation, FaceRecord, evaluate, match_boxes
from face_landmarks.benchmarks.protocols import BENCHMARKS
from face_landmarks.benchmarks.readers import LabelledSet
from face_landmarks.errors import InputError
from face_landmarks.geometry import boxes_from_landmarks
from face_landmarks.layouts import AFLW_19, IBUG_68
from face_landmarks.results import Faces

INFINITY = float("inf")


def face_at(x: float, y: float, size: float = 100) -> np.ndarray:
    """(68, 2) in a square of this size; the outer eye corners are size / 2 apart along x."""
    grid = np.stack(np.meshgrid(np.linspace(0, 1, 17), np.linspace(0, 1, 4)), axis=-1).reshape(68, 2)
    grid[[36, 45]] = (0.25, 0.3), (0.75, 0.3)
    return (size * grid + (x, y)).astype(np.float32)


def moved(face: np.ndarray, x: float, y: float) -> np.ndarray:
    return face + np.float32((x, y))


def faces_of(*landmarks: np.ndarray, boxes: np.ndarray | None = None) -> Faces:
    if not landmarks:
        return Faces.empty(IBUG_68)
    points = np.stack(landmarks)
    boxes = boxes_from_landmarks(points) if boxes is None else boxes
    return Faces(points, np.ones(points.shape[:2]), boxes, np.ones(len(points)), layout=IBUG_68)


def sample(name: str, *landmarks: np.ndarray) -> AnnotatedImage:
    return AnnotatedImage(Path(name), np.stack(landmarks))


class Answers:
    """An aligner without a network: it looks the faces of each photo up."""

    layout = IBUG_68

    def __init__(self, answers: Mapping[str, Faces]) -> None:
        self.answers = answers
        self.boxes: list[np.ndarray] | None = None

    def align_batch(
        self, images: Iterable[Path], boxes: Sequence[np.ndarray] | None = None
    ) -> Sequence[Faces]:
        self.boxes = None if boxes is None else list(boxes)
        return [self.answers[str(image)] for image in images]


A, B, C = face_at(0, 0), face_at(200, 0), face_at(0, 200, 200)
SAMPLES = [sample("one.jpg", A, B), sample("two.jpg", C)]


def test_a_perfect_aligner_has_perfect_scores():
    evaluation = evaluate(Answers({"one.jpg": faces_of(A, B), "two.jpg": faces_of(C)}), SAMPLES)
    assert len(evaluation) == 3
    assert evaluation.nme == 0 and evaluation.signed_error == (0, 0)
    assert evaluation.found_share == 100
    assert evaluation.failure_rate(8) == 0 and evaluation.auc(8) == 100
    assert set(evaluation.nme_by_group) == set(IBUG_68.groups)
    assert not any(evaluation.nme_by_group.values())


def test_true_boxes_are_those_made_from_the_true_landmarks():
    aligner = Answers({"one.jpg": faces_of(A, B), "two.jpg": faces_of(C)})
    evaluate(aligner, SAMPLES, boxes="truth")
    np.testing.assert_array_equal(aligner.boxes[0], boxes_from_landmarks(np.stack((A, B))))
    np.testing.assert_array_equal(aligner.boxes[1], boxes_from_landmarks(C[None]))
    evaluate(aligner, SAMPLES, boxes="detector")
    assert aligner.boxes is None


@pytest.mark.parametrize("boxes", ["truth", "detector"])
def test_a_shift_is_measured_in_percent_of_the_inter_ocular_distance(boxes):
    answers = {"one.jpg": faces_of(moved(A, 1, 0), moved(B, 1, 0)), "two.jpg": faces_of(moved(C, 0, -3))}
    evaluation = evaluate(Answers(answers), SAMPLES, boxes=boxes)
    # 1 of 50 px to the right, twice, and 3 of 100 px up
    np.testing.assert_allclose(evaluation.errors, [2, 2, 3])
    assert evaluation.nme == pytest.approx(7 / 3)
    assert evaluation.signed_error == pytest.approx((4 / 3, -1))
    assert evaluation.failure_rate(2.5) == pytest.approx(100 / 3)
    assert evaluation.auc(4) == pytest.approx(100 * (2 + 2 + 1) / 4 / 3)


def test_other_normalisers_can_be_chosen():
    answers = Answers({"one.jpg": faces_of(moved(A, 1, 0), B), "two.jpg": faces_of(C)})
    evaluation = evaluate(answers, SAMPLES, normaliser="box")
    np.testing.assert_allclose(evaluation.errors, [1, 0, 0], atol=1e-6)  # of a box 100 px wide
    assert evaluation.summary()["normaliser"] == "box"


def test_the_error_of_each_part_is_the_mean_over_the_faces():
    frowning = A.copy()
    frowning[list(IBUG_68.groups["left_eyebrow"])] += (0, 3)
    evaluation = evaluate(Answers({"one.jpg": faces_of(frowning, B), "two.jpg": faces_of(C)}), SAMPLES)
    assert evaluation.nme_by_group["left_eyebrow"] == pytest.approx(2)  # 3 of 50 px, one face of three
    assert evaluation.nme_by_group["right_eyebrow"] == 0


def test_detected_faces_are_matched_in_any_order_and_strangers_are_ignored():
    stranger = face_at(500, 500)
    answers = {"one.jpg": faces_of(stranger, moved(B, 1, 0), A), "two.jpg": faces_of(stranger, C)}
    evaluation = evaluate(Answers(answers), SAMPLES, boxes="detector")
    np.testing.assert_allclose(evaluation.errors, [0, 2, 0])
    assert evaluation.found_share == 100


def test_a_missed_face_is_an_infinite_error_outside_the_means():
    answers = Answers({"one.jpg": faces_of(moved(B, 1, 0)), "two.jpg": faces_of()})
    evaluation = evaluate(answers, SAMPLES, boxes="detector")
    np.testing.assert_allclose(evaluation.errors, [INFINITY, 2, INFINITY])
    np.testing.assert_array_equal(evaluation.found, [False, True, False])
    assert np.isnan(evaluation.predicted[[0, 2]]).all()
    assert evaluation.found_share == pytest.approx(100 / 3)
    assert evaluation.nme == pytest.approx(2) and evaluation.signed_error == pytest.approx((2, 0))
    assert evaluation.nme_by_group["jaw"] == pytest.approx(2)
    assert evaluation.failure_rate(10) == pytest.approx(200 / 3)
    assert evaluation.auc(8) == pytest.approx(100 * 6 / 8 / 3)


def test_a_face_found_but_badly_aligned_keeps_its_error():
    boxes = boxes_from_landmarks(np.stack((A, B)))
    swapped = faces_of(B, A, boxes=boxes)  # right boxes, the landmarks of the other face
    evaluation = evaluate(Answers({"one.jpg": swapped}), SAMPLES[:1], boxes="detector")
    np.testing.assert_allclose(evaluation.errors, [400, 400])  # 200 of 50 px


def test_good_landmarks_in_a_box_elsewhere_do_not_make_a_face_found():
    elsewhere = faces_of(A, boxes=boxes_from_landmarks(A[None] + 300))
    evaluation = evaluate(Answers({"one.jpg": elsewhere}), SAMPLES[:1], boxes="detector")
    assert not evaluation.found.any()


def test_one_detection_is_not_counted_for_two_faces():
    near = moved(A, 20, 0)
    evaluation = evaluate(Answers({"one.jpg": faces_of(A)}), [sample("one.jpg", near, A)], boxes="detector")
    np.testing.assert_array_equal(evaluation.errors, [INFINITY, 0])


def test_when_no_face_is_found_scores_say_so_without_warning():
    evaluation = evaluate(Answers({"one.jpg": faces_of(), "two.jpg": faces_of()}), SAMPLES, boxes="detector")
    assert np.isnan(evaluation.nme) and np.isnan(evaluation.signed_error).all()
    summary = evaluation.summary()
    assert summary["nme"] is None and summary["signed_error"] == [None, None]
    assert summary["nme_by_group"]["jaw"] is None
    assert summary["failure_rate"] == {"8": 100, "10": 100} and summary["auc"]["8"] == 0
    assert "nan" in evaluation.table()


def square(x: float, y: float, side: float = 10) -> tuple[float, float, float, float]:
    return (x, y, x + side, y + side)


@pytest.mark.parametrize(
    ("annotated", "detected", "pairs"),
    [
        ([square(0, 0)], [square(0, 0)], [(0, 0)]),
        ([square(0, 0)], [square(5, 0)], [(0, 0)]),  # 50 shared of 150
        ([square(0, 0)], [square(6, 0)], []),  # 40 shared of 160
        ([square(0, 0)], [square(20, 20)], []),
        ([square(0, 0)], [square(-5, -5, 20)], []),  # 100 shared of 400
        ([square(0, 0), square(30, 0)], [square(31, 0), square(1, 0)], [(0, 1), (1, 0)]),
        # the best pair goes first, though the first box would take the same partner
        ([square(0, 0), square(3, 0)], [square(2.5, 0)], [(1, 0)]),
        ([square(0, 0), square(3, 0)], [square(2.5, 0), square(-4, 0)], [(0, 1), (1, 0)]),
        ([square(0, 0)], np.zeros((0, 4)), []),
        (np.zeros((0, 4)), [square(0, 0)], []),
    ],
)
def test_boxes_are_paired_one_to_one_by_their_overlap(annotated, detected, pairs):
    rows, columns = match_boxes(annotated, detected)
    assert list(zip(rows.tolist(), columns.tolist(), strict=True)) == pairs


def test_pairs_must_exceed_the_least_overlap():
    third = [square(0, 0)], [square(5, 0)]
    assert len(match_boxes(*third, least_overlap=0.333)[0]) == 1
    assert len(match_boxes(*third, least_overlap=0.334)[0]) == 0


@pytest.fixture
def evaluation() -> Evaluation:
    answers = {"one.jpg": faces_of(moved(B, 1, 0)), "two.jpg": faces_of(moved(C, 0, -3))}
    return evaluate(Answers(answers), SAMPLES, boxes="detector")


def test_records_name_each_annotated_face(evaluation):
    first, second, third = evaluation.records()
    assert first == FaceRecord(Path("one.jpg"), 0, False, INFINITY)
    assert second[:3] == (Path("one.jpg"), 1, True) and second.nme == pytest.approx(2)
    assert third[:3] == (Path("two.jpg"), 0, True) and third.nme == pytest.approx(3)


def test_faces_are_counted_by_photo_in_any_order(evaluation):
    order = np.array([0, 2, 1])
    mixed = dataclasses.replace(
        evaluation,
        images=tuple(evaluation.images[i] for i in order),
        truth=evaluation.truth[order],
        predicted=evaluation.predicted[order],
    )
    assert [(str(r.image), r.face) for r in mixed.records()] == [
        ("one.jpg", 0),
        ("two.jpg", 0),
        ("one.jpg", 1),
    ]


def test_the_table_states_each_number_with_its_unit(evaluation):
    lines = evaluation.table().splitlines()
    assert lines[:4] == [
        "3 faces in 2 photos, boxes: detector",
        "in %, NME normalised by inter-ocular",
        "faces found                  66.67",
        "NME                           2.50",
    ]
    assert lines[-7:] == [
        "signed error x               +1.00",
        "signed error y               -1.50",
        "failure rate, NME > 8 %      33.33",
        "failure rate, NME > 10 %     33.33",
        "AUC, NME up to 7 %           42.86",
        "AUC, NME up to 8 %           45.83",
        "AUC, NME up to 10 %          50.00",
    ]
    assert "  left eyebrow                2.50" in lines
    assert str(evaluation) == evaluation.table()


def test_saved_files_hold_the_same_numbers(evaluation, tmp_path):
    evaluation.save(tmp_path / "deep" / "results")
    evaluation.save(str(tmp_path / "deep" / "results"))  # a second time replaces the first
    summary = json.loads((tmp_path / "deep" / "results" / "summary.json").read_text())
    assert summary == evaluation.summary()
    assert summary["photos"] == 2 and summary["faces"] == 3 and summary["found"] == 2
    assert summary["nme"] == pytest.approx(2.5)
    with open(tmp_path / "deep" / "results" / "faces.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["image"], int(row["face"]), row["found"]) for row in rows] == [
        ("one.jpg", 0, "False"),
        ("one.jpg", 1, "True"),
        ("two.jpg", 0, "True"),
    ]
    np.testing.assert_array_equal([float(row["nme"]) for row in rows], evaluation.errors)


def test_samples_without_faces_are_passed_over():
    empty = AnnotatedImage(Path("nobody.jpg"), np.zeros((0, 68, 2)))
    evaluation = evaluate(Answers({"two.jpg": faces_of(C)}), [empty, SAMPLES[1]])
    assert evaluation.images == (Path("two.jpg"),)


def test_progress_goes_to_stderr_and_only_if_asked_for(capsys):
    answers = Answers({"one.jpg": faces_of(A, B), "two.jpg": faces_of(C)})
    evaluate(answers, SAMPLES)
    assert capsys.readouterr() == ("", "")
    evaluate(answers, SAMPLES, progress=True)
    out, err = capsys.readouterr()
    assert out == "" and "2/2" in err


@pytest.mark.parametrize(
    ("samples", "options", "message"),
    [
        ([], {}, "samples: expected at least one annotated face, got none"),
        ([AnnotatedImage(Path("a.jpg"), np.zeros((0, 68, 2)))], {}, "expected at least one annotated face"),
        (
            [sample("a.jpg", A[:29])],
            {"normaliser": "box"},
            r"landmarks: expected 68 of layout ibug-68, got 29 in a\.jpg",
        ),
        (SAMPLES, {"boxes": "given"}, "boxes: expected truth or detector, got 'given'"),
        (SAMPLES, {"normaliser": "height"}, "normaliser: expected inter-ocular, .* got 'height'"),
        ([sample("a.jpg", A * 0)], {}, "expected positive distances, got 0.0 for face 0"),
    ],
)
def test_what_cannot_be_scored_is_refused_before_any_work(samples, options, message):
    with pytest.raises(InputError, match=message):
        evaluate(Answers({}), samples, **options)


def test_an_aligner_must_return_a_face_for_each_box():
    with pytest.raises(InputError, match="aligner: expected a face for each of 2 boxes, got 1"):
        evaluate(Answers({"one.jpg": faces_of(A), "two.jpg": faces_of(C)}), SAMPLES)


def aflw_face(x: float, y: float) -> np.ndarray:
    """(19, 2) spread over 30 x 40 px from here."""
    slope = np.linspace((0, 0), (30, 40), 19, dtype=np.float32)
    return moved(slope, x, y)


class Aflw:
    """A test set of three faces, the last one not frontal, in boxes of 60 x 80 px; and an aligner for it."""

    layout = AFLW_19
    truth = (aflw_face(10, 20), aflw_face(110, 20), aflw_face(10, 220))
    boxes = np.array([(0, 0, 60, 80), (100, 0, 160, 80), (0, 200, 60, 280)], np.float32)

    def __init__(self, *moves: tuple[float, float] | None) -> None:
        self.moves = moves

    def read(self, root: Path) -> LabelledSet:
        samples = [
            AnnotatedImage(Path(f"{i}.jpg"), face[None], box[None])
            for i, (face, box) in enumerate(zip(self.truth, self.boxes, strict=True))
        ]
        masks = {"Full": np.array([True] * 3), "Frontal": np.array([True, True, False])}
        return LabelledSet(tuple(samples), masks)

    def align_batch(
        self, images: Iterable[Path], boxes: Sequence[np.ndarray] | None = None
    ) -> Sequence[Faces]:
        images = list(images)
        if boxes is not None:
            np.testing.assert_array_equal(np.concatenate(boxes), self.boxes)
        return [
            Faces.empty(AFLW_19)
            if move is None
            else Faces(face[None] + move, np.ones((1, 19)), box[None], [1], layout=AFLW_19)
            for face, box, move in zip(self.truth, self.boxes, self.moves, strict=True)
        ]


def aflw_result(*moves: tuple[float, float] | None, boxes: str = "truth") -> BenchmarkResult:
    aligner = Aflw(*moves)
    benchmark = dataclasses.replace(BENCHMARKS["aflw19"], reader=aligner.read)
    return evaluate_benchmark(aligner, benchmark, "anywhere", boxes=boxes)


def test_a_benchmark_is_scored_by_its_own_boxes_column_by_column():
    result = aflw_result((0, 0), (1.8, 2.4), (0, 12))  # 0, 3 and 12 px off
    side = np.sqrt(60 * 80)  # 69.28 px; the diagonal is 100 px
    scores = {(column.subset, str(column)): result.score(column) for column in result.benchmark.columns}
    assert scores == {
        ("Full", "NME diagonal"): pytest.approx((0 + 3 + 12) / 3),
        ("Frontal", "NME diagonal"): pytest.approx((0 + 3) / 2),
        ("Full", "NME box"): pytest.approx(100 * (0 + 3 + 12) / 3 / side),
        ("Full", "AUC@7 box"): pytest.approx(100 * (7 + (7 - 300 / side) + 0) / 3 / 7),
    }
    assert result.deviations == ("Full: expected 4386 faces, got 3",)


def test_a_subset_keeps_the_boxes_and_photos_of_its_own_faces():
    evaluation = aflw_result((3, 4), (3, 4), (3, 4)).evaluation  # each 5 px off
    boxes = np.array([(0, 0, 60, 80), (0, 0, 30, 40), (0, 0, 6, 8)], np.float32)
    other = dataclasses.replace(evaluation, given_boxes=boxes)
    np.testing.assert_allclose(other.errors, [5, 10, 50], rtol=1e-5)  # diagonals of 100, 50 and 10 px
    for chosen, errors in (([False, True, True], [10, 50]), ([True, False, True], [5, 50])):
        np.testing.assert_allclose(other.subset(np.array(chosen)).errors, errors, rtol=1e-5)
    names = [str(record.image) for record in other.subset(np.array([False, True, True])).records()]
    assert names == ["1.jpg", "2.jpg"]


def test_the_papers_values_stand_beside_ours():
    lines = str(aflw_result((0, 0), (1.8, 2.4), (0, 12))).splitlines()
    assert lines == [
        "AFLW-19: 3 faces, 100.00 % of them found, boxes: truth",
        "not the published protocol: Full: expected 4386 faces, got 3",
        "in %                                  faces   paper    ours",
        "Full          NME diagonal                3    1.31    5.00",
        "Frontal       NME diagonal                2    1.12    1.50",
        "Full          NME box                     3    2.14    7.22",
        "Full          AUC@7 box                   3   70.00   46.05",
        "signed error x, y, in % of diagonal: +0.60, +4.80",
    ]


def test_a_face_the_detector_missed_fails_at_every_threshold_of_a_benchmark():
    result = aflw_result((0, 0), None, (0, 0), boxes="detector")
    nme_diagonal, frontal, nme_box, auc_box = (result.score(column) for column in result.benchmark.columns)
    assert (nme_diagonal, frontal, nme_box) == (0, 0, 0)  # means are over the faces found
    assert auc_box == pytest.approx(200 / 3)
    assert str(result).startswith("AFLW-19: 3 faces, 66.67 % of them found, boxes: detector")


def test_a_benchmark_saves_its_columns_and_a_row_per_face(tmp_path):
    result = aflw_result((0, 0), (3, 4), None, boxes="detector")
    result.save(tmp_path / "deep")
    summary = json.loads((tmp_path / "deep" / "summary.json").read_text())
    assert summary == json.loads(json.dumps(result.summary()))
    assert summary["benchmark"] == "aflw19" and summary["all_faces"]["found"] == 2
    assert summary["columns"][1] == {
        "subset": "Frontal", "faces": 2, "score": "NME", "normaliser": "diagonal", "threshold": None,
        "paper": 1.12, "ours": pytest.approx(2.5),
    }  # fmt: skip
    with open(tmp_path / "deep" / "faces.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["Frontal"] for row in rows] == ["1", "1", "0"]
    assert float(rows[1]["nme_diagonal"]) == pytest.approx(5) and rows[2]["nme_box"] == "inf"
    assert {name: len(errors) for name, errors in result.errors().items()} == {"Full": 3, "Frontal": 2}


def test_a_subset_without_faces_has_no_score():
    result = aflw_result((0, 0), (0, 0), (0, 0))
    nobody = dataclasses.replace(result, subsets={"Full": np.array([True] * 3), "Frontal": np.zeros(3, bool)})
    assert np.isnan(nobody.score(result.benchmark.columns[1])) and "nan" in str(nobody)
    assert nobody.summary()["columns"][1]["ours"] is None and set(nobody.errors()) == {"Full"}


def test_a_model_of_another_layout_is_refused_before_files_are_read():
    with pytest.raises(
        InputError, match="expected a model of aflw-19, as AFLW-19 has it, got one of ibug-68"
    ):
        evaluate_benchmark(Answers({}), BENCHMARKS["aflw19"], "nowhere")
