"""The mini editor's recipe end to end at tiny size."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

from dmp_core.methods.shared.editing import edit
from dmp_core.prior.editor import EditorRecipe, latent_pairs, load_recipe, train_editor
from dmp_core.weights.load import load_editor, load_vae
from dmp_core.weights.settings import EditorConfig
from tests.training.tiny import write_base


def test_recipe_from_pairs_to_a_folder_that_edits(tmp_path):
    recipe = EditorRecipe.model_validate(
        {
            "base": {"model": str(write_base(tmp_path / "base"))},
            "workers": 1,
            "scenes": {
                "scenes": 6,
                "sources": {"bedrooms": {"keywords": ["bedroom"], "share": 1.0}},
                "resolution": 16,
                "samples_per_pixel": 1,
                "max_depth": 2,
                "scenes_per_shard": 3,
                "hold_out_every": 3,
            },
            "fit": {"steps": 2, "batch_size": 2, "checkpoint_every": 1, "log_every": 1},
        }
    )
    reports: list[str] = []
    train_editor(recipe, tmp_path / "out", tmp_path / "work", progress=lambda *report: reports.append(report[2]))
    assert reports[0] == "scenes rendered"
    assert reports[-1].startswith("loss ")
    editor = load_editor(EditorConfig(model=str(tmp_path / "out")))
    image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    assert edit(editor, image, "make the bed red", [1], num_steps=2).shape == (1, 3, 16, 16)
    assert str(tmp_path) not in "".join(path.read_text() for path in (tmp_path / "out").rglob("*.json"))

    shutil.copytree(tmp_path / "work" / "pairs", tmp_path / "killed" / "pairs")

    def killed(done: int, total: int, message: str = "") -> None:
        if message.startswith("loss") and done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_editor(recipe, tmp_path / "again", tmp_path / "killed", progress=killed)
    train_editor(recipe, tmp_path / "again", tmp_path / "killed")
    one, other = (load_editor(EditorConfig(model=str(tmp_path / name))).unet for name in ("out", "again"))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))

    vae = load_vae(recipe.base)
    kept = [latent_pairs(recipe.scenes, vae, tmp_path / "work" / "pairs", held_out) for held_out in (False, True)]
    assert [len(texts) for _, _, texts in kept] == [4, 2]
    assert all(texts for _, _, texts in kept)
    first = (tmp_path / "work" / "pairs" / "scenes-000000.npz").stat().st_mtime_ns
    train_editor(recipe, tmp_path / "out", tmp_path / "work", parts=["data"])
    assert (tmp_path / "work" / "pairs" / "scenes-000000.npz").stat().st_mtime_ns == first


def test_the_shipped_recipe_is_valid_and_takes_overrides():
    recipe = load_recipe(None, ["fit.steps=7"])
    assert recipe.fit.steps == 7
    assert recipe.base.model == "shipped:mini"
    assert np.isclose(sum(source.share for source in recipe.scenes.sources.values()), 1)


@pytest.mark.parametrize("field", ["fit.dropout=0.9", "scenes.unknown=1"])
def test_a_bad_recipe_names_the_field(field):
    from dmp_core.errors import InputError

    with pytest.raises(InputError, match=field.split("=")[0].replace(".", r"\.")):
        load_recipe(None, [field])
