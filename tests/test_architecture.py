"""The map in docs/architecture.md is the territory: no circles, contracts that bite, and one place per thing."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from importlib import import_module
from pathlib import Path

import grimp
import pytest

from dmp_core.labelers.registry import BUILT_IN as LABELERS
from dmp_core.methods.registry import BUILT_IN as METHODS
from dmp_core.modalities import BUILT_IN as MODALITIES
from dmp_core.stages.base import StageKind, StageSettings
from dmp_core.stages.registry import PER_MODALITY, PER_SPLIT, STAGES, kind_of, stage_module
from dmp_core.synthesis.sources import SOURCES

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("dmp_core", cache_dir=None)


def test_no_module_imports_itself_by_way_of_others(graph):
    """Imports inside functions, and those for annotations alone, count as well."""
    TopologicalSorter({module: graph.find_modules_directly_imported_by(module) for module in graph.modules}).prepare()


def test_contracts_fail_when_an_arrow_is_added(tmp_path):
    for part in ("dmp_core", "flows", "tasks"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    wrong = {
        "store/files.py": "from dmp_core.stages import plan",
        "stages/predict.py": "from dmp_core.stages import train",
        "methods/ddib/algorithm.py": "from dmp_core.methods import sdedit",
        "report/build.py": "from dmp_core import prompts",
    }
    for file, line in wrong.items():
        path = tmp_path / "dmp_core" / file
        path.write_text(f"{path.read_text()}\n\ndef _wrong() -> None:\n    {line}\n")
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env={"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 1
    for file in wrong:
        assert f"dmp_core.{file.removesuffix('.py').replace('/', '.')} ->" in done.stdout
    assert "3 broken" in done.stdout


# --------------------------------------------------------------------- one place for each thing
@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_is_one_file_and_its_name_in_the_registry(stage, graph):
    module = stage_module(stage)
    assert kind_of(stage) == module.KIND
    assert isinstance(module.KIND, StageKind)
    assert module.KIND.name == stage
    assert callable(module.run)
    assert callable(module.add)
    named = {
        name for name, found in vars(module).items() if isinstance(found, type) and found.__module__ == module.__name__
    }
    settings = [name for name in named if issubclass(getattr(module, name), StageSettings)]
    assert settings, "what it reads is stated in its own file"
    siblings = {f"dmp_core.stages.{other}" for other in STAGES} - {module.__name__}
    assert not siblings & graph.find_modules_directly_imported_by(module.__name__)
    assert stage in (*PER_SPLIT, *PER_MODALITY, "report")


def users(graph: grimp.ImportGraph, package: str) -> Iterator[str]:
    """Modules outside a package that import any of it."""
    inside = {package, *graph.find_descendants(package)}
    for module in inside:
        yield from graph.find_modules_that_directly_import(module) - inside


@pytest.mark.parametrize("method", [name for name in METHODS if name != "dmp"])
def test_a_compared_method_is_one_folder(method, graph):
    module, _, name = METHODS[method].partition(":")
    assert getattr(import_module(module), name)().name == method
    assert module.count(".") == 2, "dmp_core.methods.<folder>"
    assert not set(users(graph, module)), "found by the registry's string alone"


@pytest.mark.parametrize("place", [*LABELERS.values(), *SOURCES.values()])
def test_a_labeler_or_image_source_is_one_file(place):
    module, _, name = place.partition(":")
    assert callable(getattr(import_module(module), name))


@pytest.mark.parametrize("modality", MODALITIES)
def test_a_modality_is_one_file(modality):
    assert (ROOT / "dmp_core" / "modalities" / f"{modality}.py").is_file()
