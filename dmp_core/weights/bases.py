"""Which models can be a base: one U-Net, one text encoder, one autoencoder, as Stable Diffusion 1 and 2 have them.

And which small decoders fit a base. Known from small files, or from the name of what is not here. Light, for planning.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dmp_core.diffusion.decoder import FIELD, check_decoder
from dmp_core.errors import InputError
from dmp_core.weights.resolve import Located, registered, resolve_model
from dmp_core.weights.settings import BaseConfig

_INDEX = "model_index.json"
_NEEDED = ("vae", "text_encoder", "tokenizer", "unet", "scheduler")
_STAGE = "latents"
"""Of the registry's models, those that may be used there are bases."""
_FAMILIES = (
    ("PixArt", r"(?i)pixart", "a transformer without a U-Net"),
    ("SDXL", r"(?i)stable-diffusion-xl|sdxl|(?<![a-z])xl(?![a-z])|(?-i:[a-z]XL(?![a-z]))",
     "two text encoders, and a U-Net that also asks for the image's size"),
    ("SD3", r"(?i)stable-diffusion-?3|(?<![a-z0-9])sd-?3(?![0-9])", "a transformer with three text encoders"),
    ("Flux", r"(?i)(?<![a-z])flux(?![a-z])", "a transformer without a U-Net"),
)  # fmt: skip
"""Family, what a hub id or a pipeline's class looks like, why it cannot be a base."""

Read = Callable[[str], "Mapping[str, Any] | None"]
"""A small JSON file of the model; None if it is not here."""


def check_base(reference: str, revision: str | None = None, field: str = "base.model", *, fetch: bool = False) -> None:
    """Raise InputError, in one line that says why, for a model that cannot be the base.

    fetch: ask the hub for the small files of a model that is not here; otherwise its name alone is looked at.
    """
    model = registered(reference, revision)
    if model is not None and _STAGE not in model.stages:
        raise _refused(field, reference, f"it is for {', '.join(model.stages)}, and no text-to-image model")
    if model is not None or reference.startswith("shipped:"):
        return
    located = resolve_model(reference, field, kind="priors", revision=revision)
    read = _reader(located, fetch)
    if (index := read(_INDEX)) is not None:
        _check_parts(field, reference, index, read)
    elif not located.local and (family := _family(reference)):
        raise _refused(field, reference, family)


def check_decoder_of(base: BaseConfig, decoder: str, *, fetch: bool = False) -> None:
    """Raise InputError, in one line that says why, for a network that cannot decode the base model's latents.

    fetch: as in `check_base`; False also leaves out models of the registry. What is not here is not checked.
    """
    places = [(base.model, base.revision, base.setting, "vae/config.json"), (decoder, None, FIELD, "config.json")]
    configs = []
    for reference, revision, field, file in places:
        if not fetch and registered(reference, revision) is not None:
            return
        located = resolve_model(reference, field, kind="priors", revision=revision)
        config = _reader(located, fetch)(file)
        configs.append({} if config is None and located.local else config)
    vae, own = configs
    if vae and own is not None:
        check_decoder(decoder, own, vae)


def _check_parts(field: str, reference: str, index: Mapping[str, Any], read: Read) -> None:
    named = _family(_spaced(str(index.get("_class_name", ""))))
    parts = {name for name, kind in index.items() if isinstance(kind, list) and any(kind)}
    missing = [part for part in _NEEDED if part not in parts]
    if named or missing or "text_encoder_2" in parts:
        why = f"it has no {', '.join(missing)}" if missing else "it has two text encoders"
        raise _refused(field, reference, named or why)
    unet, vae, text = (read(f"{part}/config.json") or {} for part in ("unet", "vae", "text_encoder"))
    taken, latents = unet.get("in_channels", 4), vae.get("latent_channels", 4)
    if unet and vae and taken != latents:
        why = f"its U-Net takes {taken} channels and its autoencoder makes {latents}: it edits or enlarges images"
        raise _refused(field, reference, why)
    if asked := [name for name in ("addition_embed_type", "class_embed_type", "num_class_embeds") if unet.get(name)]:
        raise _refused(field, reference, f"its U-Net asks for more than text ({', '.join(asked)})")
    width, given = unet.get("cross_attention_dim"), text.get("hidden_size")
    plain = isinstance(width, int) and isinstance(given, int) and not unet.get("encoder_hid_dim")
    if plain and width != given:
        raise _refused(field, reference, f"its U-Net reads texts {width} wide, its text encoder writes {given}")


def _refused(field: str, reference: str, why: str) -> InputError:
    return InputError(
        f"{field}: {reference} cannot be the base: {why}; give one of the kind of Stable Diffusion 1 or 2, e.g. "
        "CompVis/stable-diffusion-v1-4 (a text-to-image model of any kind can make the images: images.model)"
    )


def _family(name: str) -> str | None:
    return next((f"it is {family}: {why}" for family, pattern, why in _FAMILIES if re.search(pattern, name)), None)


def _spaced(name: str) -> str:
    """`StableDiffusion3Pipeline` as the names on the hub are spelled."""
    return name.removesuffix("Pipeline").replace("StableDiffusion", "stable-diffusion-").replace("-XL", "-xl")


def _reader(located: Located, fetch: bool) -> Read:
    return _local(Path(located.place)) if located.local else _on_hub(located.place, located.revision, fetch)


def _local(folder: Path) -> Read:
    def read(name: str) -> Mapping[str, Any] | None:
        return _parsed(folder / name) if (folder / name).is_file() else None

    return read


def _on_hub(name: str, revision: str | None, fetch: bool) -> Read:
    def read(file: str) -> Mapping[str, Any] | None:
        from huggingface_hub import hf_hub_download, try_to_load_from_cache
        from huggingface_hub.errors import HfHubHTTPError

        try:
            found = try_to_load_from_cache(name, file, revision=revision)
            if not isinstance(found, str) and fetch:
                found = hf_hub_download(name, file, revision=revision)
        except (HfHubHTTPError, OSError, ValueError):  # the loader says what is wrong with it
            return None
        return _parsed(Path(found)) if isinstance(found, str) else None

    return read


def _parsed(file: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(file.read_text())
    except ValueError as error:
        raise InputError(f"{file}: not valid JSON ({error}); fetch the model again") from None
    return found if isinstance(found, dict) else {}
