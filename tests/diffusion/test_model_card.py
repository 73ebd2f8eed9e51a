"""The README of an adapter: its code loads the same network as ours, in plain diffusers and PEFT."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dmp_core.diffusion import DMPPipeline, add_lora, lora_parameters, save_adapter, save_unet
from dmp_core.diffusion.model_card import Score, model_card, write_model_card
from dmp_core.modalities import find_modality
from dmp_core.resources import manifest_root
from dmp_core.weights.resolve import identity
from tests.golden.fill import fill_value

ROOT = Path(__file__).parents[2]
META = {"task": "normal", "encoding": {"axes": "right, up | away", "palette": "`x`"}, "num_steps": 1}


def output(unet: Any) -> Tensor:
    width = unet.config.cross_attention_dim
    generator = torch.Generator().manual_seed(5)
    noisy = torch.randn(1, unet.config.in_channels, 8, 8, generator=generator)
    with torch.no_grad():
        text = torch.randn(1, 7, width, generator=generator)
        return unet.eval()(noisy, torch.tensor([37]), encoder_hidden_states=text).sample


def code_of(document: Path) -> str:
    return re.findall(r"^```python\n(.*?)^```", document.read_text(), re.MULTILINE | re.DOTALL)[0]


def run(code: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(code, names)
    return names


def saved(base: Path, folder: Path, whole: bool) -> Path:
    unet = DMPPipeline.from_pretrained(base).unet
    if not whole:
        add_lora(unet, rank=2, targets="all")
    with torch.no_grad():
        for name, parameter in lora_parameters(unet) if not whole else unet.named_parameters():
            parameter.copy_(fill_value(name, tuple(parameter.shape)) if not whole else parameter * 1.25)
    meta = META | {"base": str(base)}
    return save_unet(unet, folder, meta) if whole else save_adapter(unet, folder, meta)


@pytest.mark.parametrize("whole", [False, True])
def test_the_code_of_the_card_loads_the_same_network(
    base_folder: Path, tmp_path: Path, whole: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = saved(base_folder, tmp_path / "a {folder} [1]", whole)
    write_model_card(folder)
    monkeypatch.chdir(folder)
    code = code_of(folder / "README.md")
    assert len(code.splitlines()) <= 5
    ours = DMPPipeline.from_pretrained(base_folder, folder).unet
    assert torch.equal(output(run(code)["unet"]), output(ours))
    assert not torch.allclose(output(ours), output(DMPPipeline.from_pretrained(base_folder).unet), atol=1e-3)


@pytest.mark.parametrize("name", sorted(path.name for path in (manifest_root() / "adapters").iterdir()))
def test_shipped_adapters_have_their_card(name: str) -> None:
    card = (ROOT / "data_manifests/adapters" / name / "README.md").read_text()
    modality = find_modality(name)
    assert f"{name}: {modality.title}" in card
    assert "`shipped:mini`" in card
    assert (modality.primary_metric.label in card) == (name != "shading")  # no result of the shipped one is known
    stated = model_card(ROOT / "data_manifests/adapters" / name, place=f"data_manifests/adapters/{name}")
    assert [line for line in stated.splitlines() if line not in card.splitlines()] == []


def test_the_code_of_a_shipped_card_and_of_the_readme_loads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    ours = output(DMPPipeline.from_pretrained("shipped:mini", adapter="shipped:normal").unet)
    lines = code_of(ROOT / "data_manifests/adapters/normal/README.md")
    assert torch.equal(output(run(lines)["unet"]), ours)
    assert lines in (ROOT / "README.md").read_text()


def test_a_card_changes_no_identity(tmp_path: Path) -> None:
    """So old workspaces, made from adapters without one, stay complete."""
    folder = manifest_root() / "adapters" / "normal"
    bare = Path(shutil.copytree(folder, tmp_path / "bare", ignore=shutil.ignore_patterns("README.md")))
    assert identity(str(bare), None, "adapters") == identity("shipped:normal", None, "adapters")


def test_a_card_is_never_replaced_and_belongs_to_dmp_alone(base_folder: Path, tmp_path: Path) -> None:
    folder = saved(base_folder, tmp_path / "adapter", whole=False)
    (folder / "README.md").write_text("mine")
    write_model_card(folder)
    assert (folder / "README.md").read_text() == "mine"
    for lost in ("", "\0" * 99):
        (folder / "README.md").write_text(lost)
        write_model_card(folder)
        assert (folder / "README.md").read_text() == model_card(folder)
    (folder / "README.md").unlink()
    card = (folder / "dmp.json").read_text()
    (folder / "dmp.json").write_text(card.replace('"method": "dmp"', '"method": "visii"'))
    write_model_card(folder)
    (folder / "dmp.json").unlink()
    write_model_card(folder)
    assert not (folder / "README.md").exists()


def test_what_a_card_says_of_itself_is_text(base_folder: Path, tmp_path: Path) -> None:
    folder = saved(base_folder, tmp_path / "adapter", whole=False)
    metric = find_modality("normal").primary_metric
    text = model_card(folder, [Score("in|domain", metric, 14.25)])
    assert "right, up &#124; away" in text
    assert "| in&#124;domain | Angle ↓ | 14.25° |" in text
    stated = (folder / "dmp.json").read_text().replace('"base": "', '"base": "x\\n```\\n# \\"')
    (folder / "dmp.json").write_text(stated)
    assert text.count("```") == model_card(folder).count("\n```")  # the base's name ends no block of code
