"""The diffusion methods through the protocol: they learn, save, load, and predict deterministically."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState

from dmp_core.diffusion import decode_latents, encode_images
from dmp_core.diffusion.labels import decode_labels
from dmp_core.diffusion.settings import SamplingConfig
from dmp_core.errors import InputError
from dmp_core.methods.ddib.settings import DDIBConfig, DDIBSampling
from dmp_core.methods.dmp.settings import TrainConfig
from dmp_core.methods.instruct.settings import HardInstructConfig, LearnedInstructConfig, TokenConfig
from dmp_core.methods.instruct.token import learned_instruction
from dmp_core.methods.protocol import Inference, Problem
from dmp_core.methods.registry import find_method
from dmp_core.methods.sdedit.algorithm import sdedit_latents
from dmp_core.methods.sdedit.settings import SDEditConfig, SDEditSampling
from dmp_core.methods.shared.editing import edit_latents
from dmp_core.methods.shared.label_prior import load_label_prior
from dmp_core.methods.shared.settings import EditSampling, LabelPriorConfig
from dmp_core.methods.visii.algorithm import load_instruction
from dmp_core.methods.visii.settings import VisiiConfig, VisiiFitConfig, VisiiSampling
from dmp_core.modalities import Code, find_modality
from dmp_core.progress import silent
from dmp_core.store import sample_seed
from dmp_core.training.data import LatentPairs
from dmp_core.training.logs import read_log
from dmp_core.weights.load import load_editor
from dmp_core.weights.settings import BaseConfig, EditorConfig
from tests.methods.diffusion_toys import base_of, blobs, column, editor_of, held_out_error, sources

KEYS = [f"in_domain-{number:08d}" for number in range(3)]
EDITS = EditSampling(num_steps=3)
SETTINGS: dict[str, Any] = {
    "sdedit": SDEditConfig(
        fit=LabelPriorConfig(weights="all", steps=100, batch_size=8, learning_rate=4e-3, log_every=50),
        sampling=SDEditSampling(strength=0.8, num_steps=10),
    ),
    "ddib": DDIBConfig(
        fit=LabelPriorConfig(weights="all", steps=100, batch_size=8, learning_rate=4e-3, log_every=50),
        sampling=DDIBSampling(num_steps=10),
    ),
    "ip2p_hard": HardInstructConfig(sampling=EDITS),
    "ip2p_learned": LearnedInstructConfig(
        fit=TokenConfig(
            steps=40, batch_size=8, learning_rate=5e-2, log_every=20, instruction="go to *", initial_word="m"
        ),
        sampling=EDITS,
    ),
    "visii": VisiiConfig(
        fit=VisiiFitConfig(
            steps=40, batch_size=4, num_pairs=8, learning_rate=5e-2, guidance_scale=1, image_guidance_scale=1,
            log_every=20,
        ),
        initial_instructions={"depth": "go to m"},
        sampling=VisiiSampling(num_steps=3),
    ),
}  # fmt: skip


class Data:
    """A training split of latents."""

    fingerprints = {"source": "0" * 12}

    def __len__(self) -> int:
        return 8

    def latent_pairs(self, batch_size: int, seed: int) -> LatentPairs:
        return LatentPairs(column("image", sources()), column("depth", blobs(8)), batch_size, seed)

    def image_pairs(self, folder: Path | None = None) -> Any:
        raise AssertionError("these methods need latents")

    def prompts(self) -> list[str]:
        raise AssertionError("nothing here needs captions")


@dataclass(frozen=True)
class World:
    """A base that predicts v, since few steps are enough then, and an editor made from it."""

    base: Path
    editor: Path

    def problem(self, task: str = "depth") -> Problem:
        return Problem(
            find_modality(task), BaseConfig(model=str(self.base)), editor=EditorConfig(model=str(self.editor))
        )


@pytest.fixture(scope="module")
def world(tiny_folder, tmp_path_factory) -> World:
    folder = tmp_path_factory.mktemp("world")
    shutil.copytree(tiny_folder, folder / "base")
    file = folder / "base" / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"prediction_type": "v_prediction"}))
    editor_of(tiny_folder).save_pretrained(folder / "editor")
    return World(folder / "base", folder / "editor")


def fit(name: str, settings: Any, world: World, out: Path) -> dict[str, Any]:
    out.mkdir(parents=True)
    return find_method(name).fit(
        settings.fitted, world.problem(), Data(), out.parent / f"{out.name}-work", out, device="cpu", progress=silent
    )


def predictor(name: str, folder: Path, world: World, task: str = "depth", **sampling: Any):
    settings = SETTINGS[name].model_copy(update={"sampling": SETTINGS[name].sampling.model_copy(update=sampling)})
    inference = Inference(SamplingConfig(), own=settings.inference)
    return find_method(name).load(folder, world.problem(task), inference, device="cpu")


@pytest.fixture(scope="module")
def fits() -> dict[str, tuple[Path, dict[str, Any]]]:
    """Finished fits, by their settings."""
    return {}


@pytest.fixture(scope="module", params=SETTINGS)
def fitted(request, world, fits, tmp_path_factory) -> tuple[str, Path, dict[str, Any]]:
    """DDIB uses SDEdit's fit."""
    name, settings = request.param, SETTINGS[request.param]
    if (known := settings.fitted.model_dump_json()) not in fits:
        out = tmp_path_factory.mktemp(name) / "out"
        fits[known] = out, fit(name, settings, world, out)
    return name, *fits[known]


def images(count: int = 3) -> np.ndarray:
    return np.random.default_rng(4).integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)


def test_predictions_are_deterministic_and_do_not_depend_on_the_batch(fitted, world):
    name, folder, _ = fitted
    predict = predictor(name, folder, world)
    labels = predict(images(), KEYS)
    assert labels.shape == (3, 16, 16)
    assert np.array_equal(predict(images(), KEYS), labels)
    torch.manual_seed(9)
    assert np.array_equal(predictor(name, folder, world)(images(), KEYS), labels)
    np.testing.assert_allclose(predict(images()[1:2], KEYS[1:2]), labels[1:2], atol=1e-3)


def test_a_samples_noise_comes_from_its_key_and_the_seed(fitted, world):
    name, folder, _ = fitted
    one, other = (predictor(name, folder, world)(images(1), [key]) for key in KEYS[:2])
    drawn = name not in ("ddib", "visii")  # of which one draws nothing, and one always the same
    assert np.allclose(one, other, atol=1e-5) != drawn
    if drawn:
        assert not np.allclose(one, predictor(name, folder, world, seed=1)(images(1), KEYS[:1]), atol=1e-5)
    elif name == "visii":
        assert not np.allclose(one, predictor(name, folder, world, noise="fresh")(images(1), KEYS[:1]), atol=1e-5)


def losses(folder: Path) -> np.ndarray:
    return np.array([row.loss for row in read_log(folder / "loss.csv")])


@pytest.mark.parametrize("fitted", ["sdedit", "ddib"], indirect=True)
def test_sdedit_and_ddib_learn_to_make_labels(fitted, world, tmp_path):
    """The loss falls, and new images become labels, far nearer than without the training."""
    name, folder, details = fitted
    curve = losses(folder)
    assert details["steps"] == len(curve) == 100
    assert curve[-10:].mean() < 0.7 * curve[:10].mean()
    fit(name, SETTINGS[name].model_copy(update={"fit": LabelPriorConfig(steps=1)}), world, tmp_path / "untouched")
    expected = decode_labels(base_of(world.base).vae, blobs(3, seed=9), find_modality("depth"), (16, 16), Code())
    learnt, untouched = (
        np.abs(predictor(name, place, world)(images(), KEYS) - expected).mean()
        for place in (folder, tmp_path / "untouched")
    )
    assert learnt < 0.7 * untouched


@pytest.mark.parametrize("fitted", ["ip2p_learned", "visii"], indirect=True)
def test_instructions_learn(fitted, world, tiny_folder, tmp_path):
    """The loss falls below that of the first instruction at the same draws, and so does the error on unseen pairs."""
    name, folder, details = fitted
    still = SETTINGS[name].fit.model_copy(update={"learning_rate": 1e-12})
    fit(name, SETTINGS[name].model_copy(update={"fit": still}), world, tmp_path / "still")
    assert details["steps"] == 40
    assert losses(folder)[0] == pytest.approx(losses(tmp_path / "still")[0], rel=1e-4)
    gain = losses(tmp_path / "still") - losses(folder)
    assert gain[-20:].mean() > 0
    editor = editor_of(tiny_folder)
    learnt = {
        "ip2p_learned": lambda: learned_instruction(editor, folder, "go to *"),
        "visii": lambda: load_instruction(folder).embeds,
    }[name]()
    assert held_out_error(editor, learnt) < held_out_error(editor, "go to m")


def test_sdedit_and_ddib_are_fitted_once():
    assert SETTINGS["sdedit"].fitted == SETTINGS["ddib"].fitted


def test_the_hard_instruction_is_saved(world, tmp_path):
    details = fit("ip2p_hard", SETTINGS["ip2p_hard"], world, tmp_path / "out")
    assert details == {"instruction": SETTINGS["ip2p_hard"].instructions["depth"]}
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["instruction.json"]


@pytest.mark.parametrize("name", ["sdedit", "ip2p_hard"])
def test_depth_is_decoded_unclamped(name, world, tmp_path):
    """The mean of the decoded channels is taken before values are clamped, as in DMP."""
    short = SETTINGS["sdedit"].model_copy(update={"fit": LabelPriorConfig(steps=1, batch_size=1)})
    fit(name, short if name == "sdedit" else SETTINGS[name], world, tmp_path / "out")
    pixels = torch.from_numpy(images()).movedim(-1, 1) / 255
    seeds = [sample_seed(0, key) for key in KEYS]
    if name == "sdedit":
        base = base_of(world.base)
        vae, unet = base.vae, load_label_prior(base, tmp_path / "out")
        latents = sdedit_latents(base, unet, encode_images(vae, pixels).detach(), seeds, 0.8, 10)
    else:
        editor = load_editor(EditorConfig(model=str(world.editor)))
        vae = editor.vae
        latents = edit_latents(editor, pixels, SETTINGS[name].instructions["depth"], seeds, 3)
    with torch.no_grad():
        decoded = decode_latents(vae, latents)
    expected = decoded.mean(1).clamp(0, 1).numpy() * 8
    np.testing.assert_allclose(predictor(name, tmp_path / "out", world)(images(), KEYS), expected, atol=1e-3)
    assert not np.allclose(decoded.clamp(0, 1).mean(1).numpy() * 8, expected, atol=1e-2)


def test_an_editor_with_another_autoencoder_is_refused(world, tiny_folder, tmp_path):
    editor = editor_of(tiny_folder)
    with torch.no_grad():
        editor.vae.encoder.conv_in.weight.mul_(1.5)
    editor.save_pretrained(tmp_path / "editor")
    for name in ("ip2p_learned", "visii"):
        with pytest.raises(InputError, match=r"editor.model: its autoencoder is not that of base.model"):
            fit(name, SETTINGS[name], World(world.base, tmp_path / "editor"), tmp_path / name)


def test_a_folder_of_another_method_is_refused(world, tmp_path):
    with pytest.raises(InputError, match=r"instruction.json: contains no instruction"):
        predictor("ip2p_hard", tmp_path, world)
    with pytest.raises(InputError, match=r"no learned instruction here"):
        predictor("visii", tmp_path, world)


def test_omitted_instructions_keep_their_default():
    settings = HardInstructConfig.model_validate({"instructions": {"depth": "show how far things are"}})
    assert settings.instructions["depth"] == "show how far things are"
    assert settings.instructions["normal"] == HardInstructConfig().instructions["normal"]


@pytest.mark.parametrize("name", ["dmp", "sdedit", "ip2p_learned", "visii"])
@pytest.mark.parametrize(("has", "trained"), [(True, "bf16"), (False, "no")])
def test_bfloat16_is_not_used_on_a_processor_without_it(name, has, trained, world, tmp_path, monkeypatch):
    monkeypatch.setattr("dmp_core.training.precision._processor_has_bf16", lambda: has)
    short = {"steps": 1, "batch_size": 2, "mixed_precision": "bf16"}
    if name == "dmp":
        settings = TrainConfig(**short)
    else:
        own = SETTINGS[name]
        settings = own.model_copy(update={"fit": own.fit.model_copy(update=short)})
    fit(name, settings, world, tmp_path / "out")
    assert AcceleratorState().mixed_precision == trained
