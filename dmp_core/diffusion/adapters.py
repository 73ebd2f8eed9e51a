"""Low-rank adapters on the U-Net (paper, §3.2): add, save, load, import and export.

An adapter is a folder: PEFT's own two files plus ``dmp.json``, which says how to run it.
Files in the format of the published DMP code are read too. Where the whole U-Net was trained, the folder holds
it in diffusers' own format instead.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, PositiveFloat, PositiveInt, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dmp_core.config.base import raise_readable
from dmp_core.config.stages import ScheduleConfig
from dmp_core.diffusion.process import Prediction
from dmp_core.diffusion.sampler import Source
from dmp_core.errors import InputError

CARD_FILE = "dmp.json"
WEIGHTS_FILE = "adapter_model.safetensors"
CONFIG_FILE = "adapter_config.json"
UNET_FILE = "diffusion_pytorch_model.safetensors"
PUBLISHED_FILES = ("pytorch_lora_weights.safetensors", "pytorch_lora_weights.bin")

_PEFT_PREFIX = "base_model.model."
_PROJECTIONS = r"\.(to_q|to_k|to_v|to_out\.0)"
TARGETS = {"attention": r".*\.attn[12]" + _PROJECTIONS, "self_attention": r".*\.attn1" + _PROJECTIONS}
"""Presets by name; a third, "all", is every linear and convolution layer of the U-Net."""

_PUBLISHED_KEY = re.compile(r"(?:unet\.)?(.+\.attn[12])\.processor\.to_(q|k|v|out)_lora\.(down|up)\.weight")

_NOTED = "base_fingerprint"

Init = Literal["gaussian", "kaiming"]


class Encoding(BaseModel):
    """What the decoded channels stand for."""

    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True)

    mode: Literal["RGB", "F"] = "RGB"
    """"RGB": three channels in [0, 1]; "F": one channel, their mean times `scale`."""
    scale: PositiveFloat = 1.0
    """For "F": what 1 stands for, e.g. 8 metres of depth."""
    class_ids: tuple[int, ...] | None = None
    """For segmentation: the classes of the training labels, which colours are decoded among; None: all."""
    class_shares: tuple[PositiveFloat, ...] | None = None
    """In the same order, which part of all labelled pixels each covers."""


class AdapterCard(BaseModel):
    """Contents of ``dmp.json``: how the adapter was trained and is run. Other keys are kept as they are."""

    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True)

    task: str | None = None
    method: str = "dmp"
    prediction: Prediction = "v"
    schedule: ScheduleConfig = ScheduleConfig()
    source: Source = "oracle"
    num_steps: PositiveInt = 5
    encoding: Encoding = Encoding()
    resolution: PositiveInt | None = None
    """Shorter side, in pixels, of the training images."""
    base: str | None = None
    """Name of the model that was adapted."""
    base_fingerprint: str | None = None
    """`fingerprint` of its U-Net; loading on another one is refused."""


# ------------------------------------------------------------------------------------- add
def add_lora(
    unet: Any,
    rank: int = 4,
    alpha: float | None = None,
    targets: str | Sequence[str] = "attention",
    init: Init = "gaussian",
    seed: int | None = None,
) -> Any:
    """Put LoRA layers into ``unet`` (in place, and returned); everything else is frozen.

    rank, alpha: the update is (alpha / rank) · up · down; ``alpha=None`` means alpha = rank, a scale of 1.
    targets: "attention" (q, k, v, out of self- and cross-attention, as published), "self_attention",
        "all" (every linear and convolution layer), a regular expression, or a list of module names.
    init: of the down matrix: "gaussian", N(0, 1/rank²) as published, or "kaiming" uniform. Up starts at
        zero, so the output is unchanged at first.
    seed: makes the initial weights reproducible without touching the global generator.

    LoRA parameters are float32 whatever the U-Net's dtype. Raises InputError when nothing matches.
    """
    from peft import LoraConfig

    if rank < 1:
        raise InputError(f"lora.rank: {rank}; choose 1 or more")
    modules = _target_modules(unet, targets)
    config = LoraConfig(
        r=rank,
        lora_alpha=rank if alpha is None else alpha,  # type: ignore[arg-type]  # any number works
        target_modules=modules,
        init_lora_weights="gaussian" if init == "gaussian" else True,
    )
    with torch.random.fork_rng(devices=[]):
        if seed is not None:
            torch.manual_seed(seed)
        _inject(unet, config)
    return unet


def lora_parameters(unet: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """(name, parameter) of the LoRA matrices, the only trainable ones after :func:`add_lora`."""
    return ((name, p) for name, p in unet.named_parameters() if ".lora_A." in name or ".lora_B." in name)


def _target_modules(unet: nn.Module, targets: str | Sequence[str]) -> str | list[str]:
    if targets == "all":
        return [name for name, module in unet.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    if not isinstance(targets, str):
        return list(targets)
    if targets in TARGETS:
        return TARGETS[targets]
    if targets.isidentifier():  # a misspelt preset, surely, and not a pattern
        raise InputError(f"lora.targets: {targets!r}; choose attention, self_attention, all, a pattern or a list")
    return targets


def _inject(unet: Any, config: Any) -> None:
    if getattr(unet, "peft_config", None):
        raise InputError("unet: it already carries an adapter; load the base model afresh, or remove_adapter() first")
    try:
        unet.add_adapter(config)
    except ValueError as error:
        unet._hf_peft_config_loaded = False  # diffusers sets it first, and would trip over it next time
        raise InputError(f"lora.targets: {config.target_modules!r} fits no layer of this U-Net ({error})") from None
    for _, parameter in lora_parameters(unet):
        parameter.data = parameter.data.float()


def remove_adapter(unet: Any) -> Any:
    """Take the LoRA layers out again (in place, and returned)."""
    unet.unload_lora()
    return unet


def reset_weights(unet: Any, seed: int = 0) -> Any:
    """Replace all weights by fresh ones, as diffusers draws them for a new U-Net (in place, and returned).

    seed: makes them reproducible without touching the global generator.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = type(unet).from_config(unet.config)
    unet.load_state_dict(fresh.state_dict())
    return unet


# ------------------------------------------------------------------------------------ save
def save_unet(
    unet: Any, folder: str | Path, meta: Mapping[str, Any] | AdapterCard, dtype: torch.dtype = torch.float32
) -> Path:
    """Write a whole U-Net plus ``dmp.json``; returns the folder. `meta` as in :func:`save_adapter`.

    Also opens with ``UNet2DConditionModel.from_pretrained(folder)``.
    """
    folder = Path(folder)
    card = meta if isinstance(meta, AdapterCard) else parse_card(meta, "meta")
    folder.mkdir(parents=True, exist_ok=True)
    weights = {key: tensor.detach().to("cpu", dtype).contiguous() for key, tensor in unet.state_dict().items()}
    save_file(weights, folder / UNET_FILE, metadata={"format": "pt"})
    unet.save_config(folder)
    _write_json(folder / CARD_FILE, card.model_dump(mode="json"))
    return folder


def save_adapter(unet: Any, folder: str | Path, meta: Mapping[str, Any] | AdapterCard | None = None) -> Path:
    """Write a PEFT folder plus ``dmp.json``; returns the folder.

    meta: the fields of :class:`AdapterCard`, and any others. ``base_fingerprint`` is filled in.
    Also opens with ``peft.PeftModel.from_pretrained(unet, folder)``.
    """
    from peft import get_peft_model_state_dict

    folder = Path(folder)
    card = meta if isinstance(meta, AdapterCard) else parse_card(meta or {}, "meta")
    if card.base_fingerprint is None:
        card = card.model_copy(update={"base_fingerprint": fingerprint(unet)})
    folder.mkdir(parents=True, exist_ok=True)
    weights = {_PEFT_PREFIX + key: t.detach().cpu().contiguous() for key, t in get_peft_model_state_dict(unet).items()}
    save_file(weights, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    config = unet.peft_config["default"].to_dict() | {"inference_mode": True}
    _write_json(folder / CONFIG_FILE, config)
    _write_json(folder / CARD_FILE, card.model_dump(mode="json"))
    return folder


def _write_json(file: Path, content: Mapping[str, Any]) -> None:
    # PEFT keeps target modules in a set: sorted, so that the same adapter is the same bytes.
    plain = {key: sorted(value) if isinstance(value, set) else value for key, value in content.items()}
    file.write_text(json.dumps(plain, indent=1, ensure_ascii=False) + "\n")


def export_diffusers_lora(unet: Any, folder: str | Path) -> Path:
    """Write ``pytorch_lora_weights.safetensors`` for diffusers' ``pipeline.load_lora_weights``; returns the file."""
    from diffusers import StableDiffusionPipeline
    from peft import get_peft_model_state_dict

    StableDiffusionPipeline.save_lora_weights(
        str(folder),
        unet_lora_layers=get_peft_model_state_dict(unet),
        unet_lora_adapter_metadata=unet.peft_config["default"].to_dict(),
    )
    return Path(folder) / PUBLISHED_FILES[0]


# ------------------------------------------------------------------------------------ load
def load_adapter(unet: Any, path: str | Path, check_base: bool = True) -> AdapterCard:
    """Load an adapter into ``unet`` (in place) and return its card.

    path: a folder written by :func:`save_adapter` or :func:`save_unet` (which replaces all weights), a PEFT
        folder, or a LoRA file of the published DMP code (``.safetensors`` or ``.bin``) or the folder that holds
        one. Without ``dmp.json`` the card has the paper's settings.
    check_base: refuse an adapter that was trained on another base model.

    Raises InputError naming the file when it is missing, damaged, or fits the U-Net only in part.
    """
    weights_file = find_adapter(path)
    card = read_card(weights_file.parent)
    if check_base and card.base_fingerprint not in (None, fingerprint(unet)):
        raise InputError(
            f"{weights_file}: trained on another base model ({card.base or 'unnamed'}, fingerprint "
            f"{card.base_fingerprint}; this U-Net: {fingerprint(unet)}); load that base, or pass check_base=False"
        )
    weights = _read_weights(weights_file)
    if weights_file.name == UNET_FILE:
        _assign_all(unet, weights, weights_file)
        return card
    if any(_PUBLISHED_KEY.fullmatch(key) for key in weights):
        weights, config = _from_published(weights, weights_file)
    else:
        weights = {key.removeprefix(_PEFT_PREFIX): tensor for key, tensor in weights.items()}
        config = _read_config(weights_file.parent)
    _inject(unet, config)
    try:
        _assign(unet, weights, weights_file)
    except InputError:
        remove_adapter(unet)
        raise
    return card


def find_adapter(path: str | Path) -> Path:
    """The weights file at ``path``, itself a file or a folder that holds one of the known names."""
    path = Path(path)
    names = (WEIGHTS_FILE, UNET_FILE, *PUBLISHED_FILES)
    candidates = [path] if path.is_file() else [path / name for name in names]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise InputError(f"{path}: no adapter here; expected a file, or a folder with {' or '.join(names)}")


def read_card(folder: str | Path) -> AdapterCard:
    """``dmp.json`` of an adapter folder, or the paper's settings when there is none."""
    file = Path(folder) / CARD_FILE
    if not file.is_file():
        return AdapterCard()
    try:
        meta = json.loads(file.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: not valid JSON ({error}); write it again with save_adapter") from None
    return parse_card(meta, str(file))


def parse_card(meta: Any, source: str) -> AdapterCard:
    """Validate a mapping as a card; ``source`` opens every line of the error."""
    try:
        return AdapterCard.model_validate(dict(meta) if isinstance(meta, Mapping) else meta)
    except ValidationError as error:
        raise_readable(error, source)


def fingerprint(unet: nn.Module) -> str:
    """16 hex digits that tell one base U-Net from another, adapters aside.

    Hashes names, shapes and the first 256 values of every tensor, rounded to half precision, so that
    a float16 copy has the fingerprint of its float32 original. bfloat16 keeps too few digits for that: who casts to
    it notes the fingerprint first (`note_fingerprint`).
    """
    if (noted := getattr(unet, _NOTED, None)) is not None:
        return str(noted)
    digest = hashlib.sha256()
    plain = {k.replace(".base_layer.", "."): v for k, v in unet.state_dict().items() if ".lora_" not in k}
    for key in sorted(plain):
        head = plain[key].detach().flatten()[:256].to("cpu", torch.float16)
        digest.update(f"{key} {tuple(plain[key].shape)}".encode())
        digest.update(head.numpy().tobytes())
    return digest.hexdigest()[:16]


def note_fingerprint(module: nn.Module) -> None:
    """Keep the fingerprint of the weights as they are now, whatever they are cast to later."""
    setattr(module, _NOTED, fingerprint(module))


def _read_weights(file: Path) -> dict[str, Tensor]:
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, EOFError, OSError) as error:
        raise InputError(f"{file}: cannot be read as LoRA weights ({error}); fetch or write it again") from None
    except Exception as error:  # torch.load raises pickle's own for code in a file, and more
        raise InputError(f"{file}: refused, it holds more than tensors ({type(error).__name__})") from None
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise InputError(f"{file}: expected a mapping from names to tensors")
    return loaded


def _read_config(folder: Path) -> Any:
    from peft import LoraConfig

    if not (folder / CONFIG_FILE).is_file():
        raise InputError(f"{folder / CONFIG_FILE}: missing; an adapter folder needs it beside {WEIGHTS_FILE}")
    try:
        return LoraConfig.from_pretrained(str(folder))
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{folder / CONFIG_FILE}: not a LoRA configuration ({error})") from None


def _from_published(weights: Mapping[str, Tensor], file: Path) -> tuple[dict[str, Tensor], Any]:
    """Published names to PEFT's: X.processor.to_q_lora.down -> X.to_q.lora_A (out -> to_out.0); scale 1."""
    from peft import LoraConfig

    renamed, modules = {}, set()
    for key, tensor in weights.items():
        match = _PUBLISHED_KEY.fullmatch(key)
        if match is None:
            raise InputError(f"{file}: key {key!r} is not of the published LoRA format")
        attention, projection, matrix = match.groups()
        module = f"{attention}.to_{projection}" + (".0" if projection == "out" else "")
        modules.add(module)
        renamed[f"{module}.lora_{'A' if matrix == 'down' else 'B'}.weight"] = tensor
    rank = min(next(iter(renamed.values())).shape)
    return renamed, LoraConfig(r=rank, lora_alpha=rank, target_modules=sorted(modules))


def _assign_all(unet: nn.Module, weights: Mapping[str, Tensor], file: Path) -> None:
    if getattr(unet, "peft_config", None):
        raise InputError("unet: it already carries an adapter; load the base model afresh, or remove_adapter() first")
    note_fingerprint(unet)
    try:
        unet.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{file}: not the weights of this U-Net ({reason[:200]}); wrong base model?") from None


def _assign(unet: nn.Module, weights: Mapping[str, Tensor], file: Path) -> None:
    """Copy the weights in, every one and no other."""
    own = {name.replace(".default.", "."): parameter for name, parameter in lora_parameters(unet)}
    matched = own.keys() & weights.keys()
    if not matched:
        raise InputError(f"{file}: no key fits this U-Net (e.g. {min(weights, default='none')}); wrong base model?")
    problems = [
        *(f"{key} is missing from the file" for key in sorted(own.keys() - matched)),
        *(f"{key} has no place in the U-Net" for key in sorted(weights.keys() - matched)),
        *(
            f"{key} is {tuple(weights[key].shape)}, the U-Net needs {tuple(own[key].shape)}"
            for key in sorted(matched)
            if weights[key].shape != own[key].shape
        ),
    ]
    if problems:
        raise InputError(f"{file}: fits this U-Net only in part ({len(problems)} keys do not): {problems[0]}")
    with torch.no_grad():
        for key in matched:
            own[key].copy_(weights[key])
