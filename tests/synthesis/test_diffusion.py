"""Images from a real, tiny Stable Diffusion: noise by row, batches by memory, flags with unchanged images."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker, cosine_distance
from PIL import Image
from transformers import CLIPConfig, CLIPImageProcessor, CLIPTextConfig, CLIPTextModel, CLIPVisionConfig

from dmp_core.config import load_config
from dmp_core.errors import InputError
from dmp_core.runtime import RuntimeConfig
from dmp_core.stages import execute, plan
from dmp_core.store import Skipped, Workspace, read_artefact
from dmp_core.store.attempts import next_seed
from dmp_core.synthesis.diffusion import ddim_like, first_batch_size
from dmp_core.synthesis.settings import DiffusionImages
from dmp_core.synthesis.sources import Row, open_source
from dmp_core.synthesis.text_to_image import check_text_to_image
from tests.golden.fill import fill_module
from tests.golden.tiny_sd import write_base
from tests.weights.tiny_bases import write_kind

SIDE, STEPS = 64, 3

ROWS: list[Row] = [
    {"key": f"train-{index:08d}", "keyword": "bedroom", "prompt": prompt, "seed": seed}
    for index, (prompt, seed) in enumerate(
        [("a red bed", 3), ("a blue chair by the window", 2**40), ("a red bed", 5), ("", 0), ("a lamp", 7)]
    )
]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As published: a PNDM scheduler, no safety checker."""
    return write_base(tmp_path_factory.mktemp("images") / "tiny_sd")


def settings(model: Path | str, **changes: Any) -> DiffusionImages:
    return DiffusionImages(**{"model": str(model), "resolution": SIDE, "num_inference_steps": STEPS} | changes)


def make(
    model: Path | str, rows: list[Row] = ROWS, batch: int | str = "auto", skips: bool = False, **changes: Any
) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Images (B, H, W, 3) uint8, and each one's json."""
    runtime = RuntimeConfig(device="cpu", image_batch_size=batch, on_bad_sample={"policy": "skip" if skips else "fail"})
    with open_source(settings(model, **changes), runtime) as source:
        samples = list(source.samples(rows))
    assert [sample["__key__"] for sample in samples] == [row["key"] for row in rows]
    pictures = [np.asarray(Image.open(io.BytesIO(sample["png"]))) for sample in samples]
    return np.stack(pictures), [json.loads(sample["json"]) for sample in samples]


def by_diffusers(folder: Path, rows: list[Row], **options: Any) -> Any:
    """What diffusers itself makes of the rows, with DDIM, in one batch."""
    pipeline = StableDiffusionPipeline.from_pretrained(folder)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    return pipeline(
        [row["prompt"] for row in rows],
        height=SIDE,
        width=SIDE,
        num_inference_steps=STEPS,
        generator=[torch.Generator().manual_seed(row["seed"]) for row in rows],
        output_type="np",
        **options,
    )


@pytest.fixture(scope="session")
def plain(folder: Path) -> np.ndarray:
    """The images of all rows in one batch."""
    return make(folder)[0]


def assert_same(images: np.ndarray, others: np.ndarray) -> None:
    """Equal up to rounding: one level of 255, and not in many places."""
    difference = np.abs(images.astype(int) - others.astype(int))
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-3


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[int]]:
    """`memory(n)`: the U-Net runs out of memory above batches of n images; the list records the batch sizes."""
    forward = UNet2DConditionModel.forward

    def limit(images: int) -> list[int]:
        sizes: list[int] = []

        def limited(self: Any, sample: torch.Tensor, *args: Any, **options: Any) -> Any:
            sizes.append(len(sample) // 2)  # with and without the prompt
            if sizes[-1] > images:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 TiB.")
            return forward(self, sample, *args, **options)

        monkeypatch.setattr(UNet2DConditionModel, "forward", limited)
        return sizes

    return limit


# ------------------------------------------------------------------------------ the same image
def test_images_are_those_of_diffusers_with_ddim(folder: Path, plain: np.ndarray) -> None:
    assert_same(plain, (by_diffusers(folder, ROWS).images * 255).round())
    images, _ = make(folder, guidance_scale=2.0, negative_prompt="dark")
    truth = by_diffusers(folder, ROWS, guidance_scale=2.0, negative_prompt=["dark"] * len(ROWS))
    assert_same(images, (truth.images * 255).round())


def test_an_image_is_the_same_alone_and_in_any_batch(folder: Path, plain: np.ndarray) -> None:
    assert_same(make(folder, batch=2)[0], plain)
    assert_same(make(folder, ROWS[1:2])[0], plain[1:2])
    assert_same(make(folder, ROWS[::-1], batch=3)[0], plain[::-1])


def test_seed_and_prompt_each_change_the_image(folder: Path) -> None:
    images, _ = make(folder, [ROWS[0], ROWS[0] | {"seed": 4}, ROWS[0] | {"prompt": "a lamp"}])
    for first, second in ((0, 1), (0, 2)):
        assert np.abs(images[first].astype(int) - images[second]).max() > 1


def test_the_models_own_scheduler_on_request(folder: Path) -> None:
    _, records = make(folder, ROWS[:1], scheduler="model")
    assert records[0]["generator"]["scheduler"] == "PNDMScheduler"


def in_float32(folder: Path, rows: list[Row], networks: torch.dtype) -> np.ndarray:
    """The published loop: networks in half precision, latents and DDIM in float32. 8-bit images."""
    pipeline = StableDiffusionPipeline.from_pretrained(folder, dtype=networks)
    ddim = DDIMScheduler.from_config(pipeline.scheduler.config)
    ddim.set_timesteps(STEPS)
    channels, side = pipeline.unet.config.in_channels, SIDE // pipeline.vae_scale_factor
    noise = [torch.randn(1, channels, side, side, generator=torch.Generator().manual_seed(row["seed"])) for row in rows]
    latents = torch.cat(noise)
    texts = pipeline.encode_prompt([row["prompt"] for row in rows], "cpu", 1, True)
    with torch.no_grad():
        for t in ddim.timesteps:
            both = torch.cat([latents, latents]).to(networks)
            empty, full = pipeline.unet(both, t, encoder_hidden_states=torch.cat(texts[::-1])).sample.chunk(2)
            latents = ddim.step((empty + 7.5 * (full - empty)).float(), t, latents).prev_sample
            assert latents.dtype == torch.float32
        scaled = latents.to(networks) / pipeline.vae.config.scaling_factor
        decoded = torch.cat([pipeline.vae.decode(one).sample for one in scaled.split(1)])
    images = (decoded * 0.5 + 0.5).clamp(0, 1).movedim(1, -1).float().numpy()
    return (images * 255).round().astype(np.uint8)


def test_latents_and_ddim_stay_in_float32(folder: Path, plain: np.ndarray) -> None:
    images, records = make(folder, dtype="bfloat16", float32_latents=True)
    expected = in_float32(folder, ROWS, torch.bfloat16)
    assert_same(images, expected)
    rough = make(folder, dtype="bfloat16")[0]
    assert np.abs(rough.astype(int) - expected).mean() > 0.1
    assert records[0]["generator"]["float32_latents"] is True
    assert_same(make(folder, dtype="float32", float32_latents=True)[0], plain)
    assert_same(make(folder, ROWS[1:2], float32_latents=True)[0], plain[1:2])


def test_a_models_own_scheduler_keeps_its_precision() -> None:
    with pytest.raises(ValueError, match=r"float32_latents: needs scheduler: ddim"):
        settings("any", scheduler="model", float32_latents=True)


def test_json_states_the_origin_of_the_image(folder: Path) -> None:
    record = make(folder, ROWS[1:2], revision="abc")[1][0]
    assert {name: record[name] for name in ROWS[1]} == ROWS[1]
    chosen = {"dtype": "float32", "scheduler": "DDIMScheduler"}
    assert record["generator"] == settings(folder, revision="abc").model_dump() | chosen
    assert "safety" not in record


# -------------------------------------------------------------------------------------- memory
def test_batches_halve_until_they_fit_and_stay_small(
    folder: Path, plain: np.ndarray, memory: Callable[[int], list[int]]
) -> None:
    sizes = memory(2)
    assert_same(make(folder, batch=8)[0], plain)
    # A batch of five fails, then two fit; a step is one call, and the last batch has one image.
    assert sizes == [5, *[2] * STEPS, *[2] * STEPS, *[1] * STEPS]


def test_not_even_one_image_fits(folder: Path, memory: Callable[[int], list[int]]) -> None:
    sizes = memory(0)
    with pytest.raises(InputError, match=r"one image of 64 pixels does not fit .* cpu as float32; lower"):
        make(folder, batch=4)
    assert sizes == [4, 2, 1]


def test_other_errors_are_not_mistaken_for_lack_of_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **options: Any) -> Any:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(UNet2DConditionModel, "forward", fail)
    with pytest.raises(RuntimeError, match="mat1"):
        make(folder)


def test_first_batch_goes_by_pixels() -> None:
    assert [first_batch_size("cuda", side) for side in (64, 512, 1024, 2048)] == [32, 16, 4, 1]
    assert [first_batch_size("cpu", side) for side in (64, 256, 512, 768)] == [32, 4, 1, 1]


# -------------------------------------------------------------------------------------- safety
@pytest.fixture(scope="session")
def checked(folder: Path, plain: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model with a safety checker that flags the one or two images nearest to its first concept."""
    vision = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config=CLIPTextConfig(**vision).to_dict(),
        vision_config=CLIPVisionConfig(**vision, image_size=32, patch_size=8).to_dict(),
        projection_dim=8,
    )
    checker = fill_module(StableDiffusionSafetyChecker(config)).eval()
    extractor = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    pixels = extractor([Image.fromarray(image) for image in plain], return_tensors="pt").pixel_values
    with torch.no_grad():
        embeds = checker.visual_projection(checker.vision_model(pixels)[1])
        likeness = cosine_distance(embeds, checker.concept_embeds)[:, 0].sort().values
        checker.special_care_embeds_weights.fill_(2)
        checker.concept_embeds_weights.fill_(2)
        checker.concept_embeds_weights[0] = likeness[2:4].mean()
    copy = tmp_path_factory.mktemp("checked") / "tiny_sd"
    shutil.copytree(folder, copy)
    checker.save_pretrained(copy / "safety_checker")
    extractor.save_pretrained(copy / "feature_extractor")
    index = json.loads((copy / "model_index.json").read_text())
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    index["feature_extractor"] = ["transformers", "CLIPImageProcessor"]
    (copy / "model_index.json").write_text(json.dumps(index))
    return copy


def test_flags_are_diffusers_own_and_images_stay_as_they_are(plain: np.ndarray, checked: Path) -> None:
    images, records = make(checked, batch=2)
    flags = [record["safety"] for record in records]
    truth = by_diffusers(checked, ROWS)
    assert flags == [{"flagged": flagged} for flagged in truth.nsfw_content_detected]
    assert sorted(flag["flagged"] for flag in flags) == [False] * 3 + [True] * 2
    assert_same(images, plain)


def test_checker_can_be_left_out(plain: np.ndarray, checked: Path) -> None:
    images, records = make(checked, safety_checker=False)
    assert_same(images, plain)
    assert not any("safety" in record for record in records)


# ------------------------------------------------------------------------------------ bad input
@pytest.fixture
def altered(folder: Path, tmp_path: Path) -> Callable[..., Path]:
    """`altered(file, **values)`: a copy of the model with other values in one of its JSON files."""

    def alter(file: str, **values: Any) -> Path:
        copy = tmp_path / "altered"
        shutil.copytree(folder, copy)
        old = json.loads((copy / file).read_text())
        (copy / file).write_text(json.dumps({name: v for name, v in (old | values).items() if v != "leave out"}))
        return copy

    return alter


def planned(model: Path | str, *overrides: str) -> list[Any]:
    images = f"images={{kind: diffusion, model: '{model}', resolution: {SIDE}, num_inference_steps: {STEPS}}}"
    labeler = "labels.normal={kind: omnidata, weights: omnidata-normal-3dcc}"
    return plan(load_config("smoke", None, ["modalities=[normal]", labeler, images, *overrides]))


def test_wrong_models_are_named_before_work(altered: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        planned(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"images\.model: .* model_index\.json is missing"):
        planned(tmp_path)
    with pytest.raises(InputError, match="names no text_encoder"):
        planned(altered("model_index.json", text_encoder="leave out"))


def test_model_that_edits_images_is_refused(altered: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match="takes 9 channels and makes 4, so it edits images"):
        planned(altered("unet/config.json", in_channels=9))


def test_pipeline_of_another_trade_is_refused(altered: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match=r"images\.model: .* AudioLDM2Pipeline"):
        make(altered("model_index.json", _class_name="AudioLDM2Pipeline"))


def test_resolution_must_be_whole_latents(altered: Callable[..., Path]) -> None:
    deep = altered("vae/config.json", block_out_channels=[8] * 5)
    check_text_to_image(settings(deep))
    with pytest.raises(InputError, match=r"images\.resolution: .* multiples of 16 pixels, not 72; set 64"):
        check_text_to_image(settings(deep, resolution=72))


def test_missing_checker_is_named_and_can_be_done_without(altered: Callable[..., Path]) -> None:
    listed = {
        "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
        "feature_extractor": ["transformers", "CLIPImageProcessor"],
    }
    without = altered("model_index.json", **listed)
    with pytest.raises(InputError, match=r"safety_checker: missing; fetch it, or set images\.safety_checker=false"):
        planned(without)
    assert "safety" not in make(without, ROWS[:1], safety_checker=False)[1][0]


def test_incomplete_folder_is_named(altered: Callable[..., Path]) -> None:
    broken = altered("unet/config.json")
    next((broken / "unet").glob("*.safetensors")).unlink()
    with pytest.raises(InputError, match=r"images\.model: .* not a complete diffusers model"):
        make(broken)


def test_number_formats_that_do_not_fit_are_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"images\.dtype: float16 is not for the CPU; set images\.dtype=auto"):
        make(folder, dtype="float16")
    monkeypatch.setattr(AutoencoderKL, "decode", overflowing(AutoencoderKL.decode))
    with pytest.raises(InputError, match=r"images\.dtype: .* overflows in float32"):
        make(folder)


def overflowing(decode: Any) -> Any:
    """Too large by a factor that float32 does not hold."""

    def decoded(self: Any, latents: torch.Tensor, *args: Any, **options: Any) -> Any:
        return decode(self, latents * 1e38 * 1e38, *args, **options)

    return decoded


def filled(decode: Any, bad: list[torch.Tensor], pixel: float) -> Any:
    """Fills the images of these latents with one value; the others of the batch stay unchanged."""

    def decoded(self: Any, latents: torch.Tensor, *args: Any, **options: Any) -> Any:
        (images,) = decode(self, latents, *args, **options)
        for number, own in enumerate(latents):
            if any(torch.allclose(own, other, atol=1e-3) for other in bad):
                images[number] = pixel
        return (images,)

    return decoded


def watched(decode: Any, seen: list[torch.Tensor]) -> Any:
    def decoded(self: Any, latents: torch.Tensor, *args: Any, **options: Any) -> Any:
        seen.extend(latents.clone())
        return decode(self, latents, *args, **options)

    return decoded


@pytest.fixture(scope="session")
def latents(folder: Path) -> dict[str, torch.Tensor]:
    """What is decoded of the first three rows, and of the second from its next seed."""
    decode, seen = AutoencoderKL.decode, []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AutoencoderKL, "decode", watched(decode, seen))
        make(folder, [*ROWS[:3], ROWS[1] | {"seed": next_seed(ROWS[1]["seed"])}], batch=1)
    return dict(zip(("first", "second", "third", "again"), seen, strict=True))


@pytest.mark.parametrize(("pixel", "reason"), [(np.nan, "overflows in float32"), (-1, "makes a black image")])
def test_an_invalid_image_names_its_key_and_prompt(folder, latents, monkeypatch, pixel, reason) -> None:
    monkeypatch.setattr(AutoencoderKL, "decode", filled(AutoencoderKL.decode, [latents["second"]], pixel))
    with pytest.raises(InputError, match=rf"train-00000001: .*{reason}.*'a blue chair by the window' \(seed {2**40}\)"):
        make(folder, ROWS[:3])


@pytest.mark.parametrize("pixel", [np.nan, -1])
def test_an_image_that_is_none_is_made_from_its_next_seed(folder, latents, plain, monkeypatch, pixel) -> None:
    monkeypatch.setattr(AutoencoderKL, "decode", filled(AutoencoderKL.decode, [latents["second"]], pixel))
    images, records = make(folder, ROWS[:3], skips=True)
    seeds = [row["seed"] for row in ROWS[:3]]
    assert [record["seed"] for record in records] == [seeds[0], next_seed(seeds[1]), seeds[2]]
    assert_same(images[[0, 2]], plain[[0, 2]])
    monkeypatch.undo()
    assert_same(images[1:2], make(folder, [ROWS[1] | {"seed": next_seed(seeds[1])}])[0])


def test_an_image_that_fails_twice_is_skipped(folder, latents, plain, monkeypatch) -> None:
    bad = [latents["second"], latents["again"]]
    monkeypatch.setattr(AutoencoderKL, "decode", filled(AutoencoderKL.decode, bad, -1))
    with open_source(settings(folder), RuntimeConfig(device="cpu", on_bad_sample={"policy": "skip"})) as source:
        first, second, third = source.samples(ROWS[:3])
    assert isinstance(second, Skipped)
    assert (second.key, first["__key__"], third["__key__"]) == (ROWS[1]["key"], ROWS[0]["key"], ROWS[2]["key"])
    assert "makes a black image of 'a blue chair by the window'" in second.reason
    assert str(next_seed(ROWS[1]["seed"])) in second.reason


def test_ddim_takes_over_the_noise_schedule_of_its_like_only() -> None:
    published = DDIMScheduler(beta_start=0.001, beta_schedule="scaled_linear", prediction_type="v_prediction")
    made = ddim_like(published)
    assert torch.equal(made.alphas_cumprod, published.alphas_cumprod)
    assert (made.config.prediction_type, made.config.clip_sample) == ("v_prediction", False)
    with pytest.raises(InputError, match=r"FlowMatchEulerDiscreteScheduler; set images\.scheduler=model"):
        ddim_like(FlowMatchEulerDiscreteScheduler())


# --------------------------------------------------------------------------------- in the DAG
def fingerprint(nodes: list[Any]) -> str:
    return next(node.fingerprint for node in nodes if node.id == "images/train")


def test_model_files_and_revision_count_but_the_batch_size_does_not(folder: Path, altered: Callable[..., Path]) -> None:
    before = fingerprint(planned(folder))
    assert fingerprint(planned(folder, "runtime.image_batch_size=3")) == before
    copy = altered("scheduler/scheduler_config.json")
    same = fingerprint(planned(copy))
    (copy / "scheduler" / "scheduler_config.json").write_text("{}")
    assert fingerprint(planned(copy)) != same
    hub = "images.model=some/model"
    assert fingerprint(planned(folder, hub)) != fingerprint(planned(folder, hub, "images.revision=v2"))


def test_mini_prior_fills_the_images_stage_which_resumes_by_shard(workspace: Path) -> None:
    images = f"images={{kind: diffusion, model: 'shipped:mini', resolution: {SIDE}, num_inference_steps: 2}}"
    with pytest.raises(InputError, match="exact labels need rendered images"):
        load_config("smoke", None, [images])
    labeler = "labels.normal={kind: omnidata, weights: omnidata-normal-3dcc}"
    config = load_config("smoke", None, ["modalities=[normal]", labeler, images, "runtime.device=cpu"])
    nodes = [node for node in plan(config) if node.stage == "prompts"] + [
        node for node in plan(config) if node.id == "images/train"
    ]
    for node in nodes:
        made = execute(config, node.id, str(workspace))
    artefact = nodes[-1].artefact(Workspace(str(workspace)))
    samples = list(read_artefact(artefact))
    assert [set(sample) for sample in samples] == [{"__key__", "png", "json"}] * 4
    assert Image.open(io.BytesIO(samples[0]["png"])).size == (SIDE, SIDE)

    first, second = (Path(made.path) / f"shard-00000{number}.tar" for number in (0, 1))
    content, untouched = second.read_bytes(), first.stat().st_mtime_ns
    second.unlink()
    assert not execute(config, "images/train", str(workspace)).cached
    assert (second.read_bytes(), first.stat().st_mtime_ns) == (content, untouched)
    assert execute(config, "images/train", str(workspace)).cached


# ------------------------------------------------------------------------------- few steps
def test_the_turbo_preset_makes_each_image_in_one_pass_of_the_unet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of SD-Turbo's kind: Euler, trailing timesteps, no guidance; no prompt but the caption is encoded."""
    trailing = {
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "timestep_spacing": "trailing",
    }
    model = write_kind(tmp_path / "turbo", "sd21-base")
    EulerDiscreteScheduler(**trailing, steps_offset=1).save_pretrained(model / "scheduler")
    index = json.loads((model / "model_index.json").read_text()) | {
        "scheduler": ["diffusers", "EulerDiscreteScheduler"]
    }
    (model / "model_index.json").write_text(json.dumps(index))
    passes: list[tuple[int, float]] = []
    texts: list[int] = []
    unet, text_encoder = UNet2DConditionModel.forward, CLIPTextModel.forward

    def counted(self: Any, sample: torch.Tensor, timestep: Any, *args: Any, **options: Any) -> Any:
        passes.append((len(sample), float(timestep)))
        return unet(self, sample, timestep, *args, **options)

    def encoded(self: Any, input_ids: torch.Tensor, *args: Any, **options: Any) -> Any:
        texts.append(len(input_ids))
        return text_encoder(self, input_ids, *args, **options)

    preset = load_config("paper-turbo").images
    changes = {"model": str(model), "resolution": SIDE, "dtype": "float32"}
    pipeline = StableDiffusionPipeline.from_pretrained(model)
    by_hand = pipeline(
        [row["prompt"] for row in ROWS], height=SIDE, width=SIDE, num_inference_steps=1, guidance_scale=0.0,
        generator=[torch.Generator().manual_seed(row["seed"]) for row in ROWS], output_type="np",
    )  # fmt: skip
    monkeypatch.setattr(UNet2DConditionModel, "forward", counted)
    monkeypatch.setattr(CLIPTextModel, "forward", encoded)
    images, records = make(batch=len(ROWS), **(preset.model_dump(exclude={"kind"}) | changes))
    assert passes == [(len(ROWS), 999.0)]
    assert texts == [len(ROWS)]
    assert records[0]["generator"]["scheduler"] == "EulerDiscreteScheduler"
    assert_same(images, (by_hand.images * 255).round().astype(np.uint8))


def test_a_negative_prompt_that_nothing_would_read_is_refused() -> None:
    with pytest.raises(InputError, match=r"negative_prompt: only guidance reads it.*guidance_scale above 1"):
        load_config("paper-turbo", None, ["images.negative_prompt=blurred"])
    assert load_config("paper", None, ["images.negative_prompt=blurred"]).images.negative_prompt == "blurred"
