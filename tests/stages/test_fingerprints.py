"""Workspaces stay valid: a change of code may change no fingerprint of a preset, unless a number was wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dmp_core.config import load_config, preset_names
from dmp_core.stages import plan

RECORDED = Path(__file__).parents[1] / "data" / "fingerprints.json"
"""Preset → node → fingerprint; for presets whose models are missing, the fingerprints without these."""


@pytest.mark.parametrize("preset", preset_names())
def test_presets_keep_their_fingerprints(preset):
    recorded = json.loads(RECORDED.read_text())[preset]
    assert {node.id: node.fingerprint for node in plan(load_config(preset))} == recorded
