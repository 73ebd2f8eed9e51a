"""A misspelt name comes with the one that was probably meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from dmp_core.config import dump, load_config
from dmp_core.errors import InputError
from dmp_core.prompts.keywords import read_keywords
from dmp_core.stages import plan, select


@pytest.mark.parametrize(
    ("override", "meant"),
    [
        ("train.stpes=3", "steps"),
        ("train.lora.rnak=3", "rank"),
        ("images.resolutoin=3", "resolution"),
        ("splits.train.cuont=3", "count"),
        ("prompts.generator.knd=x", "kind"),
        ("quality.min_sdt=3", "min_std"),
        ("modalites=[depth]", "modalities"),
        ("modalities=[dpeth]", "depth"),
        ("runtime.on_bad_sample.polcy=skip", "policy"),
    ],
)
def test_a_misspelt_field_or_modality(override: str, meant: str) -> None:
    with pytest.raises(InputError, match=rf"; did you mean {meant}\?$"):
        plan(load_config("smoke", None, [override]))


def test_other_names() -> None:
    with pytest.raises(InputError, match=r"did you mean smoke\?$"):
        load_config("smok")
    with pytest.raises(InputError, match=r"did you mean sun_indoor_409\.txt\?$"):
        read_keywords("sun_indor_409.txt")
    with pytest.raises(InputError, match=r"did you mean images\?$"):
        select([], "image")


@pytest.mark.parametrize("override", ["train.xyzzy=3", "xyzzy=1", "splits.train.xyzzy=3"])
def test_nothing_is_guessed_for_what_is_far_from_all(override: str) -> None:
    with pytest.raises(InputError, match="unknown setting") as error:
        load_config("smoke", None, [override])
    assert "did you mean" not in str(error.value)


def test_a_field_of_another_kind_is_not_proposed() -> None:
    """Of the two kinds of images only one has a `guidance_scale`."""
    with pytest.raises(InputError, match="unknown setting") as error:
        load_config("smoke", None, ["images.guidance_scal=3"])
    assert "did you mean" not in str(error.value)


def test_a_preset_that_a_complete_configuration_overrides_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    complete, part = tmp_path / "complete.yaml", tmp_path / "part.yaml"
    complete.write_text(dump(load_config("mini")))
    part.write_text("seed: 3\n")
    assert load_config("smoke", complete).preset == "mini"
    assert f"--preset smoke has no effect: {complete} is a complete configuration, made from mini" in caplog.text
    caplog.clear()
    assert load_config("smoke", part).preset == "smoke"
    assert load_config(file=complete).preset == "mini"
    assert not caplog.records
