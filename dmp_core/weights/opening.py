"""Opening the weights of a folder once, before they are needed: names and shapes are compared, no weights are read.

The libraries' own loaders do it, on torch's meta device, and then the parts without weights are loaded as in a run.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dmp_core.errors import InputError, MissingExtra
from dmp_core.weights.load import no_progress_bars, variant_of
from dmp_core.weights.resolve import UNREADABLE, why_unreadable

_SHOWN = 3


def open_diffusers(folder: Path) -> None:
    """A pipeline in diffusers' format. Raises InputError that names the part's folder and what does not fit."""
    with _readable(folder):
        from diffusers import DiffusionPipeline

        listed = DiffusionPipeline.load_config(folder, local_files_only=True)
        index = {name: kind for name, kind in listed.items() if isinstance(kind, list) and all(kind)}
        parts = {name: _network(folder, name, _class(*kind)) for name, kind in index.items()}
        networks = {name: network for name, network in parts.items() if network is not None}
        DiffusionPipeline.from_pretrained(
            folder, local_files_only=True, **networks, **_absent(folder, index), **variant_of(str(folder))
        )


def open_decoder(folder: Path) -> None:
    """A small decoder of latents. Errors as above."""
    with _readable(folder):
        from diffusers import AutoencoderTiny

        _refuse(folder, *_on_meta(AutoencoderTiny, folder, **variant_of(str(folder))))


def open_transformers(folder: Path) -> None:
    """A model in transformers' format, with its tokenizer and image processor, if it has them. Errors as above."""
    with _readable(folder):
        import transformers

        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
        kind = getattr(transformers, (config.architectures or ["AutoModel"])[0])
        _refuse(folder, *_on_meta(kind, folder))
        if (folder / "tokenizer_config.json").is_file():
            transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        if (folder / "preprocessor_config.json").is_file():
            transformers.AutoImageProcessor.from_pretrained(folder, local_files_only=True)


def _network(folder: Path, name: str, kind: Any) -> Any:
    """A network of a pipeline without its weights; None for other parts."""
    import torch

    if not (isinstance(kind, type) and issubclass(kind, torch.nn.Module)) or not (folder / name).is_dir():
        return None
    with _readable(folder / name):
        network, faults = _on_meta(kind, folder, subfolder=name, **variant_of(str(folder / name)))
        _refuse(folder / name, network, faults)
    return network


def _absent(folder: Path, index: dict[str, Any]) -> dict[str, None]:
    """The checker of images may be missing: `images.safety_checker` leaves it out."""
    optional = ("safety_checker", "feature_extractor")
    return {name: None for name in optional if name in index and not (folder / name).is_dir()}


def _on_meta(kind: Any, folder: Path, **options: Any) -> tuple[Any, dict[str, list[str]]]:
    """The network, empty, and what its file lacks or has in another shape."""
    options |= {"device_map": "meta", "output_loading_info": True, "ignore_mismatched_sizes": True}
    network, info = kind.from_pretrained(folder, local_files_only=True, **options)
    other = [f"{name} {tuple(found)} instead of {tuple(wanted)}" for name, found, wanted in info["mismatched_keys"]]
    return network, {"missing": sorted(info["missing_keys"]), "of another shape": sorted(other)}


def _refuse(place: Path, network: Any, faults: dict[str, list[str]]) -> None:
    """Raise InputError for weights that are not those of the network that config.json describes."""
    found = [f"{len(names)} {fault} (first: {', '.join(names[:_SHOWN])})" for fault, names in faults.items() if names]
    if found:
        raise InputError(f"{place}: weights and config.json do not match: {'; '.join(found)}; fetch both again")


def _class(library: str, name: str) -> Any:
    """The class that a pipeline's index names, as the library finds it; None if it knows no such class."""
    from importlib import import_module

    from diffusers import pipelines

    module = getattr(pipelines, library, None) or import_module(library)
    return getattr(module, name, None)


@contextmanager
def _readable(place: Path) -> Iterator[None]:
    """Turn what the libraries raise into one line that names the place, and keep their own reports quiet."""
    loggers = [logging.getLogger(name) for name in ("diffusers", "transformers")]
    before = [log.level for log in loggers]
    for log in loggers:
        log.setLevel(logging.CRITICAL)
    try:
        with no_progress_bars(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except InputError:
        raise
    except (*UNREADABLE, RuntimeError) as error:
        raise MissingExtra.of(error) or InputError(
            f"{place}: cannot be opened ({why_unreadable(error)}); fetch its files again"
        ) from None
    finally:
        for log, level in zip(loggers, before, strict=True):
            log.setLevel(level)
