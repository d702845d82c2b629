"""The published 2DFAN-4, generated: its key names and shapes, its file format, its arithmetic."""

import io
import pickle
import struct
from collections import OrderedDict

import torch
from torch.nn import functional as F


def published_names(stacks, depth=4):
    """Keys of the published 2DFAN state dict with the shapes of the tensors behind them."""
    names = {}

    def norm(name, channels):
        for leaf in ("weight", "bias", "running_mean", "running_var"):
            names[f"{name}.{leaf}"] = (channels,)
        names[f"{name}.num_batches_tracked"] = ()

    def conv(name, cin, cout, size, bias=True):
        names[f"{name}.weight"] = (cout, cin, size, size)
        if bias:
            names[f"{name}.bias"] = (cout,)

    def block(name, cin, cout):
        for i, (a, b) in enumerate(((cin, cout // 2), (cout // 2, cout // 4), (cout // 4, cout // 4)), 1):
            norm(f"{name}.bn{i}", a)
            conv(f"{name}.conv{i}", a, b, 3, bias=False)
        if cin != cout:
            norm(f"{name}.downsample.0", cin)
            conv(f"{name}.downsample.2", cin, cout, 1, bias=False)

    conv("conv1", 3, 64, 7)
    norm("bn1", 64)
    block("conv2", 64, 128)
    block("conv3", 128, 128)
    block("conv4", 128, 256)
    for i in range(stacks):
        for level in range(1, depth + 1):
            for part in ("b1", "b2", "b3"):
                block(f"m{i}.{part}_{level}", 256, 256)
        block(f"m{i}.b2_plus_1", 256, 256)
        block(f"top_m_{i}", 256, 256)
        conv(f"conv_last{i}", 256, 256, 1)
        norm(f"bn_end{i}", 256)
        conv(f"l{i}", 256, 68, 1)
        if i < stacks - 1:
            conv(f"bl{i}", 256, 256, 1)
            conv(f"al{i}", 68, 256, 1)
    return names


def generated_state(stacks):
    """Numbers for every published key, such that activations neither fade nor explode.

    The published file has no `num_batches_tracked`: it is older than that counter.
    """
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, shape in published_names(stacks).items():
        values = torch.rand(shape, generator=generator)
        if name.endswith("num_batches_tracked"):
            continue
        if len(shape) == 4:
            values = (values - 0.5) * (6 / values[0].numel()) ** 0.5
        elif name.endswith(("running_var", "weight")):
            values += 0.5
        else:
            values = (values - 0.5) / 5
        state[name] = values
    return state


class _Storage:
    def __init__(self, tensor):
        self.tensor = tensor


class _Tensor(_Storage):
    def __reduce__(self):
        shape, stride = tuple(self.tensor.shape), self.tensor.stride()
        return torch._utils._rebuild_tensor, (_Storage(self.tensor), 0, shape, stride)


class _Pickler(pickle.Pickler):
    def __init__(self, stream):
        super().__init__(stream, protocol=2)
        self.storages, self.device = {}, 0

    def persistent_id(self, value):
        if type(value) is not _Storage:
            return None
        key = str(10**13 + len(self.storages))  # it was an address
        self.storages[key] = value.tensor
        size = value.tensor.numel()
        return "storage", torch.cuda.FloatStorage, key, f"cuda:{self.device}", size, None


def written_by_torch_0_3(state):
    """The bytes of a state dict as torch 0.3 saved it from a GPU, which is how 2DFAN-4 was published."""
    stream = io.BytesIO()
    sizes = {"short": 2, "int": 4, "long": 4}
    for part in (
        0x1950A86A20F9469CFC6C,  # torch's mark
        1001,
        {"protocol_version": 1001, "little_endian": True, "type_sizes": sizes},
    ):
        pickle.dump(part, stream, protocol=2)
    pickler = _Pickler(stream)
    pickler.dump(OrderedDict((name, _Tensor(value)) for name, value in state.items()))
    pickle.dump(list(pickler.storages), stream, protocol=2)
    for tensor in pickler.storages.values():
        stream.write(struct.pack("<q", tensor.numel()) + tensor.numpy().tobytes())
    return stream.getvalue()


def heatmaps_of(state, crops, stacks):
    """FAN by its published names alone, (B, 3, 256, 256) -> (B, 68, 64, 64)."""

    def conv(name, x, **options):
        return F.conv2d(x, state[f"{name}.weight"], state.get(f"{name}.bias"), **options)

    def norm(name, x):
        mean, variance, weight, bias = (
            state[f"{name}.{leaf}"] for leaf in ("running_mean", "running_var", "weight", "bias")
        )
        return F.relu(F.batch_norm(x, mean, variance, weight, bias))

    def block(name, x):
        parts = [x]
        for i in (1, 2, 3):
            parts.append(conv(f"{name}.conv{i}", norm(f"{name}.bn{i}", parts[-1]), padding=1))
        if f"{name}.downsample.2.weight" in state:
            x = conv(f"{name}.downsample.2", norm(f"{name}.downsample.0", x))
        return torch.cat(parts[1:], dim=1) + x

    def hourglass(name, level, x):
        low = block(f"{name}.b2_{level}", F.avg_pool2d(x, 2))
        low = hourglass(name, level - 1, low) if level > 1 else block(f"{name}.b2_plus_1", low)
        low = block(f"{name}.b3_{level}", low)
        return block(f"{name}.b1_{level}", x) + F.interpolate(low, scale_factor=2)

    x = norm("bn1", conv("conv1", crops, stride=2, padding=3))
    x = block("conv4", block("conv3", F.avg_pool2d(block("conv2", x), 2)))
    for i in range(stacks):
        features = block(f"top_m_{i}", hourglass(f"m{i}", 4, x))
        features = norm(f"bn_end{i}", conv(f"conv_last{i}", features))
        heatmaps = conv(f"l{i}", features)
        if i < stacks - 1:
            x = x + conv(f"bl{i}", features) + conv(f"al{i}", heatmaps)
    return heatmaps
