"""The prior's recipe end to end at tiny size, and the shipped prior."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from benchmarks.palette import survivors
from dmp_core.cli import app
from dmp_core.errors import InputError
from dmp_core.images import image_to_vae
from dmp_core.prior import load_recipe, train_prior
from dmp_core.prior.config import PriorConfig
from dmp_core.prior.data import draw_scene, load_scenes, save_shard
from dmp_core.prior.loop import fit
from dmp_core.prior.quality import measure_folder
from dmp_core.prior.start import load_part
from dmp_core.prior.unet import loss_weights
from dmp_core.prior.vae import build_vae
from dmp_core.weights.load import load_vae
from dmp_core.weights.resolve import resolve_folder
from dmp_core.weights.settings import BaseConfig

TINY = {
    "name": "tiny",
    "workers": 1,
    "scenes": {
        "scenes": 6,
        "sources": {"bedrooms": {"keywords": ["bedroom"], "share": 1.0}},
        "resolution": 32,
        "samples_per_pixel": 1,
        "max_depth": 2,
        "scenes_per_shard": 3,
        "hold_out_every": 3,
    },
    "vae": {
        "block_out_channels": [8, 8, 8, 8],
        "latent_channels": 4,
        "norm_num_groups": 4,
        "steps": 3,
        "batch_size": 2,
        "log_every": 1,
    },
    "unet": {
        "block_out_channels": [16, 32],
        "heads": 2,
        "norm_num_groups": 8,
        "steps": 3,
        "batch_size": 2,
        "log_every": 1,
        "text": {"vocab_size": 600, "hidden_size": 16, "layers": 1, "heads": 2, "captions": 50, "max_length": 32},
    },
    "quality": {
        "samples": 4,
        "sampling_steps": 2,
        "judge": {"steps": 2, "batch_size": 2, "widths": [8, 8, 8, 8], "features": 4},
    },
}


@pytest.fixture(scope="module")
def recipe() -> PriorConfig:
    return PriorConfig.model_validate(TINY)


@pytest.fixture(scope="module")
def made(recipe, tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("prior")
    return train_prior(recipe, folder / "out", folder / "work"), folder / "work"


def test_folder_is_a_stable_diffusion_pipeline_that_generates(made):
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(made[0], torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline("a red bed", num_inference_steps=2, output_type="np", generator=torch.Generator()).images
    assert images.shape == (1, 32, 32, 3)
    assert np.isfinite(images).all()
    # SD v1-4's schedule: ᾱ_1 = 0.99915, ᾱ_1000 = 0.00466.
    alphas = pipeline.scheduler.alphas_cumprod
    assert alphas[0].item() == pytest.approx(0.99915, abs=1e-5)
    assert alphas[-1].item() == pytest.approx(0.00466, abs=1e-5)


def test_card_states_what_was_done(made, recipe):
    card = (made[0] / "README.md").read_text()
    assert "6\npath-traced scenes" in card
    for task in ("normal", "depth", "segmentation", "albedo", "shading"):
        assert f"| {task} |" in card
    assert (made[0] / "samples.png").exists()
    quality = json.loads((made[0] / "quality.json").read_text())
    assert (quality["training"], quality["held_out"], quality["samples"]) == (4, 2, 4)
    assert f"| SSIM | {quality['ssim']['renders']:.3f} | {quality['ssim']['through_vae']:.3f} | – | – |" in card
    assert "![the samples nearest to a training render" in card
    with Image.open(made[0] / "neighbours.png") as image:
        assert image.size == (2 * 4 * 32, 2 * 32)
    assert list(pd.read_csv(made[0] / "vae_log.csv")["step"]) == [1, 2, 3]


def test_a_finished_folder_can_be_measured_again(made, recipe, tmp_path):
    table = measure_folder(recipe, str(made[0]), made[1] / "scenes", tmp_path)
    assert table in (made[0] / "README.md").read_text()
    for name in ("quality.json", "neighbours.png"):
        assert (tmp_path / name).read_bytes() == (made[0] / name).read_bytes()


def test_measuring_a_folder_without_a_model_is_an_error(tmp_path):
    arguments = ["prior", "quality", str(tmp_path), "--scenes", str(tmp_path), "--out", str(tmp_path / "out")]
    with pytest.raises(InputError, match=r"not a diffusers folder \(no model_index.json\); give one, or shipped:mini"):
        CliRunner().invoke(app, arguments, catch_exceptions=False)


@pytest.mark.parametrize(
    "command", [["train", "--work", "w"], ["edit", "--work", "w"], ["quality", "m", "--scenes", "s"]]
)
def test_nothing_is_written_over(tmp_path, command):
    (tmp_path / "theirs.txt").write_text("precious")
    for out in (tmp_path, tmp_path / "theirs.txt"):
        with pytest.raises(InputError, match=r"exists already|is a file; give a folder"):
            CliRunner().invoke(app, ["prior", *command, "--out", str(out)], catch_exceptions=False)
    assert [file.name for file in tmp_path.iterdir()] == ["theirs.txt"]


def test_scenes_of_another_size_are_refused(made, recipe, tmp_path):
    captions = [draw_scene(recipe.scenes, index)[0] for index in range(3)]
    blank = np.zeros((3, 16, 16, 3), np.uint8)
    save_shard(tmp_path / "scenes-000000.npz", {"rgb": blank, "captions": captions, "segmentation": blank[..., 0]})
    with pytest.raises(InputError, match=r"scenes: \(16, 16\) pixels, but the model paints 32"):
        measure_folder(recipe, str(made[0]), tmp_path, tmp_path / "out")


def test_latents_of_renders_have_unit_variance(made, recipe):
    from diffusers import AutoencoderKL

    vae = AutoencoderKL.from_pretrained(made[0], subfolder="vae", torch_dtype=torch.float32)
    scenes = load_scenes(recipe.scenes, made[1] / "scenes", held_out=False)
    rgb = torch.from_numpy(scenes.rgb.astype(np.float32) / 127.5 - 1).permute(0, 3, 1, 2)
    with torch.no_grad():
        latents = vae.encode(rgb).latent_dist.mean * vae.config.scaling_factor
    assert latents.std().item() == pytest.approx(1.0, abs=0.02)


def test_scenes_are_reproducible_and_held_out_ones_are_apart(made, recipe):
    first = draw_scene(recipe.scenes, 4)
    assert first == draw_scene(recipe.scenes, 4)
    assert len({draw_scene(recipe.scenes, index)[2] for index in range(50)}) == 50
    train, held_out = (load_scenes(recipe.scenes, made[1] / "scenes", held) for held in (False, True))
    assert (len(train), len(held_out)) == (4, 2)
    assert first[0] in train.captions


def _toy(work: Path, steps: int, recipe: PriorConfig, workers: int = 1) -> torch.Tensor:
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 1)

    def loss_at(step: int, share: slice) -> dict[str, torch.Tensor]:
        x = torch.randn(8, 3, generator=torch.Generator().manual_seed(step))[share]
        return {"loss": (model(x) - x.sum(1, keepdim=True)).square().mean()}

    settings = recipe.vae.model_copy(update={"steps": 10, "checkpoint_every": 2})

    class Killed(Exception):
        pass

    def loss_until(step: int, share: slice) -> dict[str, torch.Tensor]:
        if step == steps:
            raise Killed
        return loss_at(step, share)

    try:
        return fit({"model": model}, loss_until, settings, work, workers=workers)["model"]["weight"]
    except Killed:
        return torch.zeros(0)


def test_interrupted_training_ends_with_the_same_weights(tmp_path, recipe):
    whole = _toy(tmp_path / "whole", 99, recipe)
    assert len(_toy(tmp_path / "parts", 5, recipe)) == 0
    assert torch.equal(_toy(tmp_path / "parts", 99, recipe), whole)


def test_shares_of_a_batch_add_up_to_the_batch(tmp_path, recipe):
    whole, shared = (_toy(tmp_path / str(workers), 99, recipe, workers) for workers in (1, 2))
    assert torch.allclose(whole, shared, atol=1e-6)


def test_starts_from_a_finished_prior(made, recipe, tmp_path):
    first, work = made
    more = recipe.model_copy(update={"start": str(first)})
    (tmp_path / "scenes").symlink_to(work / "scenes")
    second = train_prior(more, tmp_path / "out", tmp_path)
    before, after = ({name: load_part(folder, name) for name in ("vae", "unet")} for folder in (first, second))
    assert all(torch.equal(a, b) for a, b in zip(before["vae"].parameters(), after["vae"].parameters(), strict=True))
    moved = [
        (a - b).abs().max().item() for a, b in zip(before["unet"].parameters(), after["unet"].parameters(), strict=True)
    ]
    assert 0 < max(moved) < 0.05  # three steps on from there; random weights would be further off
    steps = pd.read_csv(second / "unet_log.csv")["step"].tolist()
    assert steps == [1, 2, 3, 4, 5, 6]
    assert pd.read_csv(second / "vae_log.csv").equals(pd.read_csv(first / "vae_log.csv"))


def test_only_the_autoencoder_of_a_start_may_be_used(made, recipe, tmp_path):
    first, work = made
    fresh = recipe.model_copy(update={"start": str(first), "keep": "autoencoder"})
    (tmp_path / "scenes").symlink_to(work / "scenes")
    second = train_prior(fresh, tmp_path / "out", tmp_path)
    # The autoencoder is the same, and the rest as the recipe creates it.
    for part in ("vae", "unet", "text_encoder"):
        before, after = (load_part(folder, part) for folder in (first, second))
        for one, other in zip(before.parameters(), after.parameters(), strict=True):
            torch.testing.assert_close(one, other, atol=2e-3, rtol=0)
    assert pd.read_csv(second / "unet_log.csv")["step"].tolist() == [1, 2, 3]
    assert pd.read_csv(second / "vae_log.csv").equals(pd.read_csv(first / "vae_log.csv"))


def test_the_autoencoder_of_a_start_may_be_trained_on(made, recipe, tmp_path):
    first, work = made
    image = image_to_vae(load_scenes(recipe.scenes, work / "scenes", held_out=True).rgb[:1])

    def reconstruction(vae):
        with torch.no_grad():
            return vae.decode(vae.encode(image).latent_dist.mean).sample

    def trained_on(name, rate):
        vae = recipe.vae.model_copy(update={"learning_rate": rate})
        more = recipe.model_copy(update={"start": str(first), "tune": True, "vae": vae})
        (tmp_path / name).mkdir()
        (tmp_path / name / "scenes").symlink_to(work / "scenes")
        return train_prior(more, tmp_path / name / "out", tmp_path / name)

    still, moved = trained_on("still", 1e-9), trained_on("moved", recipe.vae.learning_rate)
    before = reconstruction(load_part(first, "vae"))
    torch.testing.assert_close(reconstruction(load_part(still, "vae")), before, atol=0.01, rtol=0)
    assert not torch.allclose(reconstruction(load_part(moved, "vae")), before, atol=0.01)
    assert not torch.allclose(reconstruction(build_vae(recipe).eval()), before, atol=0.01)
    steps = [pd.read_csv(folder / "vae_log.csv")["step"].tolist() for folder in (first, moved)]
    assert steps[1] == steps[0] + [step + steps[0][-1] for step in steps[0]]


def test_a_start_with_other_latents_is_refused(made, recipe, tmp_path):
    other = recipe.model_copy(
        update={"start": str(made[0]), "vae": recipe.vae.model_copy(update={"latent_channels": 8})}
    )
    with pytest.raises(InputError, match=r"vae.latent_channels: 8, but .* has 4; set it to 4"):
        train_prior(other, tmp_path / "out", tmp_path)
    assert not (tmp_path / "scenes").exists()


def test_min_snr_weights():
    snr = torch.tensor([9.0, 5.0, 1.0, 0.1])
    assert torch.allclose(loss_weights(snr, 5.0), torch.tensor([5 / 9, 1.0, 1.0, 1.0]))
    assert torch.equal(loss_weights(snr, None), torch.ones(4))


def test_bad_recipe_names_the_field(tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text("scenes: {resolution: 40, sources: {a: {keywords: [bedroom], share: 1}}}\n")
    with pytest.raises(InputError, match=r"scenes.resolution: 40 must be a multiple of 16"):
        load_recipe(file)


def test_every_class_survives_the_shipped_autoencoder():
    """Painted in the default palette next to other classes, encoded, decoded, and mostly read as itself."""
    classes, pixels = survivors(load_vae(BaseConfig(model="shipped:mini"), "cpu"), "default", 64)
    assert classes == 150
    assert pixels > 0.9


def test_the_shipped_prior_is_the_recipes_and_small():
    folder = resolve_folder("shipped:mini", "priors")
    assert folder is not None
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 40e6
    from diffusers import AutoencoderKL

    recipe = load_recipe()
    vae = AutoencoderKL.from_pretrained(folder, subfolder="vae")
    assert list(vae.config.block_out_channels) == list(recipe.vae.block_out_channels)
    assert vae.config.latent_channels == recipe.vae.latent_channels
