"""Editors: the layout is InstructPix2Pix's, training learns and resumes, inference follows image and instruction."""

from __future__ import annotations

import pytest
import torch

from dmp_core.diffusion.text import embed_texts
from dmp_core.errors import InputError
from dmp_core.methods.instruct.settings import TokenConfig
from dmp_core.methods.instruct.token import TOKEN, WEIGHTS_FILE, fit_token, initial_vector, learned_instruction
from dmp_core.methods.shared.editing import edit, fit_instruct, widen_unet
from dmp_core.methods.shared.settings import InstructConfig
from dmp_core.methods.visii.algorithm import fit_visii, load_instruction
from dmp_core.methods.visii.settings import VisiiFitConfig
from dmp_core.training.data import LatentPairs
from dmp_core.weights.load import load_editor
from dmp_core.weights.settings import EditorConfig
from tests.methods.diffusion_toys import base_of, blobs, column, editor_of, held_out_error, sources

INSTRUCT = InstructConfig(steps=60, batch_size=8, learning_rate=4e-3, checkpoint_every=2, log_every=10)
TOKEN_FIT = TokenConfig(steps=40, batch_size=8, learning_rate=5e-2, checkpoint_every=10, log_every=10)
VISII = VisiiFitConfig(
    steps=40, batch_size=4, num_pairs=8, learning_rate=5e-2, guidance_scale=1, image_guidance_scale=1, log_every=10
)
SHORT = {"steps": 4, "checkpoint_every": 2}


def pairs_of(batch_size: int = 8) -> LatentPairs:
    return LatentPairs(column("before", sources()), column("after", blobs(8)), batch_size)


def sample_images(count: int = 2) -> torch.Tensor:
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(5))


class Stopped(Exception):
    pass


def stop_at_three(done: int, total: int, message: str = "") -> None:
    if done == 3:
        raise Stopped


def fell(losses: tuple[float, ...]) -> bool:
    return sum(losses[-10:]) < 0.8 * sum(losses[:10])


# ------------------------------------------------------------------------------------ the model
def test_a_widened_unet_has_the_same_output_for_any_image(tiny_folder):
    base = base_of(tiny_folder)
    wide = widen_unet(base.unet)
    noisy, image = torch.randn(2, 2, 4, 4, 4).unbind()
    text = torch.randn(2, 12, 16)
    with torch.no_grad():
        expected = base.unet(noisy, 500, encoder_hidden_states=text).sample
        found = wide(torch.cat([noisy, image], 1), 500, encoder_hidden_states=text).sample
    torch.testing.assert_close(found, expected)


@pytest.fixture(scope="module")
def trained(tiny_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("instruct")
    words = [f"make it {n}" for n in range(8)]
    result = fit_instruct(INSTRUCT, base_of(tiny_folder), pairs_of(), words, folder / "work", folder / "out")
    return result, folder / "out"


def test_training_learns_and_writes_what_diffusers_pipeline_opens(trained):
    result, out = trained
    assert fell(result.losses)
    editor = load_editor(EditorConfig(model=str(out)))
    assert type(editor).__name__ == "StableDiffusionInstructPix2PixPipeline"
    assert editor.unet.config.in_channels == 8
    assert editor.unet.conv_in.weight[:, 4:].abs().max() > 1e-4  # it uses the image


def test_stopped_training_ends_with_the_same_weights(tiny_folder, tmp_path):
    config = INSTRUCT.model_copy(update=SHORT)
    words = [f"make it {n}" for n in range(8)]

    def run(work: str, **more):
        return fit_instruct(
            config, base_of(tiny_folder), pairs_of(), words, tmp_path / work, tmp_path / f"{work}-o", **more
        )

    run("whole")
    with pytest.raises(Stopped):
        run("parts", progress=stop_at_three)
    assert run("parts").resumed_at == 2
    one, other = (load_editor(EditorConfig(model=str(tmp_path / f"{n}-o"))).unet for n in ("whole", "parts"))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_the_unet_is_trained_on_the_image_as_in_the_pipeline(tiny_folder, tmp_path):
    """The tiny VAE scales by 0.5: conditions are unscaled, noisy latents scaled."""
    seen: list[torch.Tensor] = []
    config = INSTRUCT.model_copy(update={"steps": 1, "dropout": 0.0})
    import dmp_core.methods.shared.editing as module

    original = module.NoisyDraw.output

    def spy(self, network, image, text):
        seen.append(image)
        return original(self, network, image, text)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.NoisyDraw, "output", spy)
        fit_instruct(config, base_of(tiny_folder), pairs_of(), ["a"] * 8, tmp_path / "work", tmp_path / "out")
    expected = sources()[pairs_of().batch(0).indices] / 0.5
    torch.testing.assert_close(seen[0], expected)


def test_a_text_to_image_model_is_not_an_editor(tiny_folder):
    with pytest.raises(InputError, match=r"editor.model: .* takes 4 channels.*dmp prior edit"):
        load_editor(EditorConfig(model=str(tiny_folder)))


# ------------------------------------------------------------------------------------ inference
def test_edits_depend_on_seed_image_and_instruction_only(trained):
    editor = load_editor(EditorConfig(model=str(trained[1])))
    options = {"num_steps": 4}
    whole = edit(editor, sample_images(3), "make it 1", [1, 2, 3], **options)
    assert whole.shape == (3, 3, 16, 16)
    assert torch.equal(whole, edit(editor, sample_images(3), "make it 1", [1, 2, 3], **options))
    alone = edit(editor, sample_images(3)[1:2], "make it 1", [2], **options)
    torch.testing.assert_close(alone, whole[1:2], atol=1e-4, rtol=1e-3)
    for images, words, seed in (
        (sample_images(3)[1:2], "make it 1", 7),
        (sample_images(3)[1:2], "remove the bed", 2),
        (sample_images(3)[2:3], "make it 1", 2),
    ):
        assert not torch.allclose(alone, edit(editor, images, words, [seed], **options), atol=1e-4)


def test_an_embedding_replaces_its_text(trained):

    editor = load_editor(EditorConfig(model=str(trained[1])))
    embeds = embed_texts(editor, ["make it 1"])[0]
    assert torch.equal(
        edit(editor, sample_images(), embeds, [1, 2], num_steps=3),
        edit(editor, sample_images(), "make it 1", [1, 2], num_steps=3),
    )


def test_guidance_that_the_pipeline_would_drop_is_refused(trained):
    editor = load_editor(EditorConfig(model=str(trained[1])))
    with pytest.raises(InputError, match=r"image_guidance_scale: 0\.5; choose 1 or more"):
        edit(editor, sample_images(), "make it 1", [1, 2], image_guidance_scale=0.5)


# --------------------------------------------------------------------------------- learned token
def test_the_token_starts_as_its_word(tiny_folder):
    from dmp_core.methods.instruct.token import TokenPrompt

    editor = editor_of(tiny_folder)
    found = TokenPrompt(editor, "go to *", initial_vector(editor, "m"))()
    torch.testing.assert_close(found, embed_texts(editor, ["go to m"]))


def test_the_token_learns_and_all_else_is_frozen(tiny_folder, tmp_path):
    editor = editor_of(tiny_folder)
    kept = [p.clone() for part in (editor.unet, editor.text_encoder) for p in part.parameters()]
    config = TOKEN_FIT.model_copy(update={"instruction": "go to *", "initial_word": "m"})
    result = fit_token(config, editor, pairs_of(), tmp_path / "work", tmp_path / "out")
    assert result.trainable_parameters == 16
    assert all(
        torch.equal(a, b)
        for a, b in zip(
            kept, (p for part in (editor.unet, editor.text_encoder) for p in part.parameters()), strict=True
        )
    )
    learnt = learned_instruction(editor, tmp_path / "out", "go to *")
    assert held_out_error(editor, learnt) < held_out_error(editor, "go to m")


def test_diffusers_reads_the_token_and_agrees(tiny_folder, tmp_path):

    editor = editor_of(tiny_folder)
    config = TOKEN_FIT.model_copy(update={**SHORT, "instruction": "go to * x", "initial_word": "m"})
    fit_token(config, editor, pairs_of(), tmp_path / "work", tmp_path / "out")
    ours = learned_instruction(editor, tmp_path / "out", "go to * x")
    editor.load_textual_inversion(str(tmp_path / "out"), weight_name=WEIGHTS_FILE)
    torch.testing.assert_close(ours, embed_texts(editor, [f"go to {TOKEN} x"])[0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("text", ["no star", "too * many *"])
def test_an_instruction_has_one_place_for_the_token(tiny_folder, text):
    from dmp_core.methods.instruct.token import TokenPrompt

    editor = editor_of(tiny_folder)
    with pytest.raises(InputError, match="one asterisk"):
        TokenPrompt(editor, text, initial_vector(editor, "m"))


# ----------------------------------------------------------------------------------------- VISII
def test_the_instruction_learns_between_start_and_end(tiny_folder, tmp_path):
    editor = editor_of(tiny_folder)
    columns = column("image", sources()), column("normal", blobs(8))
    fit_visii(VISII, editor, *columns, "go to m", tmp_path / "work", tmp_path / "out")
    learned, start = load_instruction(tmp_path / "out").embeds, embed_texts(editor, ["go to m"])[0]
    assert torch.equal(learned[0], start[0])
    assert torch.equal(learned[6:], start[6:])  # a token per letter: 1 + 5 are trained
    assert (learned[1:6] - start[1:6]).abs().min(dim=1).values.max() > 1e-3
    assert held_out_error(editor, learned) < held_out_error(editor, "go to m")


def test_the_published_loss_is_the_guided_error(tiny_folder, tmp_path):
    """λ_mse · MSE of uncond + 7.5 (text - image) + 1.5 (image - uncond), by hand, for the first draw."""
    from dmp_core.diffusion import Schedule, interpolate
    from dmp_core.methods.shared.ddim import drawn_noise
    from dmp_core.methods.shared.editing import NOISE

    editor = editor_of(tiny_folder)
    config = VisiiFitConfig(steps=1, num_pairs=2)
    columns = column("image", sources()), column("normal", blobs(8))
    result = fit_visii(config, editor, *columns, "go to m", tmp_path / "work", tmp_path / "out")
    pairs = LatentPairs(column("b", sources()[:2]), column("a", blobs(8)[:2]), 1)
    batch = pairs.batch(0)
    x, y = pairs.gather(batch)
    noise = drawn_noise((0, NOISE, int(batch.timesteps[0])), (4, 4, 4))[None]
    noisy = interpolate(Schedule.from_config(editor.scheduler.config), y, noise, batch.timesteps)
    texts = embed_texts(editor, ["go to m", "", ""])
    images = torch.cat([x / 0.5, x / 0.5, torch.zeros_like(x)])
    with torch.no_grad():
        inputs = torch.cat([noisy.expand(3, -1, -1, -1), images], 1)
        full, image, nothing = editor.unet(inputs, batch.timesteps.expand(3), encoder_hidden_states=texts).sample
    guided = nothing + 7.5 * (full - image) + 1.5 * (image - nothing)
    assert result.losses[0] == pytest.approx(4 * float((guided - noise[0]).square().mean()), rel=1e-4)


def test_same_noise_makes_the_seed_irrelevant(trained, tmp_path):
    editor = load_editor(EditorConfig(model=str(trained[1])))
    columns = column("image", sources()), column("normal", blobs(8))
    fit_visii(VISII.model_copy(update=SHORT), editor, *columns, "go to m", tmp_path / "work", tmp_path / "out")
    learned = load_instruction(tmp_path / "out")
    same = [edit(editor, sample_images(1), learned.embeds, [s], num_steps=3, noise=learned.noise) for s in (1, 2)]
    fresh = [edit(editor, sample_images(1), learned.embeds, [s], num_steps=3) for s in (1, 2)]
    assert torch.equal(*same)
    assert not torch.allclose(*fresh, atol=1e-4)


def test_a_stopped_inversion_ends_with_the_same_instruction(tiny_folder, tmp_path):
    config = VISII.model_copy(update=SHORT)
    columns = column("image", sources()), column("normal", blobs(8))
    editor = editor_of(tiny_folder)

    def run(name: str, **more):
        return fit_visii(config, editor, *columns, "go", tmp_path / name, tmp_path / f"{name}-out", **more)

    run("whole")
    with pytest.raises(Stopped):
        run("parts", progress=stop_at_three)
    assert run("parts").resumed_at == 2
    one, other = (load_instruction(tmp_path / f"{name}-out").embeds for name in ("whole", "parts"))
    assert torch.equal(one, other)


def test_more_pairs_than_there_are_is_an_error(tiny_folder, tmp_path):
    columns = column("image", sources()), column("normal", blobs(8))
    with pytest.raises(InputError, match=r"fit\.num_pairs: 9, but there are only 8"):
        fit_visii(VISII.model_copy(update={"num_pairs": 9}), editor_of(tiny_folder), *columns, "go", tmp_path, tmp_path)


def test_the_clip_term_pulls_towards_the_pairs_direction(tiny_folder, tmp_path):
    """A tiny random CLIP whose text is as wide as the editor's: alignment grows when only that term counts."""
    from tests.methods.tiny_clip import write_clip

    clip = write_clip(tmp_path / "clip", text_width=16)
    editor = editor_of(tiny_folder)
    columns = column("image", sources()), column("normal", blobs(8))
    ends = {}
    for name, weight in (("with", 50.0), ("without", 0.0)):
        config = VISII.model_copy(update={"clip_model": str(clip), "clip_weight": weight, "steps": 20})
        result = fit_visii(config, editor, *columns, "go to m", tmp_path / name, tmp_path / f"{name}-out")
        ends[name] = result.losses
    drop = ends["with"][0] - ends["with"][-1]
    assert drop > 5  # far more than the error term alone can give
    wide = write_clip(tmp_path / "wide", text_width=32)
    with pytest.raises(InputError, match=r"clip_model: .*text encoder is 32 wide, the editor's 16"):
        fit_visii(
            VISII.model_copy(update={"clip_model": str(wide)}), editor, *columns, "go", tmp_path / "w", tmp_path / "o"
        )
