"""Low-rank adapters on the U-Net (paper, §3.2): add, save, load, import and export.

An adapter is a folder: PEFT's own two files plus ``dmp.json``, which states how to run it.
Files in the format of the published DMP code can be read as well. Where the whole U-Net was trained, the folder holds
it in diffusers' own format instead.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dmp_core.diffusion.card import CARD_FILE, PUBLISHED_FILES, AdapterCard, parse_card, read_card
from dmp_core.diffusion.lora_files import CONFIG_FILE, PEFT_FILES, WEIGHTS_FILE, as_peft
from dmp_core.diffusion.shipped import shipped_folder
from dmp_core.errors import InputError
from dmp_core.finite import check_weights

UNET_FILE = "diffusion_pytorch_model.safetensors"

_PEFT_PREFIX = "base_model.model."
_PROJECTIONS = r"\.(to_q|to_k|to_v|to_out\.0)"
TARGETS = {"attention": r".*\.attn[12]" + _PROJECTIONS, "self_attention": r".*\.attn1" + _PROJECTIONS}
"""Presets by name; a third, "all", is every linear and convolution layer of the U-Net."""

_NOTED = "noted_identity"
_IDENTICAL = {
    "a595d7d4d7f73bcd": "ee2572c0abc9fd0d3f549d5ca68abc2206bfb3c7f6ab1e82e4a17b141b64edd7",
    "a04ed142f36de4d7": "5214f2255b4de02dc839e8f6af2cd204bdffcdca5bb9c839f58af32d869e8977",
}
"""Fingerprint → digest of the U-Net and the VAE that ship: the cards of the shipped adapters have no digests yet."""

Init = Literal["gaussian", "kaiming"]


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
        lora_alpha=rank if alpha is None else alpha,  # type: ignore[arg-type]  # any number is valid
        target_modules=modules,
        init_lora_weights="gaussian" if init == "gaussian" else True,
    )
    with torch.random.fork_rng(devices=[]):
        if seed is not None:
            torch.manual_seed(seed)
        _inject(unet, config, "lora.targets")
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
    if targets.isidentifier():  # a misspelt preset, not a pattern
        raise InputError(f"lora.targets: {targets!r}; choose attention, self_attention, all, a pattern or a list")
    return targets


def _inject(unet: Any, config: Any, source: str) -> None:
    """Add the layers, or leave the U-Net unchanged and raise InputError, which starts with `source`."""
    _check_bare(unet)
    targets = str(config.target_modules)
    try:
        with _or_untouched(unet):
            unet.add_adapter(config)
    except Exception as error:  # PEFT raises many kinds of errors
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{source}: {targets[:200]!r} fits no layer of this U-Net ({reason})") from None
    unet.train(unet.training)  # new layers are in training mode, whatever the mode of the others
    for _, parameter in lora_parameters(unet):
        parameter.data = parameter.data.float()


@contextmanager
def _or_untouched(unet: Any) -> Iterator[None]:
    """On an error remove the new layers, and make trainable again what was trainable."""
    learned = {parameter: parameter.requires_grad for parameter in unet.parameters()}
    try:
        yield
    except BaseException:
        remove_adapter(unet)
        for parameter, learns in learned.items():
            parameter.requires_grad_(learns)
        raise


def _check_bare(unet: Any) -> None:
    if getattr(unet, "peft_config", None):
        raise InputError("unet: it already carries an adapter; load the base model again, or remove_adapter() first")


def remove_adapter(unet: Any) -> Any:
    """Remove the LoRA layers (in place, and returned)."""
    unet.unload_lora()
    return unet


def reset_weights(unet: Any, seed: int = 0) -> Any:
    """Replace all weights by new random ones, drawn as diffusers does for a new U-Net (in place, and returned).

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
    check_weights(weights, folder / UNET_FILE)
    save_file(weights, folder / UNET_FILE, metadata={"format": "pt"})
    unet.save_config(folder)
    _write_json(folder / CARD_FILE, card.model_dump(mode="json"))
    return folder


def save_adapter(unet: Any, folder: str | Path, meta: Mapping[str, Any] | AdapterCard | None = None) -> Path:
    """Write a PEFT folder plus ``dmp.json``; returns the folder.

    meta: the fields of :class:`AdapterCard`, and any others. What identifies the U-Net is filled in.
    Also opens with ``peft.PeftModel.from_pretrained(unet, folder)``.
    """
    from peft import get_peft_model_state_dict

    folder = Path(folder)
    card = meta if isinstance(meta, AdapterCard) else parse_card(meta or {}, "meta")
    card = card.model_copy(update=_identified(card, unet))
    folder.mkdir(parents=True, exist_ok=True)
    weights = {_PEFT_PREFIX + key: t.detach().cpu().contiguous() for key, t in get_peft_model_state_dict(unet).items()}
    check_weights(weights, folder / WEIGHTS_FILE)
    save_file(weights, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    config = unet.peft_config["default"].to_dict() | {"inference_mode": True}
    _write_json(folder / CONFIG_FILE, config)
    _write_json(folder / CARD_FILE, card.model_dump(mode="json"))
    return folder


def write_card(folder: Path, card: AdapterCard) -> None:
    """Write ``dmp.json`` with what the card states."""
    _write_json(folder / CARD_FILE, card.stated())


def _write_json(file: Path, content: Mapping[str, Any]) -> None:
    # PEFT keeps target modules in a set: sorted, so that equal adapters are equal bytes.
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
def load_adapter(unet: Any, path: str | Path, check_base: bool = True, vae: Any = None) -> AdapterCard:
    """Load an adapter into ``unet`` (in place) and return its card.

    path: ``shipped:NAME``, a folder written by :func:`save_adapter` or :func:`save_unet` (which replaces all weights),
        a PEFT folder, or a LoRA file as diffusers or the published DMP code writes it (``.safetensors`` or ``.bin``) or
        the folder that holds one. Without ``dmp.json`` the card has the paper's settings.
    check_base: refuse an adapter that was trained on another base model.
    vae: of the base model, which is then verified too.

    Raises InputError naming the file when it is missing, damaged, not finite, or fits the U-Net only in part; the
    U-Net is then unchanged.
    """
    _check_bare(unet)
    weights_file = find_adapter(path)
    card = read_card(weights_file.parent)
    if check_base:
        check_base_model(card, weights_file, unet, vae)
    weights = read_weights(weights_file)
    if weights_file.name == UNET_FILE:
        _assign_all(unet, weights, weights_file)
        return card
    named, config = as_peft(weights, weights_file)
    with _or_untouched(unet), torch.random.fork_rng(devices=[]):  # initial weights are drawn and then replaced
        _inject(unet, config, str(weights_file))
        _assign(unet, named, weights_file)
    return card


def check_base_model(card: AdapterCard, source: object, unet: Any, vae: Any = None) -> None:
    """Raise InputError unless these are the networks that the card states; networks it does not state are unchecked."""
    known = {"base model": (unet, card.base_fingerprint, card.base_digest)}
    if vae is not None:
        known["VAE"] = (vae, card.vae_fingerprint, card.vae_digest)
    for part, (network, stated, digest) in known.items():
        digest = digest or _IDENTICAL.get(stated or "")
        found = fingerprint(network)
        if stated in (None, found) and digest is not None:  # the first values are equal: compare all
            stated, found = digest, content_digest(network)
        if stated not in (None, found):
            cast = "; cast to bfloat16 after loading the adapter" if _was_cast(network) else ""
            raise InputError(
                f"{source}: trained on another {part} ({card.base or 'unnamed'}, fingerprint {stated[:16]}; this one: "
                f"{found[:16]}); load that base (base.model), or pass check_base=False{cast}"
            )


def find_adapter(path: str | Path) -> Path:
    """The weights file at ``path``: a file, a folder that contains one of the known names, or ``shipped:NAME``."""
    path = shipped_folder(path, "adapters", "adapter") or Path(path)
    names = (*PEFT_FILES, UNET_FILE, *PUBLISHED_FILES)
    candidates = [path] if path.is_file() else [path / name for name in names]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise InputError(f"{path}: no adapter here; expected a file, or a folder with {' or '.join(names)}")


class _Identity(NamedTuple):
    fingerprint: str
    digest: str


def fingerprint(network: nn.Module) -> str:
    """16 hex digits that quickly tell one base network from another, without adapters.

    Hashes names, shapes and the first 256 values of every tensor, rounded to half precision, so that
    a float16 copy has the fingerprint of its float32 original. bfloat16 keeps too few digits for that: who casts to
    it must call `note_identity` first.
    """
    if (noted := getattr(network, _NOTED, None)) is not None:
        return str(noted.fingerprint)
    digest = hashlib.sha256()
    plain = _plain_state(network)
    for key in sorted(plain):
        head = plain[key].detach().flatten()[:256].to("cpu", torch.float16)
        digest.update(f"{key} {tuple(plain[key].shape)}".encode())
        digest.update(head.numpy().tobytes())
    return digest.hexdigest()[:16]


def content_digest(network: nn.Module) -> str:
    """As `fingerprint`, of all values: 64 hex digits. About 5 s for Stable Diffusion on one core."""
    if (noted := getattr(network, _NOTED, None)) is not None:
        return str(noted.digest)
    plain = _plain_state(network)

    def of(key: str) -> str:
        values = plain[key].detach().to("cpu", torch.float16).contiguous()
        return f"{key} {tuple(values.shape)} {hashlib.sha256(values.numpy().data).hexdigest()}"

    with ThreadPoolExecutor() as pool:
        return hashlib.sha256("\n".join(pool.map(of, sorted(plain))).encode()).hexdigest()


def _plain_state(network: nn.Module) -> dict[str, Tensor]:
    """The base model's tensors by their names without an adapter."""
    return {k.replace(".base_layer.", "."): v for k, v in network.state_dict().items() if ".lora_" not in k}


def note_identity(network: nn.Module) -> None:
    """Store the identity of the weights as they are now, before any cast."""
    setattr(network, _NOTED, _Identity(fingerprint(network), content_digest(network)))


def base_digests(unet: nn.Module, vae: nn.Module) -> dict[str, str]:
    """The fields of a card that identify the adapter's networks, in addition to their fingerprints."""
    return {"base_digest": content_digest(unet), "vae_digest": content_digest(vae)}


def _identified(card: AdapterCard, unet: nn.Module) -> dict[str, str]:
    """Identity of the U-Net that the card does not state yet."""
    found = {}
    if card.base_fingerprint is None:
        found["base_fingerprint"] = fingerprint(unet)
    if card.base_digest is None and card.base_fingerprint in (None, fingerprint(unet)):
        found["base_digest"] = content_digest(unet)
    return found


def _was_cast(network: Any) -> bool:
    return getattr(network, "dtype", None) == torch.bfloat16 and not hasattr(network, _NOTED)


def read_weights(file: Path) -> dict[str, Tensor]:
    """All tensors of an adapter's file. Raises InputError that names it when it is damaged, contains code or NaN."""
    try:
        if file.suffix == ".safetensors":
            loaded = load_file(file)
        else:
            loaded = torch.load(file, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, EOFError, OSError) as error:
        raise InputError(f"{file}: cannot be read as LoRA weights ({error}); download or write it again") from None
    except Exception as error:  # torch.load raises pickle's errors for code in a file, and others
        raise InputError(f"{file}: refused, it contains more than tensors ({type(error).__name__})") from None
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise InputError(f"{file}: expected a mapping from names to tensors")
    check_weights(loaded, file)
    return loaded


def _assign_all(unet: nn.Module, weights: Mapping[str, Tensor], file: Path) -> None:
    own = unet.state_dict()
    problem = next(iter(_misfits(own, weights)), None)
    if problem:  # checked first: torch would copy what fits before it raises
        raise InputError(f"{file}: not the weights of this U-Net ({problem}); wrong base model?")
    note_identity(unet)
    unet.load_state_dict(dict(weights))


def _misfits(own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> list[str]:
    """Reasons why weights do not fit a network."""
    matched = own.keys() & weights.keys()
    return [
        *(f"{key} is missing from the file" for key in sorted(own.keys() - matched)),
        *(f"{key} has no place in the U-Net" for key in sorted(weights.keys() - matched)),
        *(
            f"{key} is {tuple(weights[key].shape)}, the U-Net needs {tuple(own[key].shape)}"
            for key in sorted(matched)
            if weights[key].shape != own[key].shape
        ),
        *(f"{key} is {weights[key].dtype}" for key in sorted(matched) if not weights[key].is_floating_point()),
    ]


def _assign(unet: nn.Module, weights: Mapping[str, Tensor], file: Path) -> None:
    """Copy all weights, and no others."""
    own = {name.replace(".default.", "."): parameter for name, parameter in lora_parameters(unet)}
    matched = own.keys() & weights.keys()
    if not matched:
        raise InputError(f"{file}: no key fits this U-Net (e.g. {min(weights, default='none')}); wrong base model?")
    problems = _misfits(own, weights)
    if problems:
        raise InputError(f"{file}: fits this U-Net only in part ({len(problems)} keys do not): {problems[0]}")
    with torch.no_grad():
        for key in matched:
            own[key].copy_(weights[key])
