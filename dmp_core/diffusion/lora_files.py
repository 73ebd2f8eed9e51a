"""LoRA files of other programs, converted to PEFT: names of tensors, ranks and scales.

Reads PEFT folders, and single files written by the published DMP code or any version of diffusers.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from safetensors import safe_open
from torch import Tensor

from dmp_core.errors import InputError
from dmp_core.settings import raise_readable

WEIGHTS_FILE = "adapter_model.safetensors"
CONFIG_FILE = "adapter_config.json"
PEFT_FILES = (WEIGHTS_FILE, "adapter_model.bin")

_PEFT_PREFIX = "base_model.model."
_ATTENTION = re.compile(r"(?P<attention>.+)\.to_(?P<projection>q|k|v|out)_lora\.(?P<matrix>(?:down|up)\.weight|alpha)")
_LAYER = re.compile(
    r"(?P<module>.+?)\.(?:lora_linear_layer\.|lora\.|lora_)?(?P<matrix>(?:A|B|down|up)(?:\.default)?\.weight|alpha)"
)
_METADATA = "lora_adapter_metadata"
"""Key of the file's metadata under which diffusers stores PEFT's configuration."""

Rank = Annotated[int, Field(gt=0)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Names = str | list[str] | None


class LoraSettings(BaseModel):
    """The part of PEFT's configuration that decides the update; other keys are ignored."""

    model_config = ConfigDict(strict=True, frozen=True, extra="allow")

    peft_type: Literal["LORA"] = "LORA"
    r: Rank = 8
    lora_alpha: Finite = 8
    rank_pattern: dict[str, Rank] | None = None
    alpha_pattern: dict[str, Finite] | None = None
    target_modules: Names = None
    exclude_modules: Names = None
    layers_to_transform: int | list[int] | None = None
    layers_pattern: Names = None
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    use_rslora: bool = False
    init_lora_weights: Any = True
    bias: Literal["none"] | None = None

    @field_validator("init_lora_weights")
    @classmethod
    def _leaves_the_base(cls, kind: Any) -> Any:
        if kind is not None and not isinstance(kind, bool) and kind not in ("gaussian", "orthogonal"):
            raise ValueError("this initialisation changes the base model's weights; save the adapter as a plain LoRA")
        return kind

    def config(self, weights: Mapping[str, Tensor], source: str) -> Any:
        """PEFT's configuration object, for `weights` with PEFT's names. Raises InputError for other kinds of LoRA."""
        from peft import LoraConfig

        kinds = ("fan_in_fan_out", "lora_bias", "modules_to_save", "target_parameters", "layer_replication")
        extra = self.model_extra or {}
        for name, value in extra.items():
            if value and (name in kinds or (name.startswith("use_") and value is True)):
                raise InputError(f"{source}: {name}: this kind of LoRA is not supported; save it as a plain one")
        declared = max(self.r, *(self.rank_pattern or {}).values(), 0)
        found = max(_ranks(weights).values(), default=0)
        if declared > found:  # the layers would be created but not filled
            raise InputError(f"{source}: r: rank {declared}, but the file's tensors are of rank {found}; correct it")
        modules = self.target_modules or sorted(_ranks(weights))
        try:
            return LoraConfig(
                r=self.r,
                lora_alpha=self.lora_alpha,  # type: ignore[arg-type]  # any number is valid
                rank_pattern=dict(self.rank_pattern or {}),
                alpha_pattern=dict(self.alpha_pattern or {}),
                target_modules=modules,
                exclude_modules=self.exclude_modules,
                layers_to_transform=self.layers_to_transform,
                layers_pattern=self.layers_pattern,
                lora_dropout=self.lora_dropout,
                use_rslora=self.use_rslora,
                init_lora_weights="gaussian" if self.init_lora_weights == "gaussian" else True,
            )
        except (ValueError, TypeError) as error:
            raise InputError(f"{source}: not a LoRA configuration ({error}); correct it") from None


def as_peft(weights: Mapping[str, Tensor], file: Path) -> tuple[dict[str, Tensor], Any]:
    """(tensors with PEFT's names, PEFT's configuration) of a file of any known format. Raises InputError."""
    if file.name in PEFT_FILES or any(key.startswith(_PEFT_PREFIX) for key in weights):
        named = {key.removeprefix(_PEFT_PREFIX): tensor for key, tensor in weights.items()}
        settings = file.parent / CONFIG_FILE
        return named, _settings(_read_json(settings), str(settings)).config(named, str(settings))
    named, alphas = _renamed(weights, file)
    stated = _stated(file)
    settings_ = _settings(stated, str(file)) if stated else _of_tensors(named, alphas, file)
    return named, settings_.config(named, str(file))


def _renamed(weights: Mapping[str, Tensor], file: Path) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Tensors with PEFT's names, e.g. X.processor.to_out_lora.down → X.to_out.0.lora_A; and the alphas of layers."""
    named: dict[str, Tensor] = {}
    alphas: dict[str, float] = {}
    for key, tensor in weights.items():
        if key.startswith("text_encoder"):
            raise InputError(f"{file}: also adapts the text encoder ({key}), which is not supported; save the U-Net's")
        place = _place(key)
        if place is None:
            raise InputError(f"{file}: key {key!r} is not of a known LoRA format; convert the file with diffusers")
        module, matrix = place
        if matrix == "alpha":
            alphas[module] = float(tensor.float().mean())
        else:
            named[f"{module}.lora_{matrix}.weight"] = tensor
    return named, alphas


def _place(key: str) -> tuple[str, str] | None:
    """(module, A | B | alpha) from a tensor's name."""
    key = key.removeprefix("unet.")
    letters = {"down": "A", "up": "B"}
    if match := _ATTENTION.fullmatch(key):
        attention = match["attention"].removesuffix(".processor")
        module = f"{attention}.to_{match['projection']}" + (".0" if match["projection"] == "out" else "")
    elif match := _LAYER.fullmatch(key):
        module = match["module"]
    else:
        return None
    matrix = match["matrix"].split(".")[0]
    return module, letters.get(matrix, matrix)


def _of_tensors(named: Mapping[str, Tensor], alphas: Mapping[str, float], file: Path) -> LoraSettings:
    """Ranks from the tensors; a layer's alpha is its rank (a scale of 1) unless stated."""
    ranks = _ranks(named)
    if not ranks:
        raise InputError(f"{file}: contains no LoRA matrices; give the file that training wrote")
    rank = Counter(ranks.values()).most_common(1)[0][0]
    scales = {module: alphas.get(module, float(own)) for module, own in ranks.items()}
    return LoraSettings(
        r=rank,
        lora_alpha=rank,
        rank_pattern={re.escape(module): own for module, own in ranks.items() if own != rank},
        alpha_pattern={re.escape(module): alpha for module, alpha in scales.items() if alpha != rank},
        target_modules=sorted(ranks),
    )


def _ranks(named: Mapping[str, Tensor]) -> dict[str, int]:
    """Module → rank, the larger of its two matrices'."""
    ranks: dict[str, int] = {}
    for key, tensor in named.items():
        module, _, matrix = key.removesuffix(".weight").rpartition(".lora_")
        if matrix in ("A", "B") and tensor.ndim > 1:
            ranks[module] = max(ranks.get(module, 0), tensor.shape[0 if matrix == "A" else 1])
    return ranks


def _stated(file: Path) -> dict[str, Any]:
    """PEFT's configuration from the file's own metadata; empty if it has none."""
    if file.suffix != ".safetensors":
        return {}
    with safe_open(file, "pt") as stored:
        text = (stored.metadata() or {}).get(_METADATA)
    if text is None:
        return {}
    stated = _parsed(text, f"{file}: {_METADATA}")
    own = {key.removeprefix("unet."): value for key, value in stated.items() if key.startswith("unet.")}
    return own or (stated if "r" in stated else {})


def _read_json(file: Path) -> dict[str, Any]:
    if not file.exists():
        raise InputError(f"{file}: missing; an adapter folder needs it next to {WEIGHTS_FILE}")
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: cannot be read ({error}); download or write it again") from None
    return _parsed(text, str(file))


def _parsed(text: str, source: str) -> dict[str, Any]:
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{source}: not a LoRA configuration ({error}); download or write it again") from None
    if not isinstance(parsed, dict):
        raise InputError(f"{source}: not a LoRA configuration (expected an object, found {type(parsed).__name__})")
    return parsed


def _settings(stated: Mapping[str, Any], source: str) -> LoraSettings:
    try:
        return LoraSettings.model_validate(dict(stated))
    except ValidationError as error:
        raise_readable(error, source)
