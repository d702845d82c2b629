"""The training loop: resumable, logged, validated, the same on CPU and CUDA."""

from __future__ import annotations

import contextlib
import copy
import csv
import dataclasses
import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from face_landmarks._system.devices import choose_device
from face_landmarks._system.files import make_folder, replacing
from face_landmarks.benchmarks.metrics import nme, normaliser, signed_error
from face_landmarks.errors import InputError
from face_landmarks.geometry import resize_matrix, transform_points
from face_landmarks.heatmap import decode_heatmaps, encode_heatmaps
from face_landmarks.layouts import Layout, get_layout
from face_landmarks.models.hourglass import StackedHourglass
from face_landmarks.training.augment import Views, near_views, random_views
from face_landmarks.training.config import TrainConfig, restore_config
from face_landmarks.training.data import TrainingData
from face_landmarks.training.losses import (
    coordinate_loss,
    heatmap_loss,
    near_loss,
    siamese_coordinate_loss,
    siamese_loss,
)

logger = logging.getLogger(__name__)

LOG_FIELDS = (
    "step", "faces", "seconds", "learning_rate", "loss", "heatmap", "coordinate", "siamese",
    "agreement", "near", "val_nme", "val_x", "val_y",
)  # fmt: skip


class Trainer:
    """One run of one configuration.

    Raises:
        InputError: faces with other landmarks than the configuration's layout.

    Args:
        config: everything that defines the run.
        data: the faces.
        folder: where `checkpoint.pt`, `best.pt` and `log.csv` go.
        device: where to train.
        initial: state dict to start from, e.g. an embedded model's, to fine-tune it; random if None.
        precision: torch.bfloat16 runs the network under autocast, torch.float32 does not.
        compile: compile the network; a minute at the start, up to twice the speed after.
    """

    def __init__(
        self,
        config: TrainConfig,
        data: TrainingData,
        folder: str | os.PathLike[str],
        *,
        device: torch.device | str | None = "cpu",
        initial: Mapping[str, Tensor] | None = None,
        precision: torch.dtype = torch.bfloat16,
        compile: bool = True,
    ) -> None:
        torch.manual_seed(config.seed)
        self.config = config
        self.layout: Layout = get_layout(config.layout)
        for faces in filter(None, (data.labelled, data.validation, data.large_pose)):
            if faces.landmarks.shape[1] != len(self.layout):
                expected = f"{len(self.layout)} landmarks of layout {config.layout}"
                raise InputError(f"data: expected {expected}, got {faces.landmarks.shape[1]}")
        self.device = choose_device(device)
        self.precision = precision
        self.data = data.to(self.device)
        self.folder = Path(folder)
        self.network = StackedHourglass(config.network)
        if initial is not None:
            self.network.load_state_dict(initial, strict=True)
        self.network = self.network.to(self.device).to(memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.network).requires_grad_(False).eval()
        self.forward: Callable[[Tensor], list[Tensor]] = self.network.forward_stacks
        if compile:
            self.forward = torch.compile(self.network.forward_stacks)
        self.optimiser = torch.optim.AdamW(_parameter_groups(self.network, config.weight_decay))
        self.generator = torch.Generator(self.device).manual_seed(config.seed)
        cell = config.network.crop_size / config.network.heatmap_size
        self.heatmap_to_crop = resize_matrix(cell).to(self.device)
        self.step = 0
        self.seconds = 0.0
        self.best = math.inf

    def run(self, *, progress: bool = True, checkpoint_seconds: float = 120.0) -> float:
        """Train to the last step and return the best validation NME in percent.

        A run that was stopped goes on from its last checkpoint, with the same random numbers.

        Raises:
            InputError: the folder holds a run of another configuration.
            WriteError: the folder cannot be written to.
        """
        make_folder(self.folder)
        self.resume()
        config = self.config
        started, saved = time.monotonic() - self.seconds, time.monotonic()
        sums: dict[str, Tensor] = {}
        bar = tqdm(
            total=config.steps, initial=self.step, unit="step", disable=not progress, dynamic_ncols=True
        )
        with bar, _open_log(self.folder / "log.csv", self.step) as write:
            while self.step < config.steps:
                for name, value in self.train_step().items():
                    sums[name] = sums[name] + value if name in sums else value
                bar.update()
                last = self.step == config.steps
                if self.step % config.validate_every and not last:
                    continue
                self.seconds = time.monotonic() - started
                row = self.report(sums)
                write(row)
                bar.set_postfix(val_nme=f"{row['val_nme']:.3f}", best=f"{self.best:.3f}")
                if row["val_nme"] <= self.best:
                    self.best = row["val_nme"]
                    self.save("best.pt", weights_only=True)
                if last or time.monotonic() - saved > checkpoint_seconds:
                    self.seconds, saved = time.monotonic() - started, time.monotonic()
                    self.save("checkpoint.pt")
        return self.best

    def report(self, sums: dict[str, Tensor]) -> dict[str, float]:
        """A row of the log: validation, and the mean losses since the last one, which starts anew."""
        count = (self.step - 1) % self.config.validate_every + 1
        losses = {name: float(value) / count for name, value in sums.items()}
        sums.clear()
        state = {
            "step": self.step,
            "faces": self.step * self.config.batch_size,
            "seconds": self.seconds,
            "learning_rate": self.learning_rate(),
        }
        return state | losses | self.validate()

    def learning_rate(self) -> float:
        """Linear warm-up, then half a cosine to zero."""
        config = self.config
        rising = max(1, round(config.warmup * config.steps))
        if self.step < rising:
            return config.learning_rate * (self.step + 1) / rising
        done = (self.step - rising) / max(1, config.steps - rising)
        return config.learning_rate * (1 + math.cos(math.pi * done)) / 2

    def train_step(self) -> dict[str, Tensor]:
        """One optimiser step; the loss and its terms, left on the device so that it need not wait."""
        config = self.config
        for group in self.optimiser.param_groups:
            group["lr"] = self.learning_rate()
        views, labelled = self.draw()
        self.network.train()
        with self.autocast():
            stacks = self.forward(views.crops.contiguous(memory_format=torch.channels_last))
        terms = self.losses([stack.float() for stack in stacks], views, labelled)
        loss = (
            terms["heatmap"]
            + config.coordinate_weight * terms["coordinate"]
            + config.siamese_weight * terms["siamese"]
            + config.siamese_coordinate_weight * terms["agreement"]
            + config.near_weight * terms["near"]
        )
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.network.parameters(), config.clip_norm)
        self.optimiser.step()
        self.step += 1
        self.average_weights()
        return {name: value.detach() for name, value in (terms | {"loss": loss}).items()}

    def draw(self) -> tuple[Views, int]:
        """A batch of views and how many of the faces, the first ones, have landmarks.

        With two views per face the batch is laid out as (2, faces, ...), flattened.
        """
        config, data = self.config, self.data
        faces = config.batch_size // config.views
        large = round(config.large_pose_share * faces) if data.large_pose is not None else 0
        bare = round(config.unlabelled_share * faces) if data.unlabelled is not None else 0
        pictures, landmarks = [], []
        for faces_of, count in (
            (data.labelled, faces - large - bare), (data.large_pose, large), (data.unlabelled, bare),
        ):  # fmt: skip
            if faces_of is None or count == 0:
                continue
            index = torch.randint(len(faces_of), (count,), generator=self.generator, device=self.device)
            drawn, points = faces_of.draw(index, self.device)
            pictures.append(drawn)
            if points.shape[1] == 0:  # unlabelled: placeholders that no loss reads
                points = points.new_zeros(count, len(self.layout), 2)
            landmarks.append(points)
        flips = torch.rand(faces, generator=self.generator, device=self.device) < config.augment.flip
        rules = (config.network.crop_size, self.layout, config.lean, config.augment, self.generator)
        if self.compares_near_views():
            views = near_views(
                torch.cat(pictures), torch.cat(landmarks), flips, *rules, reach=config.near_reach
            )
        else:
            views = random_views(
                torch.cat(pictures).repeat(config.views, 1, 1, 1),
                torch.cat(landmarks).repeat(config.views, 1, 1),
                flips.repeat(config.views),  # both views of a face share its mirror
                *rules,
            )
        return views, faces - bare

    def compares_near_views(self) -> bool:
        """Whether the two views of this step are the same but for a small shift."""
        return self.config.near_every > 0 and self.step % self.config.near_every == 0

    def losses(self, stacks: list[Tensor], views: Views, labelled: int) -> dict[str, Tensor]:
        """The terms, each summed over the stacks."""
        config = self.config
        size = config.network.heatmap_size
        crop_to_heatmap = torch.linalg.inv(self.heatmap_to_crop)
        points = transform_points(crop_to_heatmap, views.landmarks)
        chosen = torch.arange(len(points), device=self.device) % (len(points) // config.views) < labelled
        points = points[chosen]
        target = encode_heatmaps(points, (size, size), config.sigma, rounded=config.rounded)
        if config.views == 2:
            source_to_first, source_to_second = views.source_to_crop.chunk(2)
            first_to_second = (
                crop_to_heatmap @ source_to_second @ torch.linalg.inv(source_to_first) @ self.heatmap_to_crop
            )
        zero = target.new_zeros(())
        terms = {"heatmap": zero, "coordinate": zero, "siamese": zero, "agreement": zero, "near": zero}
        for stack in stacks:
            terms["heatmap"] = terms["heatmap"] + heatmap_loss(stack[chosen], target)
            if config.coordinate_weight > 0:
                terms["coordinate"] = terms["coordinate"] + coordinate_loss(
                    stack[chosen], points, config.window, config.temperature
                )
            if config.views == 1:
                continue
            first, second = stack.chunk(2)
            decoder = (config.window, config.temperature)
            if self.compares_near_views():
                terms["near"] = terms["near"] + near_loss(first, second, first_to_second, *decoder)
                continue
            terms["siamese"] = terms["siamese"] + siamese_loss(first, second, first_to_second)
            if config.siamese_coordinate_weight > 0:
                terms["agreement"] = terms["agreement"] + siamese_coordinate_loss(
                    first, second, first_to_second, *decoder
                )
        return terms

    @torch.no_grad()
    def average_weights(self) -> None:
        """Move the averaged weights and batch-norm statistics towards the network's."""
        decay = min(self.config.ema_decay, (1 + self.step) / (10 + self.step))
        new = self.network.state_dict()
        for name, value in self.average.state_dict().items():
            if value.dtype.is_floating_point:
                value.lerp_(new[name], 1 - decay)
            else:
                value.copy_(new[name])

    @torch.inference_mode()
    def validate(self) -> dict[str, float]:
        """NME and mean signed error of the averaged weights, in percent of the data's normaliser."""
        faces, config = self.data.validation, self.config
        points, _ = predict(self.average, faces.pictures, config, autocast=self.autocast)
        predicted = points.numpy()
        truth = faces.landmarks.cpu().numpy()
        scale = normaliser(truth, self.data.normaliser, self.layout)
        x, y = signed_error(predicted, truth, scale)
        return {"val_nme": float(np.mean(nme(predicted, truth, scale))), "val_x": float(x), "val_y": float(y)}

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self.precision == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.precision)

    def save(self, name: str, *, weights_only: bool = False) -> None:
        """Write a file of the run's folder in one move, so that no kill leaves half of one."""
        state: dict[str, Any] = {
            "config": dataclasses.asdict(self.config),
            "step": self.step,
            "best": self.best,
            "average": self.average.state_dict(),
        }
        if not weights_only:
            state |= {
                "network": self.network.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "generator": self.generator.get_state(),
                "seconds": self.seconds,
            }
        with replacing(self.folder / name) as temporary:
            torch.save(state, temporary)

    def resume(self) -> None:
        """Load the folder's checkpoint, if it has one.

        Raises:
            InputError: it belongs to another configuration.
        """
        path = self.folder / "checkpoint.pt"
        if not path.exists():
            return
        state = torch.load(path, map_location=self.device, weights_only=True)
        if restore_config(state["config"]) != self.config:
            raise InputError(
                f"{path}: expected a checkpoint of this configuration, got one of another; "
                "choose an empty folder or the same settings"
            )
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.generator.set_state(state["generator"].cpu())
        self.step, self.best, self.seconds = state["step"], state["best"], state["seconds"]
        logger.info("resumed %s at step %d, best %.3f %%", path, self.step, self.best)


@torch.inference_mode()
def predict(
    network: nn.Module,
    crops: Tensor,
    config: TrainConfig,
    *,
    autocast: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
    batch_size: int = 32,
) -> tuple[Tensor, Tensor]:
    """Landmarks (M, K, 2), in crop pixels, and scores (M, K) of uint8 crops (M, 3, crop_size, crop_size)."""
    heatmap_to_crop = resize_matrix(config.network.crop_size / config.network.heatmap_size)
    points, scores = [], []
    for batch in torch.split(crops, batch_size):
        pixels = (batch.float() / 255).contiguous(memory_format=torch.channels_last)
        with autocast():
            heatmaps = network(pixels)
        cells, peaks = decode_heatmaps(heatmaps, window=config.window, temperature=config.temperature)
        points.append(transform_points(heatmap_to_crop.to(cells.device), cells).cpu())
        scores.append(peaks.cpu())
    return torch.cat(points), torch.cat(scores)


def _parameter_groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay for convolution weights, none for biases and norms."""
    decayed = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


@contextlib.contextmanager
def _open_log(path: Path, step: int) -> Iterator[Callable[[dict[str, float]], None]]:
    """Append rows to the run's log, after dropping those later than the step we resume from."""
    rows: list[dict[str, str]] = []
    if path.exists() and step > 0:
        with path.open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if int(row["step"]) <= step]
    with path.open("w", newline="", buffering=1) as file:
        writer = csv.DictWriter(file, LOG_FIELDS)
        writer.writeheader()
        writer.writerows(rows)
        yield lambda row: writer.writerow(
            {name: value if isinstance(value, int) else f"{value:.6g}" for name, value in row.items()}
        )
