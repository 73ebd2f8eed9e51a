"""LoRA on the U-Net: added, saved, loaded; and what happens to files that do not fit."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dmp_core.diffusion import (
    AdapterCard,
    DMPPipeline,
    add_lora,
    export_diffusers_lora,
    fingerprint,
    load_adapter,
    lora_parameters,
    read_card,
    remove_adapter,
    save_adapter,
    save_unet,
)
from dmp_core.diffusion.adapters import (
    CARD_FILE,
    CONFIG_FILE,
    UNET_FILE,
    WEIGHTS_FILE,
    check_base_model,
    content_digest,
)
from dmp_core.diffusion.card import Encoding
from dmp_core.errors import InputError
from dmp_core.resources import manifest_root
from tests.golden.fill import fill_value
from tests.golden.tiny_sd import build_parts


def output(unet: Any) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    y_t, text = torch.randn(1, 4, 8, 8, generator=generator), torch.randn(1, 7, 32, generator=generator)
    with torch.no_grad():
        return unet(y_t, torch.tensor([37]), encoder_hidden_states=text).sample


def fill(unet: Any) -> Any:
    """LoRA weights that change the output."""
    with torch.no_grad():
        for name, parameter in lora_parameters(unet):
            parameter.copy_(fill_value(name, tuple(parameter.shape)))
    return unet


@pytest.fixture
def adapted(unet: Any) -> Any:
    return fill(add_lora(unet, rank=2, targets="attention"))


@pytest.fixture
def folder(adapted: Any, tmp_path: Path) -> Path:
    return save_adapter(adapted, tmp_path / "adapter", {"task": "normal", "base": "tiny"})


# ---------------------------------------------------------------------------------------- add
@pytest.mark.parametrize(
    ("targets", "layers"),
    [("attention", 48), ("self_attention", 24), ("all", 121), (["to_q", "conv_in"], 13), (r".*\.to_v", 12)],
)
def test_targets(unet: Any, targets: Any, layers: int) -> None:
    before = output(unet)
    add_lora(unet, rank=3, targets=targets)
    names = [name for name, _ in lora_parameters(unet)]
    assert len(names) == 2 * layers
    assert {name for name, p in unet.named_parameters() if p.requires_grad} == set(names)
    torch.testing.assert_close(output(unet), before, rtol=0, atol=1e-5)


def test_all_targets_learn(unet: Any) -> None:
    """Every matrix gets a gradient once neither factor is zero; nothing else does."""
    fill(add_lora(unet, rank=2, targets="all"))
    text = torch.randn(2, 7, 32)
    unet(torch.randn(2, 4, 8, 8), torch.tensor([3, 900]), encoder_hidden_states=text).sample.square().mean().backward()
    for name, parameter in lora_parameters(unet):
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    assert all(p.grad is None for name, p in unet.named_parameters() if ".lora_" not in name)


def test_alpha_scales_the_update(unet: Any) -> None:
    before = output(unet)
    scaled = {}
    for alpha in (None, 2.0, 4.0):
        adapted = fill(add_lora(build_parts()["unet"], rank=2, alpha=alpha, targets=["conv_out"]))
        scaled[alpha] = output(adapted) - before
    torch.testing.assert_close(scaled[None], scaled[2.0])
    torch.testing.assert_close(scaled[4.0], 2 * scaled[2.0], rtol=1e-3, atol=1e-5)


def test_seed_makes_the_start_reproducible(unet: Any) -> None:
    state = torch.random.get_rng_state()
    first = dict(lora_parameters(add_lora(unet, seed=3)))
    assert torch.equal(torch.random.get_rng_state(), state)
    second = dict(lora_parameters(add_lora(build_parts()["unet"], seed=3)))
    other = dict(lora_parameters(add_lora(build_parts()["unet"], seed=4)))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_kaiming_start_is_another(unet: Any) -> None:
    add_lora(unet, rank=4, init="kaiming", seed=0)
    down = torch.cat([p.flatten() for name, p in lora_parameters(unet) if "lora_A" in name])
    assert down.abs().max() <= 1 / 32**0.5 + 1e-6  # uniform in ±1/√fan_in, for 32 channels or more


def test_lora_stays_in_single_precision(unet: Any) -> None:
    unet.to(torch.bfloat16)
    add_lora(unet, targets="all")
    assert {parameter.dtype for _, parameter in lora_parameters(unet)} == {torch.float32}
    text = torch.zeros(1, 7, 32, dtype=torch.bfloat16)
    out = unet(torch.zeros(1, 4, 8, 8, dtype=torch.bfloat16), torch.tensor([1]), encoder_hidden_states=text).sample
    assert out.dtype == torch.bfloat16


def test_wrong_settings_are_named(unet: Any) -> None:
    with pytest.raises(InputError, match=r"lora\.rank: 0; choose 1 or more"):
        add_lora(unet, rank=0)
    with pytest.raises(InputError, match=r"lora\.targets: 'attentoin'; choose attention, self_attention, all"):
        add_lora(unet, targets="attentoin")
    with pytest.raises(InputError, match=r"lora\.targets: .*fits no layer"):
        add_lora(unet, targets=["nowhere"])
    add_lora(unet)
    with pytest.raises(InputError, match="already carries an adapter"):
        add_lora(unet)


def test_removed_adapter_leaves_the_base(adapted: Any) -> None:
    assert not torch.allclose(output(adapted), output(build_parts()["unet"]), atol=1e-2)
    assert torch.equal(output(remove_adapter(adapted)), output(build_parts()["unet"]))
    add_lora(adapted)  # another one can be added


# --------------------------------------------------------------------------------- save, load
@pytest.mark.parametrize("targets", ["attention", "self_attention", "all"])
def test_saved_adapter_comes_back(unet: Any, tmp_path: Path, targets: str) -> None:
    fill(add_lora(unet, rank=2, alpha=3.0, targets=targets))
    save_adapter(unet, tmp_path, {"task": "depth", "encoding": {"mode": "F", "scale": 8.0}, "note": "kept"})
    other = build_parts()["unet"]
    card = load_adapter(other, tmp_path)
    assert torch.equal(output(other), output(unet))
    assert card.encoding.scale == 8
    assert card.model_dump()["note"] == "kept"
    assert card.base_fingerprint == fingerprint(other)
    assert read_card(tmp_path) == card


def test_folder_opens_with_peft(folder: Path, adapted: Any) -> None:
    from peft import PeftModel

    opened = PeftModel.from_pretrained(build_parts()["unet"], str(folder))
    assert torch.equal(output(opened), output(adapted))


def test_same_adapter_same_bytes(folder: Path, adapted: Any, tmp_path: Path) -> None:
    again = save_adapter(adapted, tmp_path / "again", {"task": "normal", "base": "tiny"})
    for name in (WEIGHTS_FILE, CONFIG_FILE, CARD_FILE):
        assert (again / name).read_bytes() == (folder / name).read_bytes()


def test_saving_leaves_the_adapter_trainable(folder: Path, adapted: Any) -> None:
    assert all(parameter.requires_grad for _, parameter in lora_parameters(adapted))
    assert not adapted.peft_config["default"].inference_mode


def test_exported_file_opens_in_stable_diffusion(adapted: Any, tmp_path: Path) -> None:
    from diffusers import StableDiffusionPipeline

    file = export_diffusers_lora(adapted, tmp_path)
    assert file.is_file()
    parts = build_parts()
    pipeline = StableDiffusionPipeline(**parts, safety_checker=None, feature_extractor=None)
    pipeline.load_lora_weights(str(tmp_path))
    torch.testing.assert_close(output(pipeline.unet), output(adapted))


def test_card_defaults_are_the_papers(tmp_path: Path) -> None:
    card = read_card(tmp_path)
    assert (card.prediction, card.source, card.num_steps) == ("v", "oracle", 5)
    assert (card.schedule.spacing, card.schedule.zero_terminal_snr) == ("leading", False)


# ------------------------------------------------------------------------------ published files
def published(suffix: str, folder: Path) -> Path:
    weights = load_file(Path(__file__).parents[1] / "data/golden/tiny_lora/pytorch_lora_weights.safetensors")
    file = folder / f"pytorch_lora_weights{suffix}"
    torch.save(weights, file) if suffix == ".bin" else save_file(weights, file)
    return file


@pytest.mark.parametrize("as_folder", [True, False])
@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_published_files_load(unet: Any, tmp_path: Path, suffix: str, as_folder: bool) -> None:
    file = published(suffix, tmp_path)
    card = load_adapter(unet, tmp_path if as_folder else file)
    assert card == AdapterCard(encoding=Encoding(axes="right, down, away"))
    assert sum(1 for _ in lora_parameters(unet)) == 96
    assert not torch.allclose(output(unet), output(build_parts()["unet"]), atol=1e-2)


def test_published_file_becomes_a_folder_of_ours(unet: Any, tmp_path: Path) -> None:
    load_adapter(unet, published(".bin", tmp_path))
    other = build_parts()["unet"]
    load_adapter(other, save_adapter(unet, tmp_path / "ours"))
    assert torch.equal(output(other), output(unet))


def test_file_with_code_is_refused(unet: Any, tmp_path: Path) -> None:
    file = tmp_path / "pytorch_lora_weights.bin"
    file.write_bytes(pickle.dumps({"weights": print}, protocol=2))
    with pytest.raises(InputError, match=r"pytorch_lora_weights\.bin"):
        load_adapter(unet, file)


# ------------------------------------------------------------------------------ files that misfit
def edit_json(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def edit_weights(file: Path, edit: Any) -> None:
    save_file(dict(edit(key, tensor) for key, tensor in load_file(file).items()), file)


def refused(folder: Path, match: str, check_base: bool = True) -> None:
    """Refused with this message, and the U-Net does not change."""
    unet = build_parts()["unet"]
    with pytest.raises(InputError, match=match):
        load_adapter(unet, folder, check_base)
    assert not any(True for _ in lora_parameters(unet))


def test_missing_folder(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", r"nowhere: no adapter here; expected a file, or a folder with adapter_model")


def test_no_key_fits(folder: Path) -> None:
    edit_weights(folder / WEIGHTS_FILE, lambda key, tensor: (f"other.{key}", tensor))
    refused(folder, rf"{WEIGHTS_FILE}: no key fits this U-Net")


def test_a_key_is_missing(folder: Path) -> None:
    edit_weights(folder / WEIGHTS_FILE, lambda key, tensor: (key.replace("mid_block", "mid"), tensor))
    refused(folder, rf"{WEIGHTS_FILE}: fits this U-Net only in part \(32 keys do not\): mid_block.* is missing")


def test_a_shape_differs(folder: Path) -> None:
    edit_weights(folder / WEIGHTS_FILE, lambda key, tensor: (key, tensor[:1].clone() if "lora_A" in key else tensor))
    refused(folder, r"only in part .* is \(1, 32\), the U-Net needs \(2, 32\)")


def test_damaged_files(folder: Path) -> None:
    (folder / CARD_FILE).write_text("{")
    refused(folder, rf"{CARD_FILE}: not valid JSON")
    (folder / CARD_FILE).unlink()
    (folder / WEIGHTS_FILE).write_bytes(b"\0" * 20)
    refused(folder, rf"{WEIGHTS_FILE}: cannot be read as LoRA weights")


def test_card_is_validated(folder: Path) -> None:
    edit_json(folder / CARD_FILE, prediction="epsilon")
    refused(folder, rf"{CARD_FILE}: prediction: .*'epsilon'")


def test_config_is_needed(folder: Path) -> None:
    (folder / CONFIG_FILE).unlink()
    refused(folder, rf"{CONFIG_FILE}: missing")


def test_another_base_is_refused_by_default(folder: Path) -> None:
    unet = build_parts()["unet"]
    with torch.no_grad():
        unet.conv_in.weight.add_(0.5)
    with pytest.raises(InputError, match=r"trained on another base model \(tiny, fingerprint .*check_base=False"):
        load_adapter(unet, folder)
    load_adapter(unet, folder, check_base=False)


def test_fingerprint_depends_on_weights_but_not_on_precision_or_adapters(unet: Any) -> None:
    before = fingerprint(unet)
    assert len(before) == 16
    assert fingerprint(build_parts()["unet"].half()) == before
    assert fingerprint(add_lora(unet, targets="all")) == before
    assert fingerprint(build_parts()["vae"]) != before


def test_digest_depends_on_every_value_but_not_on_precision_or_adapters(unet: Any) -> None:
    before = content_digest(unet)
    assert content_digest(build_parts()["unet"].half()) == before
    assert content_digest(add_lora(unet, targets="all")) == before
    largest = max(unet.state_dict().values(), key=lambda weight: weight.numel())
    for place in (0, 300, -1):
        largest.view(-1)[place] += 0.5
        assert content_digest(unet) != before
        largest.view(-1)[place] -= 0.5


def test_shipped_adapters_whose_cards_have_no_digest_belong_to_every_value_of_the_shipped_base() -> None:
    base = DMPPipeline.from_pretrained(manifest_root() / "priors" / "mini")
    for folder in sorted((manifest_root() / "adapters").iterdir()):
        check_base_model(read_card(folder), folder, base.unet, base.vae)
    with torch.no_grad():
        base.vae.decoder.conv_in.weight.view(-1)[-1] += 0.1
    with pytest.raises(InputError, match=r"trained on another VAE \(shipped:mini"):
        check_base_model(read_card(folder), folder, base.unet, base.vae)


def test_whole_weights_that_do_not_fit_change_nothing(unet: Any, tmp_path: Path) -> None:
    save_unet(build_parts()["unet"], tmp_path, {})
    edit_weights(tmp_path / UNET_FILE, lambda key, tensor: (key, tensor[:1] if key == "conv_out.bias" else tensor + 1))
    before = {name: tensor.clone() for name, tensor in unet.state_dict().items()}
    with pytest.raises(InputError, match=rf"{UNET_FILE}: not the weights of this U-Net \(conv_out\.bias is"):
        load_adapter(unet, tmp_path)
    assert all(torch.equal(tensor, before[name]) for name, tensor in unet.state_dict().items())


def test_weights_that_are_not_finite_are_not_saved(adapted: Any, tmp_path: Path) -> None:
    with torch.no_grad():
        next(p for _, p in lora_parameters(adapted))[0, 0] = float("nan")
    with pytest.raises(InputError, match=rf"{WEIGHTS_FILE}: tensor .* holds NaN"):
        save_adapter(adapted, tmp_path / "out", {})
    assert not (tmp_path / "out" / WEIGHTS_FILE).exists()


def test_newer_fields_of_a_card_are_written_only_where_they_say_something():
    """Adapters that are trained again have the same bytes."""
    assert "use_prompt" not in AdapterCard(task="depth").model_dump(mode="json")
    assert AdapterCard(task="depth", use_prompt=False).model_dump(mode="json")["use_prompt"] is False
