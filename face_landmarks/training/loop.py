"""The training loop: resumable, logged, validated, the same on CPU and CUDA."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import logging
import math
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from face_landmarks._system.compiling import can_compile, compiled
from face_landmarks._system.devices import choose_device
from face_landmarks._system.files import make_folder
from face_landmarks._system.locks import only_run
from face_landmarks._system.torch_state import own_types
from face_landmarks.benchmarks.metrics import nme, normaliser, signed_error
from face_landmarks.errors import InputError, TrainingError
from face_landmarks.geometry import resize_matrix, transform_points
from face_landmarks.heatmap import decode_heatmaps
from face_landmarks.layouts import Layout, get_layout
from face_landmarks.models.hourglass import StackedHourglass, random_network
from face_landmarks.models.weights import LandmarkModel
from face_landmarks.training.augment import Views, near_views, random_views
from face_landmarks.training.config import TrainConfig
from face_landmarks.training.data import TrainingData
from face_landmarks.training.losses import loss_terms
from face_landmarks.training.runs import (
    BEST,
    CHECKPOINT,
    check_fingerprint,
    fingerprint,
    load_checkpoint,
    open_log,
    save_state,
)
from face_landmarks.training.teacher import Teacher

logger = logging.getLogger(__name__)


class Batch(NamedTuple):
    """What one step trains on.

    Attributes:
        views: V views of each of F faces, all first views first.
        labelled: how many of the F faces, the first ones, have landmarks.
        pictures: (F, 3, S, S) uint8 that the views were cut from.
    """

    views: Views
    labelled: int
    pictures: Tensor


class Trainer:
    """One run of one configuration.

    Args:
        config: the settings of the run.
        data: the faces.
        folder: where `checkpoint.pt`, `best.pt` and `log.csv` go.
        device: where to train.
        initial: state dict to start from, e.g. an embedded model's, to fine-tune it; random if None. It may
            lack the blocks of a wider waist, which start as identities.
        teacher: a model whose heatmaps and landmarks are learnt; needed by the teacher's weights in `config`.
        precision: torch.bfloat16 runs the network under autocast, torch.float32 does not.
        compile: compile the network: takes a minute at the start, and is up to twice as fast afterwards.

    Raises:
        InputError: faces with other landmarks than the configuration's layout, initial weights of another
            network, or a teacher, or a set of faces, that no term of the loss uses.
    """

    def __init__(
        self,
        config: TrainConfig,
        data: TrainingData,
        folder: str | os.PathLike[str],
        *,
        device: torch.device | str | None = "cpu",
        initial: Mapping[str, Tensor] | None = None,
        teacher: LandmarkModel | None = None,
        precision: torch.dtype = torch.bfloat16,
        compile: bool = True,
    ) -> None:
        torch.manual_seed(config.seed)
        self.config = config
        self.layout: Layout = get_layout(config.layout)
        data.check(config)
        if config.taught != (teacher is not None):
            expected = "a model, as a weight is" if config.taught else "None, or a weight"
            weights = "teacher_weight, teacher_coordinate_weight"
            raise InputError(f"teacher: expected {expected} above 0: {weights}")
        self.device = choose_device(device)
        self.precision = precision
        self.data = data.to(self.device)
        self.folder = Path(folder)
        taught_by = None if teacher is None else teacher.network.state_dict()
        self.fingerprint = fingerprint(data, initial, taught_by, precision)
        self.network = random_network(config.network)
        if initial is not None:
            _fill(self.network, initial)
        self.network = self.network.to(self.device).to(memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.network).requires_grad_(False).eval()
        compile = compile and can_compile(self.device)
        stacks = self.network.forward_stacks
        self.forward: Callable[[Tensor], list[Tensor]] = compiled(stacks) if compile else stacks
        self.teacher = None if teacher is None else Teacher(teacher, config, self.device, compile=compile)
        self.optimiser = torch.optim.AdamW(_parameter_groups(self.network, config.weight_decay))
        self.generator = torch.Generator(self.device).manual_seed(config.seed)
        cell = config.network.crop_size / config.network.heatmap_size
        self.heatmap_to_crop = resize_matrix(cell).to(self.device)
        self.step = 0
        self.seconds = 0.0
        self.best = math.inf

    def run(self, *, progress: bool = True, checkpoint_seconds: float = 120.0) -> float:
        """Train to the last step and return the best validation NME in percent.

        An interrupted run continues from its last checkpoint, with the same random numbers.

        Raises:
            InputError: the folder holds a run of another configuration, on other data, or from other weights.
            WeightsFormatError: its checkpoint is damaged.
            TrainingError: the loss or the predictions are no longer finite numbers.
            WriteError: the folder cannot be written to, or another run is writing to it.
        """
        make_folder(self.folder)
        with only_run(self.folder), own_types(self.device):
            self.resume()
            self._run(progress, checkpoint_seconds)
        return self.best

    def _run(self, progress: bool, checkpoint_seconds: float) -> None:
        """Train from the current step to the last."""
        config = self.config
        started, saved = time.monotonic() - self.seconds, time.monotonic()
        sums: dict[str, Tensor] = {}
        counts: Counter[str] = Counter()
        bar = tqdm(
            total=config.steps, initial=self.step, unit="step", disable=not progress, dynamic_ncols=True
        )
        with bar, open_log(self.folder, self.step) as write:
            while self.step < config.steps:
                terms = self.train_step()
                counts.update(terms.keys())
                for name, value in terms.items():
                    sums[name] = sums[name] + value if name in sums else value
                bar.update()
                last = self.step == config.steps
                if self.step % config.validate_every and not last:
                    continue
                self.seconds = time.monotonic() - started
                row = self.report({name: float(value) / counts[name] for name, value in sums.items()})
                sums.clear()
                counts.clear()
                write(row)
                bar.set_postfix(val_nme=f"{row['val_nme']:.3f}", best=f"{self.best:.3f}")
                if row["val_nme"] <= self.best:
                    self.best = row["val_nme"]
                    self.save(BEST, weights_only=True)
                if last or time.monotonic() - saved > checkpoint_seconds:
                    self.seconds, saved = time.monotonic() - started, time.monotonic()
                    self.save(CHECKPOINT)

    def report(self, losses: dict[str, float]) -> dict[str, float]:
        """A row of the log: the mean of each term over the steps that had it, and a validation.

        Raises:
            TrainingError: a term or a prediction is not finite.
        """
        if infinite := [f"{name} {value}" for name, value in losses.items() if not math.isfinite(value)]:
            raise self.diverged(f"finite losses, got {', '.join(infinite)}")
        state = {
            "step": self.step,
            "faces": self.step * self.config.batch_size,
            "seconds": self.seconds,
            "learning_rate": self.learning_rate(),
        }
        return state | losses | self.validate()

    def diverged(self, problem: str) -> TrainingError:
        """The error of a run whose numbers are no longer finite."""
        return TrainingError(
            f"{self.folder}: step {self.step}: expected {problem}: the run has diverged; its files are those "
            "of the validation before. Train again in an empty folder with a smaller learning_rate"
        )

    def learning_rate(self) -> float:
        """Linear warm-up, then half a cosine to zero."""
        config = self.config
        rising = max(1, round(config.warmup * config.steps))
        if self.step < rising:
            return config.learning_rate * (self.step + 1) / rising
        done = (self.step - rising) / max(1, config.steps - rising)
        return config.learning_rate * (1 + math.cos(math.pi * done)) / 2

    def train_step(self) -> dict[str, Tensor]:
        """One optimiser step; the loss, its terms and the gradient's norm, left on the device."""
        config = self.config
        for group in self.optimiser.param_groups:
            group["lr"] = self.learning_rate()
        batch = self.draw()
        self.network.train()
        with self.autocast():
            stacks = self.forward(batch.views.crops.contiguous(memory_format=torch.channels_last))
        taught = None
        if self.teacher is not None:
            taught = self.teacher(batch.pictures, batch.views.source_to_crop, self.autocast)
        terms = loss_terms(
            [stack.float() for stack in stacks],
            batch.views,
            batch.labelled,
            config,
            self.heatmap_to_crop,
            near=self.compares_near_views(),
            taught=taught,
        )
        weights = {
            "heatmap": 1.0,
            "coordinate": config.coordinate_weight,
            "siamese": config.siamese_weight,
            "agreement": config.siamese_coordinate_weight,
            "near": config.near_weight,
            "teacher": config.teacher_weight,
            "teacher_coordinate": config.teacher_coordinate_weight,
        }
        loss = torch.stack([weights[name] * value for name, value in terms.items()]).sum()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        gradient = nn.utils.clip_grad_norm_(self.network.parameters(), config.clip_norm)
        self.optimiser.step()
        self.step += 1
        self.average_weights()
        terms |= {"loss": loss, "gradient": gradient}
        return {name: value.detach() for name, value in terms.items()}

    def draw(self) -> Batch:
        """Faces drawn from each set by its share, and random views of them."""
        config, data = self.config, self.data
        sets = (data.labelled, data.large_pose, data.unlabelled)
        counts = config.counts(large_pose=sets[1] is not None, unlabelled=sets[2] is not None)
        faces, bare = sum(counts), counts[2]
        pictures, landmarks = [], []
        for faces_of, count in zip(sets, counts, strict=True):
            if faces_of is None or count == 0:
                continue
            index = torch.randint(
                len(faces_of), (count,), generator=self.generator, dtype=torch.int64, device=self.device
            )
            drawn, points = faces_of.draw(index, self.device)
            pictures.append(drawn)
            if points.shape[1] == 0:  # unlabelled: placeholders that no loss reads
                points = points.new_zeros(count, len(self.layout), 2)
            landmarks.append(points)
        draws = torch.rand(faces, generator=self.generator, dtype=torch.float32, device=self.device)
        flips = draws < config.augment.flip
        drawn, points = torch.cat(pictures), torch.cat(landmarks)
        size, scale = config.network.crop_size, config.source_size / config.network.crop_size
        rules = (size, self.layout, config.lean, config.augment, self.generator)
        if self.compares_near_views():
            views = near_views(drawn, points, flips, *rules, reach=config.near_reach, source_scale=scale)
        else:
            views = random_views(
                drawn.repeat(config.views, 1, 1, 1),
                points.repeat(config.views, 1, 1),
                flips.repeat(config.views),  # both views of a face share its mirror
                *rules,
                source_scale=scale,
            )
        return Batch(views, faces - bare, drawn)

    def compares_near_views(self) -> bool:
        """Whether the two views of this step differ only by a small shift."""
        return self.config.near_every > 0 and self.step % self.config.near_every == 0

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
        """NME and mean signed error of the averaged weights, in percent of the data's normaliser.

        Raises:
            TrainingError: a prediction is not finite.
        """
        faces, config = self.data.validation, self.config
        points, _ = predict(self.average, faces.pictures, config, autocast=self.autocast)
        predicted = points.numpy()
        if missing := int((~np.isfinite(predicted)).any(axis=(1, 2)).sum()):
            raise self.diverged(f"finite predictions, got others for {missing} of {len(predicted)} faces")
        truth = faces.landmarks.cpu().numpy()
        scale = normaliser(truth, self.data.normaliser, self.layout)
        x, y = signed_error(predicted, truth, scale)
        return {"val_nme": float(np.mean(nme(predicted, truth, scale))), "val_x": float(x), "val_y": float(y)}

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self.precision == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.precision)

    def save(self, name: str, *, weights_only: bool = False) -> None:
        """Write a file of the run's folder in one step, so that an interrupted run leaves no damaged one."""
        state: dict[str, Any] = {
            "config": dataclasses.asdict(self.config),
            "fingerprint": self.fingerprint,
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
        save_state(self.folder / name, state)

    def resume(self) -> None:
        """Load the folder's checkpoint, if it has one.

        Raises:
            InputError: it is of another configuration, on other data, or from other weights.
            WeightsFormatError: it is damaged.
        """
        state = load_checkpoint(self.folder, self.config, self.device)
        if state is None:
            return
        path = self.folder / CHECKPOINT
        check_fingerprint(path, state.get("fingerprint"), self.fingerprint)
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


def _fill(network: StackedHourglass, initial: Mapping[str, Tensor]) -> None:
    """Load initial weights; blocks of the waist that they lack stay as they are.

    Raises:
        InputError: they are of another network.
    """
    own = {name: value for name, value in network.state_dict().items() if ".waist." in name}
    try:
        network.load_state_dict({**own, **initial}, strict=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"initial: expected weights of {network.config}, got others: {reason}") from error
