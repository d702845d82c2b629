"""Devices: present ones are chosen, others refused; optional packages named with their extra."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from face_landmarks._system.devices import choose_device, to_device
from face_landmarks._system.extras import import_extra
from face_landmarks.errors import InputError, MissingDependencyError


def test_the_default_is_the_best_that_is_present() -> None:
    assert choose_device(None).type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert choose_device("cpu") == choose_device(torch.device("cpu")) == torch.device("cpu")


@pytest.mark.parametrize("device", ["meta", "tpu", "cuda:99", "cpu:x", 3.5, ["cpu"]])
def test_another_device_is_refused(device: object) -> None:
    with pytest.raises(InputError, match="device: expected one that is present"):
        choose_device(device)  # type: ignore[arg-type]


@pytest.mark.parametrize("device", ["mps", "mps:0", torch.device("mps")])
def test_mps_is_named_as_not_supported(device: object) -> None:
    with pytest.raises(InputError, match="MPS is not supported"):
        choose_device(device)  # type: ignore[arg-type]


def test_an_array_arrives_as_it_was() -> None:
    array = np.arange(12, dtype=np.uint8).reshape(3, 4)
    assert np.shares_memory(to_device(array, torch.device("cpu")).numpy(), array)
    assert to_device(array, torch.device("meta")).shape == (3, 4)


def test_an_array_arrives_on_the_gpu_as_it_was(cuda: torch.device) -> None:
    array = np.arange(10**6, dtype=np.int64)
    tensor = to_device(array, cuda)
    np.testing.assert_array_equal((tensor + 1).cpu().numpy(), array + 1)


def test_a_missing_package_is_named_with_its_extra() -> None:
    with pytest.raises(MissingDependencyError, match=r"plots need nosuchpackage, pip install .*\[plot\]"):
        import_extra("nosuchpackage.plots", "plot", "plots")
    assert import_extra("os.path", "plot", "plots").sep
