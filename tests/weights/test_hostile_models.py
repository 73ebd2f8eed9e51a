"""A model's folder from a stranger: code beside the weights, and weights that are pickles, are never run."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dmp_core.errors import InputError
from dmp_core.synthesis.settings import DiffusionImages
from dmp_core.weights.load import load_base, load_text_to_image, load_vae
from dmp_core.weights.settings import BaseConfig
from tests.training.tiny import write_base

CODE = "from pathlib import Path\nPath({marker!r}).write_text('run')\nclass Evil:\n    pass\n"


class Bomb:
    """Unpickling this writes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.write_text, (self.marker, "run")


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "model"))


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def own_pipeline(folder: Path, marker: Path) -> None:
    for name in ("pipeline.py", "evil.py"):
        (folder / name).write_text(CODE.format(marker=str(marker)))
    edit(folder / "model_index.json", _class_name=["evil", "Evil"])


def own_part(folder: Path, marker: Path) -> None:
    (folder / "unet" / "evil.py").write_text(CODE.format(marker=str(marker)))
    edit(folder / "model_index.json", unet=["evil", "Evil"])


def own_text_encoder(folder: Path, marker: Path) -> None:
    (folder / "text_encoder" / "evil.py").write_text(CODE.format(marker=str(marker)))
    edit(folder / "text_encoder" / "config.json", auto_map={"AutoModel": "evil.Evil", "AutoConfig": "evil.Evil"})


def pickled(part: str, name: str) -> Callable[[Path, Path], None]:
    def damage(folder: Path, marker: Path) -> None:
        for weights in (folder / part).glob("*.safetensors"):
            weights.unlink()
        (folder / part / name).write_bytes(pickle.dumps(Bomb(marker)))

    return damage


HOSTILE: dict[str, Callable[[Path, Path], None]] = {
    "own pipeline": own_pipeline,
    "own part": own_part,
    "own text encoder": own_text_encoder,
    "pickled U-Net": pickled("unet", "diffusion_pytorch_model.bin"),
    "pickled VAE": pickled("vae", "diffusion_pytorch_model.bin"),
    "pickled text encoder": pickled("text_encoder", "pytorch_model.bin"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_model_s_code_and_pickles_are_never_run(kind: str, folder: Path, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    HOSTILE[kind](folder, marker)
    base, images = BaseConfig(model=str(folder)), DiffusionImages(model=str(folder))
    outcomes = {outcome(load_base, base), outcome(load_vae, base), outcome(load_text_to_image, images)}
    assert not marker.exists()
    assert all(str(folder) in said and "\n" not in said for said in outcomes - {""})


def outcome(load: Callable[[Any], Any], config: Any) -> str:
    """What the user is told; empty if the model was loaded without its code."""
    try:
        load(config)
    except InputError as error:
        return str(error)
    return ""
