"""The network: shapes, folding, and the published weights' names."""

import dataclasses

import pytest
import torch
from published import published_names
from torch import nn
from torch.nn import functional as F

from face_landmarks.errors import InputError
from face_landmarks.models.fan import convert_fan_state_dict
from face_landmarks.models.hourglass import (
    BlurPool,
    HourglassConfig,
    StackedHourglass,
    complexity,
    fold_batch_norms,
)

SMALL = {"landmarks": 5, "features": 16, "depth": 2, "crop_size": 32, "heatmap_size": 8}


def parameters(network):
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(("stacks", "millions"), [(1, 6.25), (2, 12.1), (4, 23.8)])
def test_the_number_of_parameters_is_fans(stacks, millions):
    with torch.device("meta"):
        network = StackedHourglass(HourglassConfig(stacks=stacks))
    assert parameters(network) / 1e6 == pytest.approx(millions, abs=0.05)


@pytest.mark.parametrize("stacks", [1, 4])
def test_every_published_key_has_its_place_and_its_shape(stacks):
    config = HourglassConfig(stacks=stacks)
    with torch.device("meta"):
        ours = StackedHourglass(config).state_dict()
        published = {name: torch.empty(shape) for name, shape in published_names(stacks).items()}
    converted = convert_fan_state_dict(published, config)
    assert {k: v.shape for k, v in converted.items()} == {k: v.shape for k, v in ours.items()}


def test_each_published_level_feeds_the_level_it_is_named_after():
    config = HourglassConfig(stacks=1)
    state = {"m0.b1_4.bn1.weight": torch.tensor(4.0), "m0.b3_1.bn1.weight": torch.tensor(1.0)}
    state["m0.b2_plus_1.bn1.weight"] = torch.tensor(0.0)
    assert {k: float(v) for k, v in convert_fan_state_dict(state, config).items()} == {
        "stacks.0.hourglass.skip.bn1.weight": 4.0,
        "stacks.0.hourglass.inner.inner.inner.up.bn1.weight": 1.0,
        "stacks.0.hourglass.inner.inner.inner.inner.bn1.weight": 0.0,
    }


def test_a_key_that_fan_does_not_have_keeps_its_name_and_so_fits_nothing():
    surprise = {"surprise.weight": torch.zeros(1)}
    assert convert_fan_state_dict(surprise, HourglassConfig()) == surprise


@pytest.mark.parametrize("stacks", [1, 4])
def test_a_file_from_before_batches_were_counted_fits_as_well(stacks):
    config = HourglassConfig(stacks=stacks)
    with torch.device("meta"):
        ours = StackedHourglass(config).state_dict()
        old = {n: torch.empty(s) for n, s in published_names(stacks).items() if "num_batches" not in n}
    converted = convert_fan_state_dict(old, config)
    assert {k: v.shape for k, v in converted.items()} == {k: v.shape for k, v in ours.items()}


KINDS = [
    pytest.param({"norm": "before"}, id="before"),
    pytest.param({"norm": "after"}, id="after"),
    pytest.param({"norm": "after", "block": "plain"}, id="plain"),
]


@pytest.mark.parametrize("kind", KINDS)
def test_every_stack_gives_heatmaps_of_a_quarter_of_the_crop(kind):
    network = StackedHourglass(HourglassConfig(stacks=2, **kind, **SMALL))
    stacks = network.forward_stacks(torch.rand(3, 3, 32, 32))
    assert [tuple(s.shape) for s in stacks] == [(3, 5, 8, 8)] * 2


@pytest.mark.parametrize("waist", [0, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_folding_norms_changes_no_heatmap(kind, waist):
    torch.manual_seed(0)
    network = StackedHourglass(HourglassConfig(stacks=2, waist=waist, **kind, **SMALL))
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.5, 0.5)
            torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.uniform_(module.bias, -0.5, 0.5)
    network.eval()
    folded = fold_batch_norms(network)
    crops = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(folded(crops), network(crops), atol=1e-4, rtol=1e-4)
    left = sum(isinstance(m, torch.nn.BatchNorm2d) for m in folded.modules())
    total = sum(isinstance(m, torch.nn.BatchNorm2d) for m in network.modules())
    assert left == 0 if kind["norm"] == "after" else 0 < left < total


def test_a_plain_block_is_two_convolutions_beside_its_input():
    """And a network of them has none at the stem's own resolution."""
    network = StackedHourglass(HourglassConfig(stacks=1, norm="after", block="plain", **SMALL)).eval()
    block = network.stacks[0].top
    x = torch.randn(2, SMALL["features"], 8, 8)
    with torch.inference_mode():
        first = block.bn1(nn.functional.conv2d(x, block.conv1.weight, padding=1)).clamp_min(0)
        second = block.bn2(nn.functional.conv2d(first, block.conv2.weight, padding=1))
        torch.testing.assert_close(block(x), (second + x).clamp_min(0))
    assert first.shape[1] == SMALL["features"] // 4
    assert isinstance(network.block1, nn.Identity)


def test_blur_pooling_weighs_four_cells_by_one_three_three_one():
    x = torch.rand(2, 3, 8, 12)
    binomial = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    kernel = torch.outer(binomial, binomial).expand(3, 1, 4, 4)
    torch.testing.assert_close(BlurPool()(x), F.conv2d(x, kernel, stride=2, padding=1, groups=3))


def test_blur_pooling_leaves_less_of_what_can_only_alias():
    # A wave of 2.5 cells is too short for a grid of every second cell.
    phases = torch.linspace(0, 2 * torch.pi, 8)[:-1].view(7, 1, 1, 1)
    waves = torch.cos(2 * torch.pi * torch.arange(40.0) / 2.5 + phases).expand(-1, 1, 40, 40)
    inside = (..., slice(2, -2), slice(2, -2))
    assert BlurPool()(waves)[inside].abs().max() < 0.2 * F.avg_pool2d(waves, 2)[inside].abs().max()


def test_how_the_stem_pools_changes_no_weight():
    networks = [StackedHourglass(HourglassConfig(stem_pool=pool, **SMALL)) for pool in ("average", "blur")]
    average, blur = networks
    blur.load_state_dict(average.state_dict())
    crops = torch.rand(1, 3, 32, 32)
    assert not torch.allclose(average.eval()(crops), blur.eval()(crops))


def test_gradients_reach_every_parameter():
    network = StackedHourglass(HourglassConfig(stacks=2, norm="after", **SMALL))
    sum(s.square().sum() for s in network.forward_stacks(torch.rand(2, 3, 32, 32))).backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in network.parameters())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stacks": 0}, "stacks: expected at least 1"),
        ({"stacks": 1.5}, "stacks: expected at least 1 and whole, got 1.5"),
        ({"features": 20}, "features: expected a multiple of 16"),
        ({"heatmap_size": 16}, "heatmap_size: expected a quarter"),
        ({"depth": 4}, r"heatmap_size: expected a multiple of 2\*\*depth"),
        ({"norm": "never"}, "norm: expected"),
        ({"stem_pool": "max"}, "stem_pool: expected"),
        ({"waist": -1}, "waist: expected a whole number, 0 or more, got -1"),
        ({"waist": 1.5}, "waist: expected a whole number"),
        ({"block": "dense"}, "block: expected 'hierarchical' or 'plain', got 'dense'"),
        ({"block": "plain"}, "norm: expected 'after' for plain blocks, got 'before'"),
    ],
)
def test_a_network_that_cannot_be_built_says_why(change, message):
    with pytest.raises(InputError, match=message):
        HourglassConfig(**{**SMALL, **change})


def test_complexity_counts_parameters_and_products():
    parameters, products = complexity(HourglassConfig())
    assert round(parameters / 1e6, 1) == 23.8  # FAN's, as published
    assert products == 25_235_292_160  # torch.utils.flop_counter counts the same


@pytest.mark.parametrize("kind", KINDS)
def test_complexity_is_what_the_convolutions_of_a_pass_add_up_to(kind):
    config = HourglassConfig(
        landmarks=5, stacks=2, features=32, depth=3, crop_size=64, heatmap_size=16, waist=2, **kind
    )
    network = StackedHourglass(config).eval()
    products = []
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(
                lambda layer, _, output: products.append(output.numel() * layer.weight[0].numel())
            )
    with torch.inference_mode():
        network(torch.zeros(1, 3, 64, 64))
    assert complexity(config) == (sum(p.numel() for p in network.parameters()), sum(products))


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_a_waist_starts_as_an_identity_and_learns_from_the_first_step(kind, depth):
    torch.manual_seed(0)
    shape = {**SMALL, **kind, "depth": depth}
    plain = StackedHourglass(HourglassConfig(stacks=2, **shape))
    wide = StackedHourglass(HourglassConfig(stacks=2, waist=2, **shape))
    added = wide.state_dict().keys() - plain.state_dict().keys()
    assert added and all(".waist." in name for name in added)
    levels = {name.partition(".waist.")[0] for name in added}
    assert len(levels) == 2 * min(depth, 2)  # the two coarsest resolutions of both stacks
    wide.load_state_dict({**wide.state_dict(), **plain.state_dict()})
    crops = torch.rand(2, 3, 32, 32)
    for mode in (True, False):
        with torch.inference_mode():
            torch.testing.assert_close(wide.train(mode)(crops), plain.train(mode)(crops))
    sum(s.square().sum() for s in wide.train().forward_stacks(crops)).backward()
    for level in levels:
        gradients = [
            p.grad.abs().sum() for n, p in wide.named_parameters() if n.startswith(f"{level}.waist.")
        ]
        assert max(gradients) > 0


def test_a_waist_has_the_coarsest_resolutions_alone():
    wide = StackedHourglass(HourglassConfig(stacks=1, waist=3, **{**SMALL, "depth": 3}))
    hourglass = wide.stacks[0].hourglass
    assert [len(h.waist) for h in (hourglass, hourglass.inner, hourglass.inner.inner)] == [0, 3, 3]


def test_published_weights_have_no_waist():
    config = HourglassConfig(stacks=1)
    with torch.device("meta"):
        published = {name: torch.empty(shape) for name, shape in published_names(1).items()}
        wide = StackedHourglass(dataclasses.replace(config, waist=1)).state_dict()
    converted = convert_fan_state_dict(published, config)
    assert all(".waist." in name for name in wide.keys() - converted.keys())
    assert converted.keys() <= wide.keys()
