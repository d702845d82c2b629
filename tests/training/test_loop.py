"""What one step trains on, and which weights a run keeps."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from tiny_training import TINY, trainer


def test_the_loss_is_the_sum_of_its_terms_by_their_weights(tmp_path):
    config = dataclasses.replace(
        TINY, coordinate_weight=0.3, siamese_weight=0.7, siamese_coordinate_weight=0.2, near_weight=0.0
    )
    terms = trainer(tmp_path, config).train_step()
    assert set(terms) == {"heatmap", "coordinate", "siamese", "agreement", "loss", "gradient"}
    assert all(terms[name] > 0 for name in terms)
    expected = (
        terms["heatmap"] + 0.3 * terms["coordinate"] + 0.7 * terms["siamese"] + 0.2 * terms["agreement"]
    )
    torch.testing.assert_close(terms["loss"], expected)


def test_the_two_views_of_a_face_are_both_mirrored_or_neither_is(tmp_path):
    run = trainer(tmp_path, dataclasses.replace(TINY, siamese_weight=0.1))
    seen = []
    for _ in range(8):
        first, second = torch.linalg.det(run.draw().views.source_to_crop).sign().chunk(2)
        assert torch.equal(first, second)
        seen += first.tolist()
    assert set(seen) == {-1.0, 1.0}


def test_the_weights_of_the_best_validation_are_kept(tmp_path):
    run = trainer(tmp_path, dataclasses.replace(TINY, steps=9, validate_every=3))
    scores, weights = iter([3.0, 1.0, 2.0]), []

    def validate():
        weights.append({name: value.clone() for name, value in run.average.state_dict().items()})
        return {"val_nme": next(scores), "val_x": 0.0, "val_y": 0.0}

    run.validate = validate
    assert run.run(progress=False) == pytest.approx(1.0)
    best = torch.load(tmp_path / "best.pt", weights_only=True)
    assert (best["step"], best["best"]) == (6, 1.0)
    for name, value in best["average"].items():
        assert torch.equal(value, weights[1][name]), name
