"""PIE-Net under the deterministic fill: the published network's outputs, masks, key names and limits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from dmp_core.errors import InputError
from dmp_core.labelers.pienet import PIENet, PIENetLabeler
from tests.golden.fill import fill_module, fill_value, uniform
from tests.golden.vectors import TOLERANCE, Golden

GOLDEN = Golden("pienet")
OUTPUTS = tuple(GOLDEN.facts["output_keys_shapes_for_2x3x64x96"])


@pytest.fixture(scope="module")
def published() -> Iterator[PIENet]:
    """The whole network, filled once; 0.8 GB."""
    network = PIENet(batch_independent=False)
    fill_module(network, skip=tuple(GOLDEN.facts["fill_skip"]))
    with torch.no_grad():
        yield network


@pytest.fixture(scope="module")
def images() -> Tensor:
    recipe = uniform(501, (2, 3, 64, 96))
    recipe[0, :, 5:8, 5:9] = 0
    assert torch.equal(recipe, GOLDEN["in"])
    return recipe


@pytest.fixture(scope="module")
def outputs(published: PIENet, images: Tensor) -> dict[str, Tensor]:
    return published(images)


@pytest.fixture(scope="module")
def alone(published: PIENet, images: Tensor) -> dict[str, Tensor]:
    """The published network's outputs of batches of one."""
    singles = [published(image[None]) for image in images]
    return {name: torch.cat([single[name] for single in singles]) for name in OUTPUTS}


# -------------------------------------------------------------------------------------- keys
def test_checkpoint_keys(published: PIENet) -> None:
    state = {key: [list(value.shape), str(value.dtype)] for key, value in published.state_dict().items()}
    assert len(state) == 534
    assert state == GOLDEN.facts["state_dict"]
    assert sum(parameter.numel() for parameter in published.parameters()) == GOLDEN.facts["n_params"]


def test_filters(published: PIENet) -> None:
    for name in ("filter", "filter2"):
        assert published.get_buffer(f"imgEncoder.crossRatio.{name}").tolist() == GOLDEN.facts[name]


# ------------------------------------------------------------------------------------ numbers
@pytest.mark.parametrize("name", OUTPUTS)
def test_outputs(outputs: dict[str, Tensor], name: str) -> None:
    assert list(outputs[name].shape) == GOLDEN.facts["output_keys_shapes_for_2x3x64x96"][name]
    GOLDEN.check(f"out.{name}", outputs[name])


def test_no_other_outputs(outputs: dict[str, Tensor]) -> None:
    assert set(outputs) == set(OUTPUTS)


def test_encoder(published: PIENet, images: Tensor) -> None:
    features = published.imgEncoder(images)
    GOLDEN.check("enc.conv40", features.image[4])
    GOLDEN.check("enc.cross40", features.cross[4])


def test_stored_labels(published: PIENet, images: Tensor) -> None:
    labels = PIENetLabeler(published)(images)
    albedo, shading = labels["albedo"].movedim(1, -1), labels["shading"]
    GOLDEN.check_levels("getintr.reflectance", (albedo * 255).round().numpy())
    GOLDEN.check_levels("getintr.shading", (shading * 255).round().numpy())


# -------------------------------------------------------------------------------------- masks
SCALED = tuple(GOLDEN.facts["mask_case"]["batchnorms"])
# The recording of `mask.*` used a hook that returned a layer's first result again.
# Two of them are called a second time, for the light: these two arrays repeat the edges of reflectance.
RECORDED_ONCE = ("illum_edge_64", "illum_edge_128")
MASKED = tuple(name.removeprefix("mask.") for name in GOLDEN.names if name.startswith("mask."))


@contextmanager
def scaled(network: PIENet) -> Iterator[PIENet]:
    """Edges scaled up, so that the clamp and the mask both act."""
    norms = [network.get_submodule(name) for name in SCALED]
    kept = [(norm.weight.clone(), norm.bias.clone()) for norm in norms]
    for norm in norms:
        norm.weight.mul_(8)
        norm.bias.sub_(0.5)
    yield network
    for norm, (weight, bias) in zip(norms, kept, strict=True):
        norm.weight.copy_(weight)
        norm.bias.copy_(bias)


@pytest.fixture(scope="module")
def masked(published: PIENet, images: Tensor) -> dict[str, Tensor]:
    with scaled(published) as network:
        return network(images)


def first_results(network: PIENet) -> list[RemovableHandle]:
    """Hooks as in the recording: a layer that is called again returns its first result."""
    first: dict[str, Tensor] = {}

    def remember(name: str) -> RemovableHandle:
        return network.get_submodule(name).register_forward_hook(lambda _, __, result: first.setdefault(name, result))

    return [remember(name) for name in SCALED]


@pytest.mark.parametrize("name", [name for name in MASKED if name not in RECORDED_ONCE])
def test_masked_outputs(masked: dict[str, Tensor], name: str) -> None:
    GOLDEN.check(f"mask.{name}", masked[name])


def test_masked_outputs_that_were_recorded_once(published: PIENet, images: Tensor) -> None:
    hooks = first_results(published)
    with scaled(published) as network:
        light = network.edgeDecoder(network.imgEncoder(images)).light
    for hook in hooks:
        hook.remove()
    for name, edges in zip(RECORDED_ONCE, light, strict=False):
        GOLDEN.check(f"mask.{name}", edges)


def test_edges_of_light_are_not_clamped(masked: dict[str, Tensor], outputs: dict[str, Tensor]) -> None:
    """Where y = w z + b was recorded, scaling must give 8 w z + b - 0.5 = 8 y - 7 b - 0.5."""
    for name, norm in zip(RECORDED_ONCE, SCALED[1:], strict=True):
        recorded = outputs[name]
        expected = (8 * recorded - 7 * fill_value(f"{norm}.bias", (3,)).view(3, 1, 1) - 0.5).relu()
        torch.testing.assert_close(masked[name][recorded > 0], expected[recorded > 0], rtol=0, atol=TOLERANCE)


def test_share_of_clamped_edges(masked: dict[str, Tensor]) -> None:
    for name, norm in zip(("reflec_edge", "reflec_edge_64", "reflec_edge_128"), SCALED, strict=True):
        share = (masked[name] == 1).float().mean().item()
        assert share == pytest.approx(GOLDEN.facts["mask_case"]["stats"][norm]["clamped_at_1"], abs=1e-6), name


def test_published_result_depends_on_the_batch(outputs: dict[str, Tensor], alone: dict[str, Tensor]) -> None:
    """The recorded differences are those of the first image."""
    recorded = next(value for fact, value in GOLDEN.facts.items() if fact.startswith("single-image vs batch-of-2"))
    for name in OUTPUTS:
        gap = (outputs[name][0] - alone[name][0]).abs().max().item()
        assert gap == pytest.approx(recorded[name], abs=TOLERANCE), name


def test_independent_of_the_batch(
    published: PIENet, images: Tensor, alone: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(published.edgeDecoder, "batch_independent", True)
    together = published(images)
    for name in OUTPUTS:
        torch.testing.assert_close(together[name], alone[name], rtol=0, atol=1e-5, msg=name)


def test_masks_independent_of_the_batch(published: PIENet, images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the clamp acts; only for the edges, since all differences are there."""
    features = [published.imgEncoder(batch) for batch in (images, images[:1], images[1:])]
    with scaled(published) as network:
        singles = [network.edgeDecoder(batch).reflectance for batch in features[1:]]
        monkeypatch.setattr(network.edgeDecoder, "batch_independent", True)
        edges = network.edgeDecoder(features[0]).reflectance
    for together, *alone in zip(edges, *singles, strict=True):
        torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=TOLERANCE)


# -------------------------------------------------------------------------------------- limits
@pytest.mark.parametrize("size", [(100, 100), (64, 72), (80, 80)])
def test_sizes(size: tuple[int, int]) -> None:
    network, image = PIENet(width=2), torch.rand(1, 3, *size)
    if GOLDEN.facts[f"input {size}"] == "ok":
        assert network(image)["shading"].shape == (1, 1, *size)
    else:
        with pytest.raises(InputError, match=r"multiples of 16, found \(\d+, \d+\)"):
            network(image)


def test_modules_never_called() -> None:
    network, called = PIENet(width=2), set()
    leaves = {name: module for name, module in network.named_modules() if not list(module.children())}
    for name, module in leaves.items():
        module.register_forward_hook(lambda *_, name=name: called.add(name))
    network(torch.rand(1, 3, 16, 16))
    unused = {name for name in set(leaves) - called if not isinstance(leaves[name], nn.ReLU)}
    assert unused == set(GOLDEN.facts["leaf_modules_never_called"])
