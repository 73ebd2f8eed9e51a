"""A registry of your own: explicit, shown, and apart from the package's."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from dmp_core.cli.commands import app
from dmp_core.errors import InputError
from dmp_core.weights import registry
from dmp_core.weights.download import pull
from dmp_core.weights.resolve import identity, resolve_model, same_model

HUB = "CompVis/stable-diffusion-v1-4"
DATA = b"weights of our own"
SHIPPED = registry.get(HUB)


def entry(**other: Any) -> dict[str, Any]:
    """Stable Diffusion as somebody saved it again."""
    file = {"path": "unet/model.safetensors", "bytes": len(DATA), "sha256": hashlib.sha256(DATA).hexdigest()}
    model = SHIPPED.model_dump(mode="json", exclude={"registry"}) | {"approximate_gb": 0.001, "files": [file]}
    return model | other


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DMP_MODELS_DIR", str(tmp_path / "models"))
    monkeypatch.setenv(registry.OWN, str(tmp_path / "own.yaml"))
    return tmp_path / "own.yaml"


def write(file: Path, *models: dict[str, Any], name: str | None = "our-lab") -> None:
    file.write_text(yaml.safe_dump({"name": name, "models": list(models)}))


def test_its_entries_replace_the_packages_of_that_id_or_hub_id(file: Path) -> None:
    before = [model.id for model in registry._shipped().models]
    write(file, entry(), entry(id="our-own", hub="our/own"))
    found = registry.registry()
    assert [(model.id, model.registry) for model in found[:2]] == [(SHIPPED.id, "our-lab"), ("our-own", "our-lab")]
    assert [model.id for model in found[2:]] == [name for name in before if name != SHIPPED.id]
    assert {model.registry for model in found[2:]} == {None}
    assert registry.get(HUB) == registry.get(SHIPPED.id) == found[0]
    write(file, entry(id="another-name"))
    assert registry.find(SHIPPED.id) is None
    assert registry.get(HUB).id == "another-name"


def test_without_it_nothing_changes(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(file, entry())
    assert registry.get(HUB) != SHIPPED
    for value in ("", None):
        monkeypatch.setenv(registry.OWN, value) if value is not None else monkeypatch.delenv(registry.OWN)
        assert registry.get(HUB) == SHIPPED


def test_it_is_named_by_its_digests_not_by_the_commit_that_its_files_came_from(file: Path) -> None:
    shipped = SHIPPED.identity()
    write(file, entry())
    own = identity(HUB, None, "priors")
    assert own != shipped
    assert own.startswith("stable-diffusion-v1-4@")
    write(file, entry(files=[{"path": "unet/model.safetensors", "sha256": "0" * 64}]))
    assert identity(HUB, None, "priors") not in (own, shipped)
    assert same_model(HUB, SHIPPED.id)


def test_weights_lie_apart_from_the_packages(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(file, entry())
    mirror = tmp_path / "mirror" / SHIPPED.id / "unet"
    mirror.mkdir(parents=True)
    (mirror / "model.safetensors").write_bytes(DATA)
    place = pull(registry.get(HUB), str(tmp_path / "mirror"))
    assert place == tmp_path / "models/our-lab" / SHIPPED.folder / "unet/model.safetensors"
    assert resolve_model(HUB, "base.model").place == str(place)
    assert list(json.loads((tmp_path / "models" / registry.LOCK).read_text())) == [
        f"our-lab/{SHIPPED.folder}/unet/model.safetensors"
    ]
    monkeypatch.delenv(registry.OWN)
    assert not registry.present(registry.get(HUB))
    assert not resolve_model(HUB, "base.model").local


def test_another_file_than_it_states_is_refused(file: Path, tmp_path: Path) -> None:
    write(file, entry())
    mirror = tmp_path / "mirror" / SHIPPED.id / "unet"
    mirror.mkdir(parents=True)
    (mirror / "model.safetensors").write_bytes(DATA[::-1])
    with pytest.raises(InputError, match=r"^unet/model\.safetensors: what came is not the file"):
        pull(registry.get(HUB), str(tmp_path / "mirror"))
    assert not (tmp_path / "models" / registry.LOCK).exists()
    assert not registry.present(registry.get(HUB))


def test_it_is_shown(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(file, entry())
    with caplog.at_level(logging.WARNING):
        registry.registry()
        registry.registry()
    (said,) = [record.getMessage() for record in caplog.records if record.name == registry.__name__]
    assert said == f"models: registry 'our-lab' ({file}) states stable-diffusion-v1-4"
    listed = CliRunner().invoke(app, ["models", "list"], env={"COLUMNS": "300"})
    assert "stable-diffusion-v1-4 (our-lab)" in listed.output
    as_json = json.loads(CliRunner().invoke(app, ["models", "list", "--json"]).stdout)
    assert {model["registry"] for model in as_json} == {"our-lab", None}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "no such file"),
        ("", "expected a mapping"),
        ("[1, 2]", "expected a mapping"),
        ("name: [", "not valid YAML"),
        ("name: our-lab", "models"),
        ({"models": [entry()]}, "name: missing"),
        ({"name": "../up", "models": [entry()]}, "name"),
        ({"name": "Our Lab", "models": [entry()]}, "name"),
        ({"name": "a", "models": [entry(files=[{"path": "unet/model.safetensors"}])]}, "unet/model.*sha256: missing"),
        ({"name": "a", "models": [entry(files=[{"path": "../x", "sha256": "0" * 64}])]}, "path"),
        ({"name": "a", "models": [entry(), entry()]}, "listed twice"),
        ({"name": "a", "models": [entry(), entry(id="other")]}, "listed twice"),
    ],
)
def test_a_wrong_one_ends_in_a_line_that_names_it(file: Path, content: Any, problem: str) -> None:
    if content is not None:
        file.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    with pytest.raises(InputError, match=f"(?i)own.yaml: .*{problem}") as caught:
        registry.registry()
    assert "\n" not in str(caught.value)


def test_a_folder_is_none(file: Path) -> None:
    file.mkdir()
    with pytest.raises(InputError, match=r"own\.yaml: a folder, not a file"):
        registry.registry()
