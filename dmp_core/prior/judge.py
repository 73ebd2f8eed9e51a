"""The judge of a prior: a small network that recognises the captions' traits in an image, trained on renders.

Its features also serve to compare images (`distances.py`): the networks that others use
for that, Inception and LPIPS', are trained on photographs, and must be downloaded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from dmp_core.images import image_to_vae
from dmp_core.prior.config import JudgeConfig
from dmp_core.prior.data import Renders
from dmp_core.prior.loop import fit
from dmp_core.prior.traits import COLOURED, TRAITS, UNSAID
from dmp_core.progress import Progress, silent
from dmp_core.render.vocabulary import class_id

Images = NDArray[np.uint8]
"""(N, H, W, 3) RGB."""
Labels = Mapping[str, NDArray[np.int64]]
"""(N,) by trait, UNSAID if the caption does not state it."""

_SHIFT = 4
"""Largest random shift of training images, pixels."""


class Judge(nn.Module):
    """Four levels of convolutions; features of the whole image for the place, attention to one spot for a colour."""

    def __init__(self, config: JudgeConfig) -> None:
        super().__init__()
        widths = [3, *config.widths]
        self.levels = nn.ModuleList(map(_level, widths[:-1], widths[1:], (False, True, True, True)))
        self.features = nn.Sequential(nn.Linear(2 * widths[-1], config.features), nn.SiLU())
        self.place = nn.Linear(config.features, len(TRAITS["place"]))
        self.colours = nn.ModuleDict(
            {name: _Glance(widths[2] + widths[4], config.features, len(TRAITS[name])) for name in COLOURED}
        )

    def maps(self, images: Tensor) -> list[Tensor]:
        """Every level's output for images (B, 3, H, W) in [-1, 1]: (B, C, H / 2, W / 2) and so on."""
        found = [images]
        for level in self.levels:
            found.append(level(found[-1]))
        return found[1:]

    def embed(self, images: Tensor) -> Tensor:
        """Features (B, F) of images (B, 3, H, W) in [-1, 1]."""
        return self._features(self.maps(images)[-1])

    def forward(self, images: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Scores (B, values) by trait; log weights (B, H / 4 · W / 4) of the spot of each colour."""
        maps = self.maps(images)
        features = self._features(maps[-1])
        fine = torch.cat([maps[1], F.interpolate(maps[3], maps[1].shape[-2:])], dim=1)
        seen = F.avg_pool2d(images, 4)
        glances = {name: glance(fine, seen, features) for name, glance in self.colours.items()}
        scores = {"place": self.place(features)} | {name: glance[0] for name, glance in glances.items()}
        return scores, {name: glance[1] for name, glance in glances.items()}

    def _features(self, last: Tensor) -> Tensor:
        places = last.flatten(2)
        features: Tensor = self.features(torch.cat([places.mean(-1), places.amax(-1)], dim=1))
        return features


class _Glance(nn.Module):
    """Locates the object, takes the image's mean colour there, and classifies it given the whole image."""

    def __init__(self, channels: int, features: int, values: int) -> None:
        super().__init__()
        self.where = nn.Sequential(nn.Conv2d(channels, 32, 1), nn.SiLU(), nn.Conv2d(32, 1, 1))
        self.name = nn.Sequential(nn.Linear(6 + features, 64), nn.SiLU(), nn.Linear(64, values))

    def forward(self, maps: Tensor, colours: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        weights = self.where(maps).flatten(2).log_softmax(-1)  # (B, 1, places)
        spot = (weights.exp() * colours.flatten(2)).sum(-1)
        return self.name(torch.cat([spot, colours.mean((2, 3)), features], dim=1)), weights[:, 0]


def _level(inputs: int, outputs: int, deep: bool) -> nn.Module:
    # One group: a norm over single channels would remove absolute colour.
    layers = [nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), nn.GroupNorm(1, outputs), nn.SiLU()]
    if deep:
        layers += [nn.Conv2d(outputs, outputs, 3, padding=1), nn.GroupNorm(1, outputs), nn.SiLU()]
    return nn.Sequential(*layers)


def train_judge(
    config: JudgeConfig, renders: Renders, labels: Labels, workers: int = 1, progress: Progress = silent
) -> Judge:
    """Train from random weights on renders and their labels; the same arguments give the same judge."""
    torch.manual_seed(config.seed)
    judge = Judge(config).to(memory_format=torch.channels_last)

    def loss_at(step: int, share: slice) -> dict[str, Tensor]:
        chosen = np.random.default_rng([config.seed, step]).integers(len(renders), size=config.batch_size)[share]
        drawn = _vary(_with_masks(renders, chosen), np.random.default_rng([config.seed, step, share.start or 0]))
        scores, weights = judge(drawn[:, :3].contiguous(memory_format=torch.channels_last))
        masks = dict(zip(COLOURED, F.avg_pool2d(drawn[:, 3:], 4).flatten(2).unbind(1), strict=True))
        # Summed, since a share may contain no image whose caption states the trait.
        losses = {
            name: F.cross_entropy(
                scores[name], torch.from_numpy(labels[name][chosen]), ignore_index=UNSAID, reduction="sum"
            )
            for name in TRAITS
        }
        # The renders' labels locate the object: the network need not learn that from colours.
        strayed = [
            -(mask / mask.sum(1, keepdim=True).clamp_min(1e-6) * weights[name]).sum() for name, mask in masks.items()
        ]
        total = torch.stack([*losses.values(), *strayed]).sum()
        return {name: value / len(chosen) for name, value in {**losses, "loss": total}.items()}

    with TemporaryDirectory() as work:
        averaged = fit({"judge": judge}, loss_at, config, Path(work), progress, workers)
    judge.load_state_dict(averaged["judge"])
    return judge.eval().requires_grad_(False)


def _with_masks(renders: Renders, chosen: NDArray[np.int64]) -> Tensor:
    """Images in [-1, 1] with a mask of each coloured object as further channels, (B, 3 + objects, H, W)."""
    assert renders.segmentation is not None
    ids = torch.from_numpy(renders.segmentation[chosen])
    masks = torch.stack([ids == class_id(thing) for thing in COLOURED.values()], dim=1)
    return torch.cat([image_to_vae(renders.rgb[chosen]), masks.float()], dim=1)


def _vary(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Mirrored and shifted at random, per image."""
    side = images.shape[-1]
    padded = F.pad(images, (_SHIFT,) * 4, mode="reflect")
    moved = []
    for image in padded:
        (y, x), mirror = rng.integers(2 * _SHIFT + 1, size=2), rng.random() < 0.5
        cut = image[:, y : y + side, x : x + side]
        moved.append(cut.flip(-1) if mirror else cut)
    return torch.stack(moved)


@torch.no_grad()
def embed(judge: Judge, images: Images) -> NDArray[np.float64]:
    """The judge's features (N, F)."""
    return torch.cat([judge.embed(batch) for batch in batches(images)]).double().numpy()


@torch.no_grad()
def accuracies(judge: Judge, images: Images, labels: Labels) -> dict[str, float | None]:
    """Share of images in which the judge recognises what the caption states, by trait; None if no caption states it."""
    predictions = [{name: scores.argmax(1) for name, scores in judge(batch)[0].items()} for batch in batches(images)]
    result: dict[str, float | None] = {}
    for name in TRAITS:
        right = torch.cat([scores[name] for scores in predictions]).numpy() == labels[name]
        said = labels[name] != UNSAID
        result[name] = float(right[said].mean()) if said.any() else None
    return result


def batches(images: Images, size: int = 64) -> Iterator[Tensor]:
    """Images as the judge's input, (B, 3, H, W) in [-1, 1]."""
    for start in range(0, len(images), size):
        yield image_to_vae(images[start : start + size])
