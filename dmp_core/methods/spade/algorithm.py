"""SPADE: a generator whose normalisation layers are scaled and shifted by the image, pixel by pixel.

Park et al., "Semantic Image Synthesis with Spatially-Adaptive Normalization", CVPR 2019.

What DMP's authors did: they compare with SPADE as a GAN-based image translation method, "trained from scratch
using the training set (i.e., 10K labeled bedroom images)" (§4.1). The paper gives no settings for it.

What is done here: SPADE's published networks and losses, with the RGB image where SPADE has a one-hot label map,
and the label image as what is generated. Hence three departures. (1) The image is resized to each level's size by
averaging; the published nearest neighbour suits label maps but aliases photographs. (2) There is no image encoder
and no KL term: the mapping is one to one, so there is no style to sample. (3) The perceptual term is off by
default, since its network, VGG-19 trained on ImageNet, has to be downloaded. Defaults: generator, discriminators,
losses, optimiser and learning rates as published; 62,500 steps of 32 are the 200 epochs published for ADE20K, for
10K images.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dmp_core.errors import InputError
from dmp_core.methods.shared.adversarial import (
    MODEL,
    AdversarialTrainer,
    MultiScaleDiscriminator,
    Translator,
    adam,
    build_networks,
    check_size,
    frozen,
    init_small,
    init_spectral,
    run,
)
from dmp_core.methods.spade.settings import SpadeConfig
from dmp_core.progress import Progress, silent
from dmp_core.training.pairs import ImagePairs

_MOST = 16
"""Channels at the coarsest levels, in units of `channels`."""


def fit_spade(
    pairs: ImagePairs, config: SpadeConfig, work: Path, *, device: str = "cpu", progress: Progress = silent
) -> None:
    """Train on `pairs`, or resume a killed run, which ends with the same weights.

    `work` gets checkpoints, `loss.csv` (the generator's loss) and, once finished, the model in `work / "model"`.
    Raises InputError when the images' size does not fit, when `work` holds another run, or on a loss that is
    not finite.
    """
    check_size(pairs, 2**config.upsamplings)
    trainer = _SpadeTrainer(config, pairs, device)
    run(trainer, SpadeModel.method, work, progress)
    trainer.model.save(work / MODEL)


class SpadeModel(Translator):
    """A fitted generator: images (B, 3, H, W) to label images (B, 3, H, W), both in [-1, 1]."""

    method = "spade"
    settings = SpadeConfig

    def __init__(self, config: SpadeConfig) -> None:
        super().__init__(config, 2**config.upsamplings)
        self.generator = SpadeGenerator(config)

    def translate(self, images: Tensor) -> Tensor:
        translated: Tensor = self.generator(images)
        return translated


# ---------------------------------------------------------------------------------- generator
class SpadeGenerator(nn.Module):
    """From the image's coarsest copy to the label image at full size; every block sees the image again."""

    def __init__(self, config: SpadeConfig) -> None:
        super().__init__()
        coarsest = config.upsamplings
        # One block per level and, as published at 256², a second one at the level after the coarsest.
        self.levels = (coarsest, coarsest - 1, *range(coarsest - 1, -1, -1))
        widths = [config.channels * min(_MOST, 2**level) for level in (coarsest, *self.levels)]
        self.first = init_small(nn.Conv2d(3, widths[0], 3, padding=1))
        self.blocks = nn.ModuleList(
            SpadeBlock(before, after, config.hidden_channels) for before, after in pairwise(widths)
        )
        self.last = init_small(nn.Conv2d(widths[-1], 3, 3, padding=1))

    def forward(self, images: Tensor) -> Tensor:
        # Published: nearest neighbour; averages do not alias.
        copies = [F.avg_pool2d(images, 2**level) for level in range(self.levels[0] + 1)]
        values = self.first(copies[-1])
        for block, level in zip(self.blocks, self.levels, strict=True):
            if values.shape[-2:] != copies[level].shape[-2:]:
                values = F.interpolate(values, scale_factor=2, mode="nearest")
            values = block(values, copies[level])
        return torch.tanh(self.last(F.leaky_relu(values, 0.2)))


class SpadeBlock(nn.Module):
    """Residual block with normalisation by the image; its shortcut is learnt where the width changes."""

    def __init__(self, before: int, after: int, hidden: int) -> None:
        super().__init__()
        middle = min(before, after)
        self.norms = nn.ModuleList([SpadeNorm(before, hidden), SpadeNorm(middle, hidden)])
        self.convs = nn.ModuleList(
            [init_spectral(nn.Conv2d(*widths, 3, padding=1)) for widths in ((before, middle), (middle, after))]
        )
        self.shortcut_norm = SpadeNorm(before, hidden) if before != after else None
        self.shortcut = init_spectral(nn.Conv2d(before, after, 1, bias=False)) if before != after else None

    def forward(self, values: Tensor, image: Tensor) -> Tensor:
        change = values
        for norm, conv in zip(self.norms, self.convs, strict=True):
            change = conv(F.leaky_relu(norm(change, image), 0.2))
        if self.shortcut is not None and self.shortcut_norm is not None:
            values = self.shortcut(self.shortcut_norm(values, image))
        return values + change


class SpadeNorm(nn.Module):
    """Batch normalisation, then scale 1 + γ and shift β of each pixel, both computed from the image there (eq. 1)."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.read = init_small(nn.Conv2d(3, hidden, 3, padding=1))
        self.gamma_beta = init_small(nn.Conv2d(hidden, 2 * channels, 3, padding=1))

    def forward(self, values: Tensor, image: Tensor) -> Tensor:
        gamma, beta = self.gamma_beta(F.relu(self.read(image))).chunk(2, 1)
        shifted: Tensor = self.norm(values) * (1 + gamma) + beta
        return shifted


# ----------------------------------------------------------------------------------- training
class _SpadeTrainer(AdversarialTrainer):
    config: SpadeConfig

    def __init__(self, config: SpadeConfig, pairs: ImagePairs, device: str) -> None:
        super().__init__(config, pairs, device)
        self.networks = build_networks(
            config.seed,
            lambda: {
                "model": SpadeModel(config),
                "discriminator": MultiScaleDiscriminator(
                    config.discriminator_scales,
                    6,
                    config.discriminator_channels,
                    config.discriminator_layers,
                    normalise=True,
                ),
            },
        ).to(self.device)
        model, self.discriminator = self.networks["model"], self.networks["discriminator"]
        assert isinstance(model, SpadeModel)
        self.model = model
        betas = (0.0, 0.9)
        self.optimizers = {
            "generator": adam(list(model.parameters()), config.generator_learning_rate, betas),
            "discriminator": adam(list(self.discriminator.parameters()), config.discriminator_learning_rate, betas),
        }
        self.perceptual = VggFeatures(config.perceptual_weights).to(self.device) if config.perceptual_weights else None

    def step(self, step: int) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        x, y = self.batch(step)
        with self.autocast():
            fake = self.model.generator(x)
            with frozen(self.discriminator):
                terms = self._generator_terms(x, y, fake)
        loss = torch.stack(list(terms.values())).sum()
        norm = self.update("generator", loss)
        with self.autocast():
            terms["discriminator"] = self._discriminator_loss(x, y, fake.detach())
        self.update("discriminator", terms["discriminator"])
        return loss.detach(), norm, terms

    def _generator_terms(self, x: Tensor, y: Tensor, fake: Tensor) -> dict[str, Tensor]:
        judged = self._judge(x, fake, y)
        terms = {"adversarial": _mean([-logits[: len(x)].float().mean() for logits, _ in judged])}
        if self.config.feature_matching:
            terms["feature_matching"] = self.config.feature_matching * _mean([_matching(seen) for _, seen in judged])
        if self.perceptual is not None and self.config.perceptual:
            terms["perceptual"] = self.config.perceptual * self.perceptual.distance(fake, y)
        return terms

    def _discriminator_loss(self, x: Tensor, y: Tensor, fake: Tensor) -> Tensor:
        """Hinge: real patches should score above 1, generated ones below -1."""
        losses = []
        for logits, _ in self._judge(x, fake, y):
            generated, real = logits.float().chunk(2)
            losses.append(F.relu(1 + generated).mean() + F.relu(1 - real).mean())
        return _mean(losses)

    def _judge(self, x: Tensor, fake: Tensor, real: Tensor) -> list[tuple[Tensor, list[Tensor]]]:
        """Generated and real label images in one batch, each concatenated with its image."""
        judged: list[tuple[Tensor, list[Tensor]]] = self.discriminator(
            torch.cat([torch.cat([x, fake.float()], 1), torch.cat([x, real], 1)])
        )
        return judged


def _matching(features: list[Tensor]) -> Tensor:
    """Sum over layers of the mean distance between the discriminator's features of generated and real images."""
    halves = [seen.float().chunk(2) for seen in features]
    return torch.stack([F.l1_loss(generated, real.detach()) for generated, real in halves]).sum()


def _mean(values: list[Tensor]) -> Tensor:
    return torch.stack(values).mean()


class VggFeatures(nn.Module):
    """The perceptual distance: the distance of two images in five layers of a frozen VGG-19."""

    # The activations after the first convolution of each of VGG-19's five blocks.
    _LAYERS = {1: 1 / 32, 6: 1 / 16, 11: 1 / 8, 20: 1 / 4, 29: 1.0}
    mean: Tensor
    std: Tensor

    def __init__(self, weights: str | Path) -> None:
        """weights: a file with torchvision's VGG-19. Raises InputError when it contains none."""
        super().__init__()
        from torchvision.models.vgg import vgg19

        with torch.device("meta"):  # no memory, and no random numbers, for weights that are replaced
            self.features = vgg19(weights=None, init_weights=False).features[: max(self._LAYERS) + 1]
        try:
            state = torch.load(weights, map_location="cpu", weights_only=True)
            found = {name: state[f"features.{name}"] for name in self.features.state_dict()}
            self.features.load_state_dict(found, assign=True)
        except (OSError, KeyError, RuntimeError, TypeError) as error:
            raise InputError(
                f"perceptual_weights: {weights} does not hold torchvision's VGG-19 ({str(error).splitlines()[0]}); "
                "download vgg19-dcbb9e9d.pth, or set perceptual to 0"
            ) from None
        self.requires_grad_(False).eval()
        # ImageNet's mean and standard deviation, for values in [-1, 1].
        for name, values in {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}.items():
            scaled = torch.tensor(values).view(1, 3, 1, 1) * 2
            self.register_buffer(name, scaled - 1 if name == "mean" else scaled, persistent=False)

    def distance(self, generated: Tensor, real: Tensor) -> Tensor:
        """Weighted sum over layers of the mean absolute difference; both (B, 3, H, W) in [-1, 1]."""
        values = (torch.cat([generated.float(), real]) - self.mean) / self.std
        total = torch.zeros((), device=real.device)
        for number, layer in enumerate(self.features):
            values = layer(values)
            if number in self._LAYERS:
                seen, wanted = values.float().chunk(2)
                total = total + self._LAYERS[number] * F.l1_loss(seen, wanted)
        return total
