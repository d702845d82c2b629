"""Weights files: what is saved is read again, and what is no model is refused."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_model import CONTENT, OTHER, STATE, fan_state, sha256
from tiny_model import tiny_card as card

from face_landmarks.errors import ChecksumError, InputError, WeightsError, WeightsFormatError, WriteError
from face_landmarks.models.hourglass import HourglassConfig, StackedHourglass
from face_landmarks.models.registry import embedded_models, get_card, list_models
from face_landmarks.models.weights import check_state_dict, download, load_model, load_weights, save_weights
from face_landmarks.models.weights_file import WeightsFile


def test_a_saved_model_describes_itself(tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    saved = save_weights(path, {key: value.half() for key, value in STATE.items()}, card(lean=0.008))
    found, state = load_weights(path)
    assert found == saved
    assert found.lean == 0.008
    assert found.file == WeightsFile("mine.safetensors", sha256(path.read_bytes()), path.stat().st_size)
    assert state.keys() == STATE.keys()
    assert all(torch.equal(state[key], STATE[key].half()) for key in STATE)
    assert load_weights(str(path), sha256=sha256(path.read_bytes()).upper())[0] == saved
    assert [entry.name for entry in tmp_path.iterdir()] == ["mine.safetensors"]


def test_saving_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.safetensors", "b.safetensors"):
        save_weights(tmp_path / name, STATE, card())
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_a_transposed_tensor_is_saved_as_it_reads(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_weights(path, {"w": STATE["conv.weight"].t()}, card())
    assert torch.equal(load_weights(path)[1]["w"], STATE["conv.weight"].t())


def test_saving_needs_the_right_name_and_a_place(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="ends in .safetensors, got 'a.pth'"):
        save_weights(tmp_path / "a.pth", STATE, card())
    with pytest.raises(WriteError, match="expected a place to write to, got No such file"):
        save_weights(tmp_path / "nowhere" / "a.safetensors", STATE, card())


def test_a_failed_save_keeps_the_old_file_and_leaves_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.safetensors"
    save_weights(path, STATE, card())
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(WriteError, match="No space left"):
        save_weights(path, {}, card())
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_an_embedded_model_is_its_json_and_its_file(pretrained: Path) -> None:
    saved = save_weights(pretrained / "tiny.safetensors", STATE, card(scores={"nme": 3.5}))
    sha256_of_file = sha256((pretrained / "tiny.safetensors").read_bytes())
    (pretrained / "tiny.json").write_text(json.dumps(saved.to_dict()))
    assert list_models() == ["2dfan4", "tiny"]
    assert embedded_models() == ["tiny"]
    assert load_weights("tiny")[0] == saved
    assert download("tiny") == pretrained / "tiny.safetensors"
    message = f"sha256: expected that of tiny, {sha256_of_file}, got {sha256(OTHER)}; a name needs none"
    with pytest.raises(ChecksumError, match=message):
        load_weights("tiny", sha256=sha256(OTHER))
    assert load_weights("tiny", sha256=sha256_of_file.upper())[0] == saved
    (pretrained / "tiny.safetensors").write_bytes(CONTENT)
    with pytest.raises(ChecksumError, match=f"found     64 bytes, sha256 {sha256(CONTENT)}"):
        load_weights("tiny")
    (pretrained / "tiny.safetensors").unlink()
    with pytest.raises(WeightsError, match="tiny: a file of the package is missing[^$]*reinstall"):
        load_weights("tiny")


def test_a_local_file_that_is_missing_or_another_is_told(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="gone.safetensors: expected a weights file or the name"):
        load_weights("gone.safetensors")
    with pytest.raises(WeightsError, match="got Is a directory"):
        load_weights(tmp_path)
    with pytest.raises(WeightsError, match="expected a weights file .* got embedded null byte"):
        load_weights("gone\0.safetensors")
    path = tmp_path / "a.safetensors"
    path.write_bytes(CONTENT)
    with pytest.raises(ChecksumError) as caught:
        load_weights(path, sha256=sha256(OTHER))
    assert sha256(OTHER) in str(caught.value)
    assert sha256(CONTENT) in str(caught.value)


@pytest.mark.parametrize("data", [b"", CONTENT, b"12345678{", b"\x02" + bytes(7) + b"{}", b"PK\x03\x04"])
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(data)
    with pytest.raises(WeightsFormatError, match=f"found     {len(data)} bytes"):
        load_weights(path)


def test_safetensors_without_a_card_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save

    for metadata, message in ((None, "got none"), ({"card": "{"}, "not a safetensors model: Expecting")):
        (tmp_path / "a.safetensors").write_bytes(save(STATE, metadata))
        with pytest.raises(WeightsFormatError, match=message):
            load_weights(tmp_path / "a.safetensors")


class Hostile:
    """Unpickling this makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.folder),)


def test_a_hostile_pickle_is_refused_and_does_not_run(tmp_path: Path) -> None:
    path, harm = tmp_path / "a.pth", tmp_path / "harm"
    torch.save({"conv1.weight": Hostile(harm)}, path)
    new = path.read_bytes()
    torch.save({"conv1.weight": Hostile(harm)}, path, _use_new_zipfile_serialization=False)
    for data in (new, path.read_bytes(), pickle.dumps(Hostile(harm))):
        path.write_bytes(data)
        with pytest.raises(WeightsFormatError, match="refused; nothing in it was run") as caught:
            load_weights(path)
        assert "weights_only" not in str(caught.value)
        assert not harm.exists()


def test_a_local_state_dict_is_read_if_it_is_fans(tmp_path: Path) -> None:
    path = tmp_path / "mine.pth.tar"
    torch.save(fan_state(stacks=2), path)
    found, state = load_weights(path)
    assert (found.name, found.format, found.network.stacks) == ("mine.pth.tar", "fan", 2)
    assert state.keys() == fan_state(stacks=2).keys()
    for other in ({"conv1.weight": torch.zeros(1)}, {**fan_state(1), "epoch": 3}, [torch.zeros(1)]):
        torch.save(other, path)
        with pytest.raises(WeightsFormatError, match="expected a state dict with the keys of FAN"):
            load_weights(path)


def test_a_state_dict_of_another_network_is_explained() -> None:
    expected = {"conv.weight": (3, 2), "bn.steps": ()}
    check_state_dict(card(), STATE, expected)
    with pytest.raises(WeightsFormatError) as caught:
        check_state_dict(card(), STATE, {"conv.weight": (3, 5), "head": (1,)})
    for fault in ("missing head", "unknown bn.steps", "conv.weight: expected (3, 5), got (3, 2)"):
        assert fault in str(caught.value)
    fan = get_card("2dfan4")
    with pytest.raises(WeightsFormatError, match="2dfan4: expected") as caught:
        check_state_dict(fan, STATE, expected | {"head": (1,)})
    for fact in (fan.file.urls[0], fan.file.name, str(fan.file.size), fan.file.sha256, "by hand"):
        assert fact in str(caught.value)
    with pytest.raises(WeightsFormatError, match="and 4 more"):
        check_state_dict(card(), {}, {f"layer{n}": (1,) for n in range(9)})


@pytest.mark.parametrize("model", [None, 5, b"shr-fan-68", ["shr-fan-68"]])
def test_a_model_is_a_name_a_path_or_a_url(model: object) -> None:
    with pytest.raises(InputError, match="model: expected a name, a path or a URL, got"):
        load_weights(model)  # type: ignore[arg-type]


def test_a_path_in_bytes_is_no_model() -> None:
    class InBytes:
        def __fspath__(self) -> bytes:
            return b"a.safetensors"

    with pytest.raises(InputError, match="model: expected a path, got"):
        load_weights(InBytes())  # type: ignore[arg-type]


def test_a_hash_is_a_string() -> None:
    with pytest.raises(InputError, match="sha256: expected 64 hexadecimal digits, got 5"):
        load_weights("shr-fan-68", sha256=5)  # type: ignore[arg-type]


def test_a_card_of_endless_depth_is_refused(tmp_path: Path, pretrained: Path) -> None:
    from safetensors.torch import save

    deep = "[" * 100_000
    (tmp_path / "a.safetensors").write_bytes(save(STATE, {"card": deep}))
    with pytest.raises(WeightsFormatError, match="not a safetensors model"):
        load_weights(tmp_path / "a.safetensors")
    (pretrained / "deep.json").write_text(deep)
    with pytest.raises(WeightsFormatError, match=r"deep\.json: expected a model card in JSON"):
        list_models()


def test_a_loaded_network_has_the_stored_weights_in_float32(tmp_path: Path) -> None:
    shape = HourglassConfig(stacks=1, features=16, depth=1, crop_size=32, heatmap_size=8, norm="after")
    torch.manual_seed(0)
    network = StackedHourglass(shape).eval()
    state = {k: v.half() if v.is_floating_point() else v for k, v in network.state_dict().items()}
    save_weights(tmp_path / "a.safetensors", state, card(network=shape))
    loaded = load_model(tmp_path / "a.safetensors").network
    assert not loaded.training
    for value in (*loaded.parameters(), *loaded.buffers()):
        assert value.dtype == torch.float32 and value.device.type == "cpu"
    network.load_state_dict({k: v.float() for k, v in state.items()})
    crops = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(loaded(crops), network(crops), atol=1e-5, rtol=1e-5)


def test_loading_makes_no_random_weights() -> None:
    """They would take a quarter of the time, and move torch's random numbers on."""
    before = torch.random.get_rng_state()
    load_model("shr-fan-68-fast")
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_model_is_shown_in_one_short_line() -> None:
    model = load_model("shr-fan-68-fast")
    assert repr(model) == "<LandmarkModel 'shr-fan-68-fast': ibug-68, StackedHourglass>"
