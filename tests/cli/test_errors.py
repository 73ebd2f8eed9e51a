"""Every command reports user errors on one line; new commands are tested automatically."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from PIL import Image

from dmp_core.cli import app, running
from dmp_core.cli.errors import explain, guarded, print_error
from dmp_core.config import load_config
from dmp_core.errors import EXTRAS, InputError, MissingExtra
from dmp_core.render import RendererMissing
from dmp_core.weights.registry import registry

ROOT = Path(__file__).resolve().parents[2]

REQUIRED = {
    "IMAGES": "photos/a.png",
    "FOLDER": "photos",
    "NAME": "prompts",
    "--modality": "normal",
    "--adapter": "shipped:normal",
    "--out": "out",
    "--work": "work",
    "--scenes": "scenes",
    "--keyword": "kitchen",
}
"""Arguments that a command needs to reach the option under test; any other argument is `nowhere`."""

BAD = {
    "--preset": ["nope", "../smoke", "a\nb"],
    "--config": [
        "photos", "binary.yaml", "list.yaml", "nowhere.yaml", "broken.yaml", "tag.yaml", "child.yaml", "a.txt/x",
    ],
    "--set": [
        "a", "=", "=1", "a.b.c=1", "..=1", "modalities=[nope]", "splits=[", "images=3", "seed={}",
        "train.steps=" + "9" * 5000, "splits.train.count=1000000000000", "images={kind: nope}",
    ],
    "--workspace": ["a.txt", "a.txt/below", "foo://x", "s4://bucket"],
    "--out": ["a.txt", "a.txt/below"],
    "--work": ["a.txt", "a.txt/below"],
    "--modality": ["nope", "a;b"],
    "--modalities": ["nope"],
    "--methods": ["nope"],
    "--variants": ["nope"],
    "--split": ["nope/.."],
    "--shards": ["x", "7-3", "0-99999999999999", "-"],
    "--count": ["0", "-1", "x", "1.5", "1000000000000000"],
    "--keywords": ["nowhere.txt", "photos"],
    "--hold-out": ["x", "2", "-1"],
    "--fit": ["nope"],
    "--adapter": ["nowhere", "shipped:nope", "a.txt"],
    "--from": ["nowhere"],
}  # fmt: skip
"""Options by name, with values that no command may accept."""


def commands(command: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    command = command or typer.main.get_command(app)
    for name, below in getattr(command, "commands", {}).items():
        yield from commands(below, (*path, name))
    if not hasattr(command, "commands"):
        yield path, command


def named(parameter: Any) -> str:
    long = [name for name in parameter.opts if name.startswith("--")]
    return long[0] if long else (parameter.metavar or parameter.name).strip("[].").upper()


def needed(command: Any, path: tuple[str, ...], but: str) -> list[str]:
    """The command's required arguments, except one."""
    words: list[str] = []
    for parameter in command.params:
        name = named(parameter)
        wanted = parameter.required or (path == ("dataset", "new") and name == "--keyword" and but != "--keywords")
        if wanted and name != but:
            value = REQUIRED.get(name, "nowhere")
            words += [name, value] if name.startswith("--") else [value]
    return words


def cases() -> Iterator[Any]:
    for path, command in commands():
        yield pytest.param([*path, *needed(command, path, ""), "--nonsense"], id=" ".join([*path, "--nonsense"]))
        for parameter in command.params:
            name = named(parameter)
            for value in BAD.get(name, []):
                yield pytest.param(
                    [*path, *needed(command, path, name), f"{name}={value}"],
                    id=ascii(" ".join([*path, name, value[:30]])),
                )


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A working folder with files of other kinds than the options expect."""
    place = tmp_path_factory.mktemp("folder")
    (place / "photos").mkdir()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(place / "photos" / "a.png")
    (place / "a.txt").write_text("text")
    (place / "binary.yaml").write_bytes(bytes(range(256)))
    (place / "list.yaml").write_text("- a\n- b\n")
    (place / "broken.yaml").write_text("a: [1,\nb: {\n")
    (place / "tag.yaml").write_text("a: !!python/object/apply:os.system [ls]\n")
    (place / "child.yaml").write_text("extends: nope\n")
    return place


@pytest.mark.parametrize("arguments", cases())
def test_every_command_reports_errors_on_one_line(arguments, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(running, "_runner", lambda: pytest.fail("was accepted"))  # instead of hours of work
    before = [path for path in folder.rglob("*") if path.is_file()]
    code = guarded(lambda: app(arguments, prog_name="dmp", standalone_mode=False))
    said = capsys.readouterr()
    assert code in (1, 2), said.out
    assert re.fullmatch(r"error: .+\n", said.err), said.err
    assert len(said.err) < 1000
    assert "Traceback" not in said.out + said.err
    assert [path for path in folder.rglob("*") if path.is_file()] == before


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["prior", "card", "nowhere"], "nowhere: no model card here"),
        (["models", "check", "nowhere"], "nowhere"),
        (["dataset", "show", "nowhere"], "no finished dataset here"),
        (["stage", "cooking"], "stage 'cooking' does not exist; choose one of: prompts"),
        (["plan", "--workspace", "foo://x"], "foo://x: Protocol not known: foo; give a folder, or a URL"),
        (["plan", "--config", "photos"], "photos: a folder, not a file"),
        (["plan", "--config", "child.yaml"], "extends: preset 'nope' does not exist; choose one of"),
        (["dataset", "new", "-k", "kitchen", "-n", "x"], "--count"),
        (["xyzzy"], "No such command 'xyzzy'; see `dmp --help`"),
        (["predct"], "No such command 'predct'. Did you mean 'predict'?"),
        (["adapter", "show"], "No such command 'show'; see `dmp adapter --help`"),
        (["run", "--dry-run"], "No such option: --dry-run; see `dmp run --help`"),
        (["dataset", "push", "x"], "Missing argument 'repository'; see `dmp dataset push --help`"),
        (["predict", "photos", "-m", "normal,depth"], "; give one at a time: --modality normal --modality depth"),
        (["predict", "photos", "-m", "normal,dpeth"], "choose one of: normal, depth"),
        (["predict", "photos", "--overlap", "8"], "--overlap 8: only tiles overlap; give --tile as well"),
        (["predict", "photos", "--tile", "8", "--overlap", "8"], "--overlap 8: give 0 or more, and less than the"),
        (["stage", "train", "--modality", "nrmal"], "error: --modality nrmal: no artefact of stage 'train' matches"),
        (["stage", "train", "--modality", "nrmal"], "segmentation, shading; did you mean normal?"),
        (["stage", "predict", "--split", "in-domain"], "arbitrary, in_domain, out_of_domain; did you mean in_domain?"),
        (["stage", "report", "--split", "train"], "its artefacts have no split"),
        (["plan", "--workspace", ""], "workspace: its name is empty; give a folder"),
        (["run", "--workspace", " "], "workspace: its name is empty; give a folder"),
        (["predict", ""], "an empty name: give files or folders of this machine"),
        (["predict", "https://example.org/a.jpg"], "https://example.org/a.jpg: give files or folders of this machine"),
    ],
)
def test_the_message_names_the_fault(arguments, named, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert guarded(lambda: app(arguments, prog_name="dmp", standalone_mode=False)) == 2
    assert named in capsys.readouterr().err


def test_an_error_of_validation_shows_the_value_and_not_the_configuration():
    with pytest.raises(InputError) as error:
        load_config("smoke", None, ["modalities=[]"])
    assert str(error.value) == "preset smoke with --set modalities=[]: modalities: name at least one, each once"
    with pytest.raises(InputError, match=r"seed: input should be a valid integer.* \(given: 'xxx.{0,80}x'\)$"):
        load_config("smoke", None, [f"seed={'x' * 5000}"])
    with pytest.raises(InputError, match=r"; and 3 more$"):
        load_config("smoke", None, [f"nonsense_{number}=1" for number in range(8)])


# ------------------------------------------------------------------------------------ explain
def test_errors_of_the_system_name_path_and_fix():
    with pytest.raises(OSError, match="space") as error:
        raise OSError(28, "No space left on device", "/data/x")
    assert explain(error.value) == (
        "/data/x: No space left on device; make room there, then run the same command again: it resumes", 1,
    )  # fmt: skip
    assert explain(TimeoutError("images: stopped after 4 s")) == ("images: stopped after 4 s", 1)
    assert explain(BrokenProcessPool("its worker was killed")) == ("its worker was killed", 1)
    assert explain(KeyError("a defect")) is None


def test_errors_of_other_machines_are_not_defects_of_this_program():
    import httpx
    from prefect.exceptions import CancelledRun

    for error, named in (
        (httpx.ConnectError("All connection attempts failed"), "check PREFECT_API_URL"),
        (CancelledRun("train/normal-dmp: was cancelled"), "was cancelled"),
    ):
        text, code = explain(error)
        assert (named in text, code) == (True, 1)


@pytest.mark.parametrize("package", ["torch", "mitsuba", "diffusers", "matplotlib", "datasets", "s3fs", "prefect"])
def test_a_missing_package_is_named_with_its_extra(package):
    inner = ModuleNotFoundError(f"No module named '{package}.sub'", name=f"{package}.sub")
    outer = ImportError("of a library that wraps it")
    outer.__cause__ = inner
    bare = RendererMissing("needs Mitsuba 3", name="mitsuba")  # as a worker process raises it
    assert explain(bare)[0].endswith("pip install 'dmp-pipeline[render]'")
    for error in (inner, outer):
        text, code = explain(error)
        assert code == 2
        assert f"{package} is not installed; run: pip install 'dmp-pipeline[{EXTRAS[package]}]'" in text
    assert explain(ModuleNotFoundError("No module named 'dmp_core.x'", name="dmp_core.x")) is None


def test_every_extra_is_known():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(EXTRAS.values()) == set(extras) - {"mini", "dev"}
    packages = {
        re.match(r"[\w-]+", line)[0].replace("-", "_") for name in extras for line in extras[name] if name != "dev"
    }
    assert packages - {"dmp_pipeline"} <= set(EXTRAS)


def test_errors_travel_from_worker_processes():
    import pickle

    error = pickle.loads(pickle.dumps(MissingExtra("timm", "labelers")))
    assert "pip install 'dmp-pipeline[labelers]'" in str(error)


def test_a_message_with_any_content_is_one_line(capsys):
    print_error("one\ntwo\x1b[31m \u202e[/f] [bold]x")
    assert capsys.readouterr().err == "error: one; two\\x1b[31m \\u202e[/f] [bold]x\n"


# --------------------------------------------------------------------------------------- main
def dmp(*arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "dmp_core.cli", *arguments]
    env = {**os.environ, "COLUMNS": "200", "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(command, capture_output=True, env=env, check=False)


def test_output_that_cannot_encode_a_character_replaces_it(tmp_path):
    done = dmp("dataset", "show", str(tmp_path / "Küche ✓"), PYTHONIOENCODING="ascii")
    assert done.returncode == 2
    assert b"K?che ?: no finished dataset here" in done.stderr
    done = dmp("models", "list", PYTHONIOENCODING="ascii", LANG="C")
    assert done.returncode == 0
    assert registry()[0].id.encode() in done.stdout


def test_a_closed_pipe_ends_the_command_quietly(tmp_path):
    command = f'"{sys.executable}" -m dmp_core.cli plan -p mini -w "{tmp_path}" | head -n 1'
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, shell=True, capture_output=True, env=env, check=True)
    assert done.stderr == b""
    assert len(done.stdout.splitlines()) == 1


@pytest.mark.slow
def test_a_prefect_home_that_is_not_writable_is_one_line_immediately(tmp_path):
    (tmp_path / "file").write_text("")
    home = tmp_path / "file" / "home"
    done = dmp("stage", "prompts", "-p", "smoke", "-w", str(tmp_path / "w"), PREFECT_HOME=str(home))
    assert done.returncode == 2
    assert re.fullmatch(rf"error: PREFECT_HOME {re.escape(str(home))}: .+\n", done.stderr.decode())


@pytest.mark.e2e
def test_deploying_without_a_server_is_one_line():
    command = [sys.executable, "-m", "flows.deploy"]
    env = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"} | {"PYTHONPATH": str(ROOT)}
    for address, named in (
        ({}, "PREFECT_API_URL is not set"),
        ({"PREFECT_API_URL": "http://127.0.0.1:9/api"}, "answer"),
    ):
        retries = {"PREFECT_CLIENT_MAX_RETRIES": "0"}
        done = subprocess.run(command, capture_output=True, text=True, env=env | address | retries, check=False)
        assert done.returncode in (1, 2)
        assert re.fullmatch(rf"error: .*{named}.*\n", done.stderr), done.stderr
