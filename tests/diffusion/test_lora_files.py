"""LoRA files of other programs: read correctly, or refused in one line without changing the U-Net."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dmp_core.diffusion import add_lora, export_diffusers_lora, load_adapter, lora_parameters, save_adapter
from dmp_core.diffusion.lora_files import CONFIG_FILE, WEIGHTS_FILE
from dmp_core.errors import InputError
from tests.diffusion.test_adapters import fill, output
from tests.golden.tiny_sd import build_parts

FILE = "pytorch_lora_weights.safetensors"


@pytest.fixture
def adapted(unet: Any) -> Any:
    """Rank 2, scale 1.5, on all attention projections."""
    return fill(add_lora(unet, rank=2, alpha=3.0, targets="attention"))


@pytest.fixture
def folder(adapted: Any, tmp_path: Path) -> Path:
    return save_adapter(adapted, tmp_path / "adapter", {})


def plain_weights(unet: Any) -> dict[str, Tensor]:
    """X.to_q.lora_A.weight …, in the formats, under different names."""
    return {name.replace(".default", ""): p.detach().clone() for name, p in lora_parameters(unet)}


def old_name(name: str) -> str:
    """As in diffusers' attention processors."""
    name = re.sub(r"\.to_out\.0\.lora_", ".processor.to_out_lora.", name)
    name = re.sub(r"\.to_([qkv])\.lora_", r".processor.to_\1_lora.", name)
    return name.replace("_lora.A.", "_lora.down.").replace("_lora.B.", "_lora.up.")


def loaded(place: Path) -> Any:
    unet = build_parts()["unet"]
    load_adapter(unet, place)
    return unet


def test_our_own_export_is_read_back(adapted: Any, tmp_path: Path) -> None:
    export_diffusers_lora(adapted, tmp_path)
    assert torch.equal(output(loaded(tmp_path)), output(adapted))


def test_lora_saved_by_diffusers_is_read_back(adapted: Any, tmp_path: Path) -> None:
    adapted.save_lora_adapter(tmp_path)
    assert torch.equal(output(loaded(tmp_path)), output(adapted))


@pytest.mark.parametrize("prefix", ["", "unet."])
@pytest.mark.parametrize(
    "names", [("lora.down", "lora.up"), ("lora_A", "lora_B"), ("lora_linear_layer.down", "lora_linear_layer.up")]
)
def test_names_of_all_generations(unet: Any, tmp_path: Path, names: tuple[str, str], prefix: str) -> None:
    """Without a stated alpha the scale is 1."""
    fill(add_lora(unet, rank=2, targets="attention"))
    down, up = names
    weights = {prefix + k.replace("lora_A", down).replace("lora_B", up): t for k, t in plain_weights(unet).items()}
    save_file(weights, tmp_path / "any_name.safetensors")
    assert torch.equal(output(loaded(tmp_path / "any_name.safetensors")), output(unet))


def test_alphas_of_layers_scale_their_matrices(adapted: Any, tmp_path: Path) -> None:
    weights = {old_name(name): tensor for name, tensor in plain_weights(adapted).items()}
    alphas = {name.replace(".down.weight", ".alpha"): torch.tensor(3.0) for name in weights if ".down.weight" in name}
    save_file({f"unet.{name}": tensor for name, tensor in (weights | alphas).items()}, tmp_path / FILE)
    torch.testing.assert_close(output(loaded(tmp_path)), output(adapted))


def widths(name: str) -> int:
    return 4 if ".attn1." in name else 200  # 200 is above the width of every layer, 32 to 128


@pytest.mark.parametrize("rank_of", [widths, lambda name: 200], ids=["mixed", "above the width"])
def test_any_ranks(unet: Any, tmp_path: Path, rank_of: Any) -> None:
    """The output is that of the base whose weights have the update added."""
    base = {name: weight for name, weight in unet.state_dict().items()}
    generator, weights = torch.Generator().manual_seed(0), {}
    shapes = {name: base[name].shape for name in base if re.search(r"\.attn[12]\.to_(q|k|v|out\.0)\.weight", name)}
    for name, (outputs, inputs) in shapes.items():
        module, rank = name.removesuffix(".weight"), rank_of(name)
        a, b = torch.randn(rank, inputs, generator=generator), torch.randn(outputs, rank, generator=generator) / 1000
        weights |= {f"{module}.lora_A.weight": a, f"{module}.lora_B.weight": b}
    save_file({old_name(name): tensor for name, tensor in weights.items()}, tmp_path / FILE)
    found = output(loaded(tmp_path))
    for name in shapes:
        module = name.removesuffix(".weight")
        base[name] = base[name] + weights[f"{module}.lora_B.weight"] @ weights[f"{module}.lora_A.weight"]
    unet.load_state_dict(base)
    torch.testing.assert_close(found, output(unet), rtol=1e-3, atol=1e-4)


def edit(folder: Path, **changes: Any) -> None:
    file = folder / CONFIG_FILE
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_target_modules_may_be_missing(adapted: Any, folder: Path) -> None:
    for missing in (None, []):
        edit(folder, target_modules=missing)
        assert torch.equal(output(loaded(folder)), output(adapted))


def test_unknown_keys_and_dropout_are_read(adapted: Any, folder: Path) -> None:
    edit(folder, lora_dropout=0.5, of_tomorrow={"a": 1})
    assert torch.equal(output(loaded(folder)), output(adapted))


ODD: list[tuple[Any, str]] = [
    ({"r": 0}, f"{CONFIG_FILE}: r: .*greater than 0"),
    ({"r": "2"}, f"{CONFIG_FILE}: r: .*integer"),
    ({"r": 10**9}, f"{CONFIG_FILE}: r: rank 1000000000, but the file's tensors are of rank 2"),
    ({"lora_alpha": None}, f"{CONFIG_FILE}: lora_alpha: "),
    ({"lora_dropout": 1.5}, f"{CONFIG_FILE}: lora_dropout: "),
    ({"target_modules": 7}, f"{CONFIG_FILE}: target_modules"),
    ({"target_modules": "("}, "fits no layer of this U-Net"),
    ({"target_modules": ["nowhere"]}, "fits no layer of this U-Net"),
    ({"target_modules": ["to_q", "conv_in"]}, "fits this U-Net only in part"),
    ({"rank_pattern": {"to_q": 1}}, "fits this U-Net only in part"),
    ({"peft_type": "LOHA"}, f"{CONFIG_FILE}: peft_type: "),
    ({"use_dora": True}, f"{CONFIG_FILE}: use_dora: this kind of LoRA is not supported"),
    ({"init_lora_weights": "pissa"}, f"{CONFIG_FILE}: init_lora_weights: "),
    ({"modules_to_save": ["conv_out"]}, f"{CONFIG_FILE}: modules_to_save: "),
    ("{", f"{CONFIG_FILE}: not a LoRA configuration"),
    ("[1]", f"{CONFIG_FILE}: not a LoRA configuration .expected an object, found list"),
    ("[" * 100_000, f"{CONFIG_FILE}: not a LoRA configuration"),
    (b"\xff\xfe\x00", f"{CONFIG_FILE}: cannot be read"),
]


@pytest.mark.parametrize(("content", "message"), ODD, ids=[str(content)[:30] for content, _ in ODD])
def test_odd_configurations_leave_the_unet_as_it_was(
    folder: Path, adapted: Any, tmp_path: Path, content: Any, message: str
) -> None:
    good = save_adapter(adapted, tmp_path / "good", {})
    if isinstance(content, dict):
        edit(folder, **content)
    else:
        (folder / CONFIG_FILE).write_bytes(content if isinstance(content, bytes) else content.encode())
    unet = build_parts()["unet"]
    before, learns = unet.state_dict(), [p.requires_grad for p in unet.parameters()]
    with pytest.raises(InputError, match=message):
        load_adapter(unet, folder)
    assert unet.state_dict().keys() == before.keys()
    assert [p.requires_grad for p in unet.parameters()] == learns
    load_adapter(unet, good)
    assert torch.equal(output(unet), output(adapted))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"text_encoder.x.lora_A.weight": torch.zeros(2, 2)}, "also adapts the text encoder"),
        ({"something.else": torch.zeros(2, 2)}, "key 'something.else' is not of a known LoRA format"),
    ],
)
def test_files_without_a_lora_of_a_unet_are_refused(adapted: Any, tmp_path: Path, more: Any, message: str) -> None:
    save_file(plain_weights(adapted) | more, tmp_path / FILE)
    with pytest.raises(InputError, match=f"{FILE}: {message}"):
        loaded(tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_refused_by_file_and_tensor(folder: Path, value: float) -> None:
    weights = load_file(folder / WEIGHTS_FILE)
    name = sorted(weights)[3]
    weights[name].view(-1)[-1] = value
    save_file(weights, folder / WEIGHTS_FILE)
    with pytest.raises(InputError, match=f"{WEIGHTS_FILE}: tensor {re.escape(name)} holds NaN or infinity"):
        loaded(folder)
