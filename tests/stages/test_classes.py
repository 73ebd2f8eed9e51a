"""Every method predicts only segmentation classes that are frequent enough in the training labels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from dmp_core.config import load_config
from dmp_core.modalities import find_modality
from dmp_core.stages import STAGES, find, plan
from dmp_core.store import Artefact, Workspace, read_artefact
from tests.making import make

TINY = [
    "modalities=[segmentation]", "adapters={}", "images={resolution: 16, samples_per_pixel: 1, max_depth: 2}",
    "splits={train: {keywords: [bedroom], count: 6}, in_domain: {keywords: [kitchen], count: 4}}", "runtime.workers=1",
    "latents.min_class_share=0.02",
]  # fmt: skip
METHODS = {
    "dmp": ["train.steps=1", "train.batch_size=2", "sampling.num_steps=1"],
    "spade": ["train={method: spade, steps: 2, batch_size: 2, channels: 4, upsamplings: 2, discriminator_channels: 4}"],
}


def classes_in(artefact: Artefact, share: float = 0) -> set[int]:
    """Those that cover at least this share of the pixels; every one of these renders' pixels has a class."""
    extension = find_modality("segmentation").member
    labels = [find_modality("segmentation").decode(sample[extension]) for sample in read_artefact(artefact)]
    return {int(name) for name in np.unique(labels) if name != 255 and (np.array(labels) == name).mean() >= share}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("classes")


@pytest.mark.parametrize("method", METHODS)
def test_predictions_choose_among_the_classes_of_the_training_labels(method, workspace):
    config = load_config("smoke", None, TINY + METHODS[method])
    nodes, store = plan(config), Workspace(workspace)
    make(workspace, config, {*STAGES} - {"shards", "evaluate", "report"})
    labels = find(nodes, "labels/train-segmentation").artefact(store)
    learnt = classes_in(labels, share=0.02)
    assert learnt < classes_in(labels)
    fitted = find(nodes, f"train/segmentation-{method}").artefact(store)
    assert set(fitted.published().details["classes"]) == learnt
    assert fitted.published().details["trainable_parameters"] > 0
    assert classes_in(find(nodes, f"predict/in_domain-segmentation-{method}").artefact(store)) <= learnt
    if method == "dmp":  # an adapter may be used elsewhere, so it stores them itself
        card = json.loads((fitted.local_path() / "dmp.json").read_text())
        assert set(card["encoding"]["class_ids"]) == learnt
        extension = find_modality("segmentation").member
        drawn = np.array([find_modality("segmentation").decode(sample[extension]) for sample in read_artefact(labels)])
        shares = [(drawn == name).mean() for name in card["encoding"]["class_ids"]]
        np.testing.assert_allclose(card["encoding"]["class_shares"], shares)
    shown = classes_in(find(nodes, "labels/in_domain-segmentation").artefact(store))
    assert shown - learnt, "kitchens show what no bedroom has"
    assert classes_in(find(nodes, "predict/in_domain-segmentation-ceiling").artefact(store)) <= shown
