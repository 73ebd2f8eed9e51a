"""SDEdit and DDIB: the shared fine-tuning learns and resumes, inference depends on its arguments."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler

from dmp_core.diffusion import decode_latents, encode_images
from dmp_core.errors import InputError
from dmp_core.methods.ddib.algorithm import ddib_latents
from dmp_core.methods.sdedit.algorithm import sdedit_latents
from dmp_core.methods.shared.label_prior import fit_label_prior, load_label_prior
from dmp_core.methods.shared.settings import LabelPriorConfig
from dmp_core.training.logs import read_log
from dmp_core.training.settings import LoraConfig
from tests.methods.diffusion_toys import base_of, blobs, column

CONFIG = LabelPriorConfig(
    lora=LoraConfig(rank=4, targets="all"), steps=4, batch_size=4, learning_rate=1e-2, checkpoint_every=2, log_every=2
)
ALL = LabelPriorConfig(weights="all", steps=120, batch_size=8, learning_rate=4e-3, checkpoint_every=100)


def images(count: int) -> torch.Tensor:
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="module")
def learned(tiny_folder, tmp_path_factory):
    """All weights, trained until they have learnt the labels."""
    folder = tmp_path_factory.mktemp("labels")
    base = base_of(tiny_folder)
    # Few steps are enough for this target: near the noise, the noise itself must be predicted within a per cent.
    base.scheduler = DDIMScheduler.from_config(base.scheduler.config, prediction_type="v_prediction")
    result = fit_label_prior(ALL, base, column("normal", blobs(32)), folder / "work", folder / "out")
    return base, load_label_prior(base, folder / "out"), result


def test_it_learns_label_images(learned):
    losses = learned[2].losses
    assert sum(losses[-12:]) < 0.6 * sum(losses[:12])


@pytest.mark.parametrize("method", ["sdedit", "ddib"])
def test_results_are_labels_for_new_images(learned, method):
    """In latents, since the tiny autoencoder is random: nearer to the labels than the best that ignores them."""
    base, unet, _ = learned
    latents = encode_images(base.vae, images(4)).detach()
    if method == "sdedit":
        found = sdedit_latents(base, unet, latents, seeds=range(4), strength=0.7, num_steps=20)
    else:
        found = ddib_latents(base, unet, latents / latents.std(), num_steps=20)
    expected = blobs(4, seed=9)
    assert float((found - expected).square().mean()) < 0.5 * float((latents.mean() - expected).square().mean())


def test_ddib_is_deterministic_and_does_not_depend_on_the_batch(learned):
    base, unet, _ = learned
    latents = encode_images(base.vae, images(3))
    first, again = (ddib_latents(base, unet, latents, num_steps=5) for _ in range(2))
    assert torch.equal(first, again)
    torch.testing.assert_close(first[1:2], ddib_latents(base, unet, latents[1:2], num_steps=5), atol=1e-5, rtol=1e-4)


def test_sdedit_depends_only_on_the_samples_seed(learned):
    base, unet, _ = learned
    latents = encode_images(base.vae, images(3))
    whole = sdedit_latents(base, unet, latents, seeds=[4, 5, 6], num_steps=10)
    alone = sdedit_latents(base, unet, latents[1:2], seeds=[5], num_steps=10)
    torch.testing.assert_close(whole[1:2], alone, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(alone, sdedit_latents(base, unet, latents[1:2], seeds=[7], num_steps=10), atol=1e-4)


@torch.no_grad()
def test_little_strength_leaves_the_image(learned):
    base, unet, _ = learned
    latents = encode_images(base.vae, images(2))
    encoded = decode_latents(base.vae, latents)
    edited = [decode_latents(base.vae, sdedit_latents(base, unet, latents, [0, 1], s, 50)) for s in (0.02, 0.9)]
    errors = [float((picture.clamp(0, 1) - encoded.clamp(0, 1)).square().mean()) for picture in edited]
    assert errors[0] < 0.2 * errors[1]


def test_the_base_model_does_not_change(tiny_folder, tmp_path):
    base = base_of(tiny_folder)
    before = {name: tensor.clone() for name, tensor in base.unet.state_dict().items()}
    fit_label_prior(CONFIG, base, column("normal", blobs(8)), tmp_path / "work", tmp_path / "out")
    after = base.unet.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("weights", ["lora", "all"])
def test_a_run_that_was_stopped_ends_with_the_same_weights(tiny_folder, tmp_path, weights):
    config = CONFIG.model_copy(update={"weights": weights, "steps": 6})
    labels = column("normal", blobs(8))
    base = base_of(tiny_folder)
    fit_label_prior(config, base, labels, tmp_path / "whole", tmp_path / "a")

    class Stopped(Exception):
        pass

    def stop(done: int, total: int, message: str = "") -> None:
        if done == 5:
            raise Stopped

    with pytest.raises(Stopped):
        fit_label_prior(config, base, labels, tmp_path / "parts", tmp_path / "b", progress=stop)
    resumed = fit_label_prior(config, base, labels, tmp_path / "parts", tmp_path / "b")
    assert resumed.resumed_at == 4
    one, other = (load_label_prior(base, tmp_path / name).state_dict() for name in "ab")
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert len(read_log(tmp_path / "b" / "loss.csv")) == 6


def test_weights_of_another_base_are_refused(tiny_folder, tmp_path, learned):
    base = base_of(tiny_folder)
    for weights in ("lora", "all"):
        config = CONFIG.model_copy(update={"weights": weights, "steps": 1})
        fit_label_prior(config, base, column("normal", blobs(4)), tmp_path / f"work-{weights}", tmp_path / weights)
    other = base_of(tiny_folder)
    with torch.no_grad():
        other.unet.conv_in.weight.add_(1)
    for weights in ("lora", "all"):
        with pytest.raises(InputError, match="another base model"):
            load_label_prior(other, tmp_path / weights)


def test_captions_are_required(tiny_folder, tmp_path):
    config = CONFIG.model_copy(update={"use_prompt": True})
    with pytest.raises(InputError, match=r"use_prompt: needs one prompt per sample \(8\), found none"):
        fit_label_prior(config, base_of(tiny_folder), column("normal", blobs(8)), tmp_path / "work", tmp_path / "out")
