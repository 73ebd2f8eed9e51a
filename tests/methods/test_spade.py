"""SPADE's own parts: normalisation by the image, losses, and the perceptual switch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from dmp_core.errors import InputError
from dmp_core.methods.spade.algorithm import SpadeGenerator, SpadeNorm, VggFeatures, _SpadeTrainer
from dmp_core.methods.spade.settings import SpadeConfig
from tests.methods.shapes import shapes
from tests.methods.test_methods import METHODS

TINY = METHODS["spade"].short


def test_the_image_scales_and_shifts_what_is_normalised():
    """γ and β are linear in the weights of the last convolution: a centre tap that passes red sets both."""
    norm = SpadeNorm(2, 3)
    with torch.no_grad():
        for conv in (norm.read, norm.gamma_beta):
            conv.weight.zero_()
        for channel in range(3):
            norm.read.weight[channel, channel, 1, 1] = 1
        norm.gamma_beta.weight[:2, 0, 1, 1] = 3  # γ = 3 · red
        norm.gamma_beta.weight[2:, 1, 1, 1] = 5  # β = 5 · green
    values, image = torch.randn(4, 2, 6, 6) * 7 + 3, torch.rand(4, 3, 6, 6)
    normalised = (values - values.mean((0, 2, 3), keepdim=True)) / values.std((0, 2, 3), correction=0, keepdim=True)
    expected = normalised * (1 + 3 * image[:, :1]) + 5 * image[:, 1:2]
    assert torch.allclose(norm(values, image), expected, atol=1e-4)


def test_published_widths_in_units_of_the_last():
    """At 256²: seven blocks, from 16 · 64 channels at 8 × 8 pixels to 64 at full size; tested with 1 for 64."""
    generator = SpadeGenerator(SpadeConfig(channels=1, hidden_channels=1))
    blocks = [(block.convs[0].in_channels, block.convs[1].out_channels) for block in generator.blocks]
    assert blocks == [(16, 16)] * 3 + [(16, 8), (8, 4), (4, 2), (2, 1)]
    sizes: list[int] = []
    for block in generator.blocks:
        block.register_forward_pre_hook(lambda _module, inputs: sizes.append(inputs[0].shape[-1]))
    assert generator(torch.zeros(1, 3, 256, 256)).shape == (1, 3, 256, 256)
    assert sizes == [8, 16, 16, 32, 64, 128, 256]


def test_hinge_loss_wants_a_margin_on_either_side():
    trainer = _SpadeTrainer(TINY, shapes(4), "cpu")
    x, y = trainer.batch(0)

    def judged_as(generated: float, real: float) -> float:
        logits = torch.cat([torch.full((3, 1, 2, 2), generated), torch.full((3, 1, 2, 2), real)])
        trainer._judge = lambda *_: [(logits, []), (logits, [])]  # type: ignore[method-assign]
        return trainer._discriminator_loss(x, y, y).item()

    assert judged_as(-1, 1) == judged_as(-5, 5) == 0
    assert judged_as(0, 0) == 2
    assert judged_as(1, -1) == 4


def test_feature_matching_is_off_at_weight_zero_and_the_discriminator_sees_the_image():
    trainer = _SpadeTrainer(TINY.model_copy(update={"feature_matching": 0.0}), shapes(4), "cpu")
    assert set(trainer.step(0)[2]) == {"adversarial", "discriminator"}
    x, y = trainer.batch(0)
    with torch.no_grad():
        one, other = (trainer._judge(image, y, y)[0][0] for image in (x, x.flip(0)))
    assert not torch.equal(one, other)


# --------------------------------------------------------------------------- perceptual term
@pytest.fixture(scope="module")
def vgg(tmp_path_factory) -> Path:
    """A file like torchvision's, but not trained, and without the classifier's 500 MB."""
    from torchvision.models.vgg import vgg19

    path = tmp_path_factory.mktemp("vgg") / "vgg19.pth"
    torch.manual_seed(0)
    with torch.device("meta"):
        layers = vgg19(weights=None, init_weights=False).features.state_dict()
    torch.save({f"features.{name}": torch.randn(v.shape) * 0.05 for name, v in layers.items()}, path)
    return path


def test_perceptual_distance_is_zero_for_equal_images_alone(vgg):
    features = VggFeatures(vgg)
    image = torch.rand(2, 3, 32, 32) * 2 - 1
    assert features.distance(image, image).item() == 0
    moved = image.clone().requires_grad_()
    distance = features.distance(moved + 0.1, image)
    distance.backward()
    assert distance.item() > 0
    assert moved.grad is not None
    assert moved.grad.any()
    assert not list(filter(lambda p: p.requires_grad, features.parameters()))


def test_first_layer_gets_images_as_in_vggs_training(vgg):
    """relu1_1 of ImageNet-standardised colours, and 1/32 of the first layer's distance when others agree."""
    features = VggFeatures(vgg)
    image = torch.rand(1, 3, 32, 32)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    weight, bias = features.features[0].weight, features.features[0].bias
    expected = F.relu(F.conv2d((image - mean) / std, weight, bias, padding=1))
    seen = []
    features.features[1].register_forward_hook(lambda _m, _i, output: seen.append(output.clone()))
    features.distance(image * 2 - 1, image * 2 - 1)
    assert torch.allclose(seen[0][:1], expected, atol=1e-4)


def test_perceptual_term_joins_the_loss_when_switched_on(vgg):
    settings = TINY.model_copy(update={"perceptual": 10.0, "perceptual_weights": str(vgg)})
    _, _, terms = _SpadeTrainer(settings, shapes(4, size=32), "cpu").step(0)
    assert terms["perceptual"].item() > 0
    assert _SpadeTrainer(TINY, shapes(4), "cpu").perceptual is None


def test_perceptual_term_needs_its_weights(tmp_path):
    with pytest.raises(ValidationError, match="needs perceptual_weights"):
        SpadeConfig(perceptual=10)
    torch.save({"conv": torch.zeros(1)}, tmp_path / "other.pth")
    for file in ("other.pth", "absent.pth"):
        with pytest.raises(InputError, match=r"perceptual_weights: .*set perceptual to 0"):
            VggFeatures(tmp_path / file)
