"""Labelers by name: ours and another package's, with their options, in the configuration and in the labels stage."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dmp_core.config import PipelineConfig, load_config
from dmp_core.errors import InputError
from dmp_core.labelers import build_labeler, labeler_names
from dmp_core.labelers.registry import labeler_options
from dmp_core.modalities import find_modality
from dmp_core.stages import execute, find, plan
from dmp_core.store import Workspace, read_artefact
from tests.packages import installed_package

PACKAGE = '''
import torch

def build(weights, device, *, depth=1.0, batch_size=1):
    """Predicts one depth everywhere, and refuses batches larger than its option."""
    def label(images):
        assert len(images) <= batch_size
        return {"depth": torch.full((len(images), *images.shape[2:]), depth)}
    return label
'''


@pytest.fixture
def installed(tmp_path: Path) -> Iterator[None]:
    """A package that registers the labeler `flat`."""
    with installed_package(tmp_path / "site", "flat_labeler", PACKAGE, "[dmp.labelers]\nflat = flat_labeler:build\n"):
        yield


def with_labeler(settings: str) -> PipelineConfig:
    return load_config("smoke", None, [f"labels.depth={settings}"])


def test_names_and_options(installed: None) -> None:
    assert labeler_names() == ["eva02", "flat", "omnidata", "pienet", "zoedepth"]
    assert labeler_options("flat") == {"depth", "batch_size"}
    assert {"pad", "flip", "dtype", "batch_size"} <= (labeler_options("zoedepth") or set())
    with pytest.raises(InputError, match="labeler 'other' is unknown; there are: exact, eva02, flat"):
        build_labeler("other")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("{kind: flat, weights: x}", r"labels\.depth\.kind: no such labeler; choose one of: exact, eva02, omnidata"),
        ("{kind: zoedepth}", r"labels\.depth\.weights: field required"),
        ("{kind: zoedepth, weights: x, colour: red}", r"labels\.depth\.colour: unknown setting"),
        ("{kind: exact, weights: x}", r"labels\.depth\.weights: unknown setting"),
    ],
)
def test_wrong_settings_name_their_field(settings: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        with_labeler(settings)


def test_another_packages_labeler_labels_with_its_options(installed: None, workspace: Path) -> None:
    config = with_labeler("{kind: flat, weights: any, batch_size: 2, options: {depth: 2.5}}")
    for node in ("prompts/in_domain", "images/in_domain", "labels/in_domain-depth"):
        execute(config, node, str(workspace))
    artefact = find(plan(config), "labels/in_domain-depth").artefact(Workspace(workspace))
    labels = [find_modality("depth").decode(sample["depth.npy"]) for sample in read_artefact(artefact)]
    assert len(labels) == 2
    np.testing.assert_array_equal(labels, np.full((2, 32, 32), 2.5))
    wrong = with_labeler("{kind: flat, weights: any, options: {deep: 2, batch_size: 1}}")
    with pytest.raises(
        InputError, match=r"labels\.depth\.options: labeler 'flat' takes no batch_size, deep there; it takes: depth"
    ):
        execute(wrong, "labels/in_domain-depth", str(workspace))
