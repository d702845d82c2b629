"""The networks of MTCNN give the answers of the published ones, in each of their two forms."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from face_landmarks.detection.mtcnn_networks import OUTPUT, PROPOSAL, REFINEMENT, for_runtimes, load_network

CHAINS = {"PNet": PROPOSAL, "RNet": REFINEMENT, "ONet": OUTPUT}


@pytest.mark.parametrize("name", CHAINS)
def test_a_network_gives_what_the_one_of_facenet_pytorch_gives(name: str) -> None:
    from facenet_pytorch.models import mtcnn as published

    chain = CHAINS[name]
    sides = [chain.input] if chain.input else [12, 13, 32, 45]
    theirs = getattr(published, name)().eval()
    network = load_network(chain)
    for side in sides:
        pixels = torch.randint(
            0, 256, (3, 3, side, side), generator=torch.Generator().manual_seed(side)
        ).float()
        with torch.inference_mode():
            box, *points, scores = theirs((pixels - 127.5) / 128)
            answer = network(pixels)
            other = for_runtimes(network)(pixels)
        torch.testing.assert_close(answer[:, :4].reshape(box.shape), box, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(
            answer[:, 4].sigmoid().reshape(scores[:, 1].shape), scores[:, 1], atol=1e-5, rtol=1e-4
        )
        if points:
            torch.testing.assert_close(answer[:, 5:, 0, 0], points[0], atol=1e-5, rtol=1e-4)
        assert answer.shape[1] == chain.channels == (15 if points else 5)
        torch.testing.assert_close(other, answer, atol=1e-4, rtol=1e-4)


def test_for_runtimes_there_is_no_prelu_and_the_network_stays_as_it_was() -> None:
    for chain in CHAINS.values():
        network = load_network(chain)
        before = {name: values.clone() for name, values in network.state_dict().items()}
        layers = [type(layer) for layer in for_runtimes(network).modules()]
        assert nn.PReLU not in layers and nn.Conv2d in layers
        for name, values in network.state_dict().items():
            torch.testing.assert_close(values, before[name], rtol=0, atol=0)
