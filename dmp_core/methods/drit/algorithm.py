"""DRIT++: what an image shows, and how its domain looks, are encoded separately; translation swaps the latter.

Lee et al., "DRIT++: Diverse Image-to-Image Translation via Disentangled Representations", IJCV 2020; its
mode-seeking term is that of Mao et al., CVPR 2019.

What DMP's authors did: they compare with DRIT++ as a GAN-based image translation method, "trained from scratch
using the training set (i.e., 10K labeled bedroom images)" (§4.1). The paper gives no settings, and does not say
whether the method was given which label image belongs to which image; DRIT++ as published is not.

What is done here: domain X is the images, domain Y the label images. As published, each step draws from X and
from Y independently, so the pairing is never seen. An image is translated with the attribute vector 0, the mean
of the prior that attributes are drawn from and drawn to, so that inference is deterministic. The attribute is
joined to the content by concatenation, published for domains whose shapes agree. Weights, optimiser and widths
are the published ones. Departures: one domain discriminator per domain judges both kinds of generated images (with
an image's own attribute and with a random one); generators enlarge by nearest neighbour and convolution; images
are neither resized nor cropped. `paired_l1`, off by default, adds what DRIT++ lacks: the distance to the image's
own label.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dmp_core.methods.drit.settings import DritConfig
from dmp_core.methods.shared.adversarial import (
    MODEL,
    AdversarialTrainer,
    MultiScaleDiscriminator,
    Translator,
    adam,
    build_networks,
    check_size,
    frozen,
    run,
)
from dmp_core.progress import Progress, silent
from dmp_core.training.pairs import ImagePairs

_WIDEST = 4
"""Channels of the content, in units of `channels`."""

_HALVINGS = 2
"""Of the content encoder."""

_CONTENT_MAX_NORM = 5.0
"""Published bound on the gradient of the content discriminator."""

_EPSILON = 1e-5

_Layer = TypeVar("_Layer", nn.Conv2d, nn.Linear)


def fit_drit(
    pairs: ImagePairs, config: DritConfig, work: Path, *, device: str = "cpu", progress: Progress = silent
) -> None:
    """Train on the images and label images of `pairs`, or resume a killed run: the same weights.

    `work` gets checkpoints, `loss.csv` (the generators' loss) and, once finished, the model in `work / "model"`.
    Raises InputError when the images' size does not fit, when `work` holds another run, or on a loss that is
    not finite.
    """
    check_size(pairs, 2**_HALVINGS)
    trainer = _DritTrainer(config, pairs, device)
    run(trainer, DritModel.method, work, progress)
    trainer.model.save(work / MODEL)


class DritModel(Translator):
    """The part of a fitted DRIT++ that translates: images to label images, both (B, 3, H, W) in [-1, 1]."""

    method = "drit"
    settings = DritConfig

    def __init__(self, config: DritConfig) -> None:
        super().__init__(config, 2**_HALVINGS)
        self.content = ContentEncoder(config, _shared(config))
        self.generator = Generator(config, _shared(config))
        self.attributes = config.attributes

    def translate(self, images: Tensor) -> Tensor:
        translated: Tensor = self.generator(self.content(images), images.new_zeros(len(images), self.attributes))
        return translated


# ----------------------------------------------------------------------------------- networks
class ContentEncoder(nn.Module):
    """(B, 3, H, W) → content (B, 4·channels, H/4, W/4), the same space for both domains."""

    def __init__(self, config: DritConfig, shared: nn.Module) -> None:
        """shared: the last block, one object in both domains' encoders."""
        super().__init__()
        channels = config.channels
        layers: list[nn.Module] = [_conv(3, channels, 7), nn.LeakyReLU()]
        for power in range(_HALVINGS):
            before, after = channels * 2**power, channels * 2 ** (power + 1)
            layers += [_conv(before, after, 3, stride=2), nn.InstanceNorm2d(after), nn.ReLU()]
        layers += [_ResidualBlock(channels * _WIDEST) for _ in range(config.residual_blocks)]
        self.own, self.shared = nn.Sequential(*layers), shared

    def forward(self, images: Tensor) -> Tensor:
        content: Tensor = self.shared(self.own(images))
        return content


class AttributeEncoder(nn.Module):
    """(B, 3, H, W) → mean and log variance of the attribute, each (B, attributes)."""

    def __init__(self, config: DritConfig) -> None:
        super().__init__()
        channels, widest = config.channels, config.channels * _WIDEST
        layers: list[nn.Module] = [_conv(3, channels, 7), nn.ReLU()]
        for before, after in ((channels, channels * 2), (channels * 2, widest), (widest, widest)):
            layers += [_conv(before, after, 4, stride=2), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = _drawn(nn.Linear(widest, 2 * config.attributes))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.head(self.layers(images)).float().chunk(2, 1)
        return mean, log_variance


class Generator(nn.Module):
    """Content and attribute (B, attributes) → image (B, 3, H, W) in [-1, 1]; the attribute enters at every size."""

    def __init__(self, config: DritConfig, shared: nn.Module) -> None:
        """shared: the first block, one object in both domains' generators."""
        super().__init__()
        self.shared = shared
        widths = [config.channels * 2**power for power in range(_HALVINGS, -1, -1)]
        width = widths[0] + config.attributes
        stages: list[nn.Module] = [nn.Sequential(*(_ResidualBlock(width) for _ in range(config.residual_blocks)))]
        for after in widths[1:]:
            conv = _conv(width + config.attributes, after, 3)
            # Over all channels: instance normalisation would remove their weights, and so the colour.
            stages.append(nn.Sequential(nn.Upsample(scale_factor=2), conv, nn.GroupNorm(1, after), nn.ReLU()))
            width = after
        self.stages = nn.ModuleList(stages)
        self.last = _conv(width + config.attributes, 3, 1)

    def forward(self, content: Tensor, attribute: Tensor) -> Tensor:
        values = self.shared(content)
        for stage in self.stages:
            values = stage(_join(values, attribute))
        return torch.tanh(self.last(_join(values, attribute)).float())


class ContentDiscriminator(nn.Module):
    """Content → logits, positive for "from an image", negative for "from a label image"."""

    def __init__(self, config: DritConfig) -> None:
        super().__init__()
        width = config.channels * _WIDEST
        layers: list[nn.Module] = []
        for _ in range(3):
            layers += [_conv(width, width, 3, stride=2), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, _conv(width, 1, 1))

    def forward(self, content: Tensor) -> Tensor:
        # In full precision: oneDNN's bfloat16 weight gradient leaves taps unwritten that only see padding, as
        # those of a 3 × 3 kernel on 1 × 1 pixels do.
        with torch.autocast(content.device.type, enabled=False):
            logits: Tensor = self.layers(content.float())
        return logits


class _ResidualBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.change = nn.Sequential(
            _conv(width, width, 3),
            nn.InstanceNorm2d(width),
            nn.ReLU(),
            _conv(width, width, 3),
            nn.InstanceNorm2d(width),
        )

    def forward(self, values: Tensor) -> Tensor:
        changed: Tensor = values + self.change(values)
        return changed


def _shared(config: DritConfig) -> nn.Module:
    return _ResidualBlock(config.channels * _WIDEST)


def _conv(before: int, after: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    padding = (kernel - 1) // 2
    return _drawn(nn.Conv2d(before, after, kernel, stride, padding, padding_mode="reflect" if padding > 1 else "zeros"))


def _drawn(layer: _Layer) -> _Layer:
    nn.init.normal_(layer.weight, std=0.02)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def _join(values: Tensor, attribute: Tensor) -> Tensor:
    planes = attribute[:, :, None, None].expand(-1, -1, *values.shape[-2:])
    return torch.cat([values, planes.to(values.dtype)], 1)


# ----------------------------------------------------------------------------------- training
class _Pass(NamedTuple):
    """Outputs of one step. Keys are the domain of an image: "x" images, "y" label images."""

    content: dict[str, Tensor]
    mean: dict[str, Tensor]
    log_variance: dict[str, Tensor]
    translated: dict[str, Tensor]
    """The other domain's content with the domain's own attribute."""
    rebuilt: dict[str, Tensor]
    """The domain's own content and attribute."""
    random: dict[str, tuple[Tensor, Tensor]]
    """The other domain's content with the two random attributes of `drawn`."""
    drawn: tuple[Tensor, Tensor]


class _DritTrainer(AdversarialTrainer):
    config: DritConfig

    def __init__(self, config: DritConfig, pairs: ImagePairs, device: str) -> None:
        super().__init__(config, pairs, device)
        self.networks = build_networks(config.seed, lambda: _networks(config)).to(self.device)
        model = self.networks["model"]
        assert isinstance(model, DritModel)
        self.model = model
        self.content = {"x": model.content, "y": self.networks["content_y"]}
        self.generators = {"x": self.networks["generator_x"], "y": model.generator}
        self.attribute, self.discriminators = (
            {domain: self.networks[f"{part}_{domain}"] for domain in "xy"} for part in ("attribute", "discriminator")
        )
        self.content_discriminator = self.networks["content_discriminator"]
        sides = {
            "generator": [*self.content.values(), *self.attribute.values(), *self.generators.values()],
            "discriminator": list(self.discriminators.values()),
            "content discriminator": [self.content_discriminator],
        }
        rates = {"content discriminator": config.content_learning_rate}
        self.optimizers = {
            side: adam(_parameters(*modules), rates.get(side, config.learning_rate), (0.5, 0.999), config.weight_decay)
            for side, modules in sides.items()
        }

    def step(self, step: int) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        noise = self.noise(step)
        updates = self.config.content_updates
        for draw in range(step * updates, (step + 1) * updates):
            images = self._draw(draw)
            with torch.no_grad(), self.autocast():
                content = self._encode(images, noise)
            with self.autocast():
                content_loss = self._content_discriminator_loss(content)
            self.update("content discriminator", content_loss, _CONTENT_MAX_NORM)
        with self.autocast():
            made = self._generate(images, noise)
            terms = self._terms(images, made, noise)
        loss = torch.stack(list(terms.values())).sum()
        norm = self.update("generator", loss)
        with self.autocast():
            domain_loss = self._discriminator_loss(images, made)
        self.update("discriminator", domain_loss)
        return loss.detach(), norm, {**terms, "content_discriminator": content_loss, "discriminator": domain_loss}

    # -------------------------------------------------------------------------------- forward
    def _draw(self, draw: int) -> dict[str, Tensor]:
        """Images and label images, drawn independently, unless `paired_l1` needs pairs."""
        x, y = self.batch(draw)
        if not self.config.paired_l1:
            _, y = self.batch(draw, _other_order(self.config.seed))
        return {"x": x, "y": y}

    def _random(self, like: Tensor, noise: torch.Generator) -> Tensor:
        return torch.randn(like.shape, generator=noise).to(self.device)

    def _encode(self, images: dict[str, Tensor], noise: torch.Generator) -> dict[str, Tensor]:
        """Contents, with the noise that only training adds."""
        contents = {domain: self.content[domain](image).float() for domain, image in images.items()}
        scale = self.config.content_noise
        return {domain: content + scale * self._random(content, noise) for domain, content in contents.items()}

    def _generate(self, images: dict[str, Tensor], noise: torch.Generator) -> _Pass:
        content = self._encode(images, noise)
        encoded = {domain: self.attribute[domain](image) for domain, image in images.items()}
        mean, log_variance = ({domain: pair[part] for domain, pair in encoded.items()} for part in (0, 1))
        first, second = (self._random(mean["x"], noise) for _ in range(2))
        translated, rebuilt, random = {}, {}, {}
        for domain, other in ("xy", "yx"):
            spread = (log_variance[domain] / 2).exp()
            own = mean[domain] + spread * self._random(spread, noise)
            # One batch for all: no layer mixes samples.
            made = self.generators[domain](
                torch.cat([content[other], content[domain], content[other], content[other]]),
                torch.cat([own, own, first, second]),
            )
            translated[domain], rebuilt[domain], *others = made.chunk(4)
            random[domain] = (others[0], others[1])
        return _Pass(content, mean, log_variance, translated, rebuilt, random, (first, second))

    # --------------------------------------------------------------------------------- losses
    def _terms(self, images: dict[str, Tensor], made: _Pass, noise: torch.Generator) -> dict[str, Tensor]:
        """The generators' losses, weighted, by name; each is the sum over both domains."""
        config = self.config
        with frozen(self.content_discriminator, *self.discriminators.values()):
            adversarial = [self._generator_loss(domain, made) for domain in "xy"]
            # Encoders are trained so that the domain cannot be recognised from the content.
            hidden = [_cross_entropy(self.content_discriminator(content), 0.5) for content in made.content.values()]
        back = self._translate_back(made, noise)
        weighted = {
            "domain_adversarial": (config.domain_adversarial, adversarial),
            "content_adversarial": (config.content_adversarial, hidden),
            "cross_cycle": (config.cross_cycle, [F.l1_loss(back[d], images[d]) for d in "xy"]),
            "self_reconstruction": (
                config.self_reconstruction,
                [F.l1_loss(made.rebuilt[d], images[d]) for d in "xy"],
            ),
            "latent_regression": (config.latent_regression, [self._latent_regression(d, made) for d in "xy"]),
            "kl": (config.kl, [_kl(made.mean[d], made.log_variance[d]) for d in "xy"]),
            "mode_seeking": (config.mode_seeking, [_mode_seeking(made.random[d], made.drawn) for d in "xy"]),
        }
        if config.paired_l1:
            plain = self.generators["y"](made.content["x"], torch.zeros_like(made.mean["x"]))
            weighted["paired_l1"] = (config.paired_l1, [F.l1_loss(plain, images["y"])])
        return {name: weight * torch.stack(parts).sum() for name, (weight, parts) in weighted.items()}

    def _generator_loss(self, domain: str, made: _Pass) -> Tensor:
        return _against(self.discriminators[domain](_generated(domain, made)), 1.0)

    def _translate_back(self, made: _Pass, noise: torch.Generator) -> dict[str, Tensor]:
        """Cross-cycle: translating the translations again should return the originals."""
        content = self._encode(made.translated, noise)
        back = {}
        for domain, other in ("xy", "yx"):
            attribute, _ = self.attribute[domain](made.translated[domain])
            back[domain] = self.generators[domain](content[other], attribute)
        return back

    def _latent_regression(self, domain: str, made: _Pass) -> Tensor:
        """The attribute given to a generator should be read from its image. The encoder itself gets no gradient."""
        with frozen(self.attribute[domain]):
            read, _ = self.attribute[domain](made.random[domain][0])
        return F.l1_loss(read, made.drawn[0])

    def _content_discriminator_loss(self, content: dict[str, Tensor]) -> Tensor:
        truth = {"x": 1.0, "y": 0.0}
        return torch.stack([_cross_entropy(self.content_discriminator(content[d]), truth[d]) for d in "xy"]).sum()

    def _discriminator_loss(self, images: dict[str, Tensor], made: _Pass) -> Tensor:
        losses = []
        for domain in "xy":
            real = _against(self.discriminators[domain](images[domain]), 1.0)
            generated = _against(self.discriminators[domain](_generated(domain, made).detach()), 0.0)
            losses.append(real + generated)
        return torch.stack(losses).sum()


def _networks(config: DritConfig) -> dict[str, nn.Module]:
    model = DritModel(config)
    networks: dict[str, nn.Module] = {
        "model": model,
        "content_y": ContentEncoder(config, model.content.shared),
        "generator_x": Generator(config, model.generator.shared),
        "content_discriminator": ContentDiscriminator(config),
    }
    for domain in "xy":
        networks[f"attribute_{domain}"] = AttributeEncoder(config)
        networks[f"discriminator_{domain}"] = MultiScaleDiscriminator(
            config.discriminator_scales, 3, config.discriminator_channels, config.discriminator_layers, normalise=False
        )
    return networks


def _generated(domain: str, made: _Pass) -> Tensor:
    """Inputs of the discriminator of the domain: with an image's own attribute, and with a random one."""
    return torch.cat([made.translated[domain], made.random[domain][0]])


def _parameters(*modules: nn.Module) -> list[nn.Parameter]:
    """Without repetition: modules share some."""
    return list(dict.fromkeys(parameter for module in modules for parameter in module.parameters()))


def _other_order(seed: int) -> int:
    """A seed for the second domain that consecutive seeds do not reach."""
    return seed + 2**31


def _cross_entropy(logits: Tensor, truth: float) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, truth))


def _against(judged: list[tuple[Tensor, list[Tensor]]], truth: float) -> Tensor:
    """Mean over the scales."""
    return torch.stack([_cross_entropy(logits.float(), truth) for logits, _ in judged]).mean()


def _kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL divergence of N(mean, variance) from N(0, 1), summed over the attribute, mean over the batch."""
    return (mean**2 + log_variance.exp() - 1 - log_variance).sum(1).mean() / 2


def _mode_seeking(images: tuple[Tensor, Tensor], attributes: tuple[Tensor, Tensor]) -> Tensor:
    """Small when images differ as much as the attributes that they were made with (Mao et al., eq. 2)."""
    return 1 / (F.l1_loss(*images) / F.l1_loss(*attributes) + _EPSILON)
