"""Copy finished adapters into the package: fp16 weights, cards, a short loss curve. `make adapters` calls it.

python -m dmp_core.cli.ship --preset mini-adapters --workspace runs/adapters
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from dmp_core.config import load_config
from dmp_core.errors import InputError
from dmp_core.resources import manifest_root
from dmp_core.store import Artefact, Workspace
from dmp_core.store.workspace import README

KEPT = ("adapter_config.json", "dmp.json")
ROWS = 500
"""Most rows of the loss curve."""


def ship_adapter(artefact: Artefact, folder: Path) -> None:
    """Copy one finished adapter into `folder`, with its weights as fp16; replaces the old content.

    Every row of its `loss.csv` represents equally many steps: the last step, mean loss and gradient, total seconds.
    """
    import pandas as pd
    import torch
    from safetensors.torch import load_file, save_file

    from dmp_core.diffusion.model_card import model_card
    from dmp_core.finite import check_before_writing
    from dmp_core.requests.scores import adapter_scores

    if artefact.manifest() is None:
        raise InputError(f"{artefact.path}: no finished adapter here; run `dmp run` with the same preset first")
    source = artefact.local_path()
    weights = load_file(source / "adapter_model.safetensors")
    halved = {name: weight.to(torch.float16).contiguous() for name, weight in weights.items()}
    check_before_writing(halved, str(folder / "adapter_model.safetensors"))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in KEPT:
        shutil.copyfile(source / name, folder / name)
    log = pd.read_csv(source / "loss.csv")
    every = -(-len(log) // ROWS)
    means = {"step": "last", "loss": "mean", "learning_rate": "last", "grad_norm": "mean", "seconds": "sum"}
    log.groupby(log.index // every).agg(means).to_csv(folder / "loss.csv", index=False, float_format="%.6g")
    save_file(halved, folder / "adapter_model.safetensors", {"format": "pt"})
    card = model_card(folder, adapter_scores(artefact), f"data_manifests/adapters/{folder.name}")
    (folder / README).write_text(card, encoding="utf-8")


def main(
    preset: Annotated[str, typer.Option(help="Preset that they were trained with.")] = "mini-adapters",
    workspace: Annotated[str, typer.Option(help="Where.")] = "runs/adapters",
    out: Annotated[Path | None, typer.Option(help="data_manifests/adapters by default.")] = None,
    modality: Annotated[list[str] | None, typer.Option(help="Only these; repeatable.")] = None,
) -> None:
    from dmp_core.stages import find, plan

    root = out or manifest_root() / "adapters"
    config = load_config(preset)
    nodes = plan(config)
    for wanted in modality or config.modalities:
        ship_adapter(find(nodes, f"train/{wanted}-dmp").artefact(Workspace(workspace)), root / wanted)


if __name__ == "__main__":
    typer.run(main)
