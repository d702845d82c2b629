"""The claim of a run to a folder of results."""

from __future__ import annotations

import pytest

pytest.importorskip("pyarrow")

from face_landmarks.errors import WriteError
from face_landmarks.output.cluster.claims import claimed
from face_landmarks.output.cluster.places import place_of


def test_the_last_run_has_the_folder_and_a_damaged_file_is_nobodys(tmp_path):
    out = place_of(str(tmp_path))
    with claimed(out) as first:
        first.check()
        with claimed(out) as second:
            second.check()
            with pytest.raises(WriteError, match="got one that began later"):
                first.check()
        assert not (tmp_path / "_run.json").exists() and not first.is_current()
        (tmp_path / "_run.json").write_bytes(b"{")
        assert not first.is_current()


def test_a_claim_that_cannot_be_read_is_an_error_of_ours(tmp_path):
    with claimed(place_of(str(tmp_path))) as claim:
        (tmp_path / "_run.json").unlink()
        (tmp_path / "_run.json").mkdir()
        with pytest.raises(WriteError, match="expected the claim of a run"):
            claim.is_current()
