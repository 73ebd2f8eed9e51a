"""The images and the composition, as far as they can be checked without an engine.

`make docker-check` also executes the CPU image's installation and its command in a clean folder.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILES = ["docker/Dockerfile", "docker/Dockerfile.gpu"]
Instruction = tuple[str, str]


def instructions(name: str) -> list[Instruction]:
    text = re.sub(r"^\s*#.*\n", "", (ROOT / name).read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    lines = (line.split(None, 1) for line in text.splitlines() if line.strip())
    return [(word.upper(), " ".join(rest.split())) for word, rest in lines]


def of(name: str, *words: str) -> list[str]:
    return [rest for word, rest in instructions(name) if word in words]


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    found = yaml.safe_load((ROOT / "docker/compose.yaml").read_text())
    assert isinstance(found, dict)
    return found


def pinned(image: str) -> bool:
    """A tag that names a release: with two dots, or a date."""
    tag = image.rpartition(":")[2] if ":" in image else ""
    return bool(re.search(r"\d+\.\d+|RELEASE\.\d{4}-", tag))


# -------------------------------------------------------------------------------- Dockerfiles
@pytest.mark.parametrize("name", DOCKERFILES)
def test_base_images_are_pinned_and_stages_exist(name):
    stages: list[str] = []
    for line in of(name, "FROM"):
        image, *named = line.split()
        assert pinned(image)
        stages += named[1:]
    assert stages == ["build"]
    assert set(re.findall(r"--from=(\w+)", " ".join(of(name, "COPY")))) == {"build"}


@pytest.mark.parametrize("name", DOCKERFILES)
def test_runs_as_a_user_with_a_health_check(name):
    last_stage = instructions(name)[[word for word, _ in instructions(name)].index("FROM", 1) :]
    users = [rest for word, rest in last_stage if word == "USER"]
    assert users
    assert users[-1] not in ("root", "0")
    assert len(of(name, "HEALTHCHECK")) == len(of(name, "CMD")) == 1
    assert not of(name, "ADD")


@pytest.mark.parametrize("name", DOCKERFILES)
def test_what_is_copied_exists_and_is_let_through(name):
    let_through = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for line in of(name, "COPY"):
        if "--from" not in line:
            *sources, _ = line.split()
            for source in sources:
                assert (ROOT / source).exists()
                assert source in let_through


@pytest.mark.parametrize("name", DOCKERFILES)
def test_packages_are_pinned_and_code_comes_last(name):
    constraints = (ROOT / "constraints.txt").read_text().splitlines()
    runs = [command for command in of(name, "RUN") if "pip" in command and "install" in command]
    for command in runs:
        exact = re.findall(r"[\w-]+==[\w.]+", command)
        assert exact or "-c constraints.txt" in command or "--no-deps" in command
        assert "--no-cache-dir" in command
        known = {line.partition("==")[0] for line in constraints}
        assert all(pin in constraints for pin in exact if pin.partition("==")[0] in known)
    order = [rest for _, rest in instructions(name)]
    code = next(n for n, rest in enumerate(order) if rest == "dmp_core dmp_core")
    assert sum("pip install" in rest for rest in order[code:]) == 1
    assert "apt-get install" not in " ".join(order) or "rm -rf /var/lib/apt/lists" in " ".join(order)


@pytest.mark.parametrize("name", DOCKERFILES)
def test_extras_and_commands_exist(name):
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = next(line for line in of(name, "ARG") if line.startswith("EXTRAS="))
    assert set(extras.partition("=")[2].strip('"').split(",")) <= project["optional-dependencies"].keys()
    for command in [*of(name, "CMD"), of(name, "HEALTHCHECK")[0].partition("CMD ")[2]]:
        assert json.loads(command)[0] in project["scripts"]


# -------------------------------------------------------------------------------- composition
def test_every_reference_in_the_composition_is_kept(compose):
    services = compose["services"]
    for name, service in services.items():
        assert set(service.get("depends_on", {})) <= services.keys()
        for volume in service.get("volumes", []):
            assert volume.partition(":")[0] in compose["volumes"]
        assert pinned(service["image"]) or service["image"].startswith("dmp-pipeline:")
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), f"{name}: {port} is open to the network"
        if "build" in service:
            assert (ROOT / service["build"]["dockerfile"]).exists()
            assert (ROOT / "docker" / service["build"]["context"]).resolve() == ROOT


def test_services_are_healthy_or_end(compose):
    once = {
        name
        for service in compose["services"].values()
        for name, wait in service.get("depends_on", {}).items()
        if wait["condition"] == "service_completed_successfully"
    }
    assert once == {"deploy", "bucket"}
    for name, service in compose["services"].items():
        assert (name in once) != bool(service.get("healthcheck", {}).get("test")), name
        waits = service.get("depends_on", {}).items()
        assert all(wait["condition"] != "service_started" for _, wait in waits)


def test_what_needs_a_gpu_is_asked_for(compose):
    for service in compose["services"].values():
        devices = service.get("deploy", {}).get("resources", {}).get("reservations", {}).get("devices", [])
        assert bool(devices) == bool(service.get("profiles"))


def test_variables_are_in_the_example(compose):
    named = set(re.findall(r"\$\{(\w+)", (ROOT / "docker/compose.yaml").read_text()))
    given = {line.partition("=")[0] for line in (ROOT / "docker/.env.example").read_text().splitlines() if "=" in line}
    assert named == given


def test_commands_exist_and_pools_are_those_that_are_deployed(compose):
    scripts = {entry.name for entry in entry_points(group="console_scripts")}
    for service in compose["services"].values():
        if service["image"].startswith("dmp-pipeline:"):
            program, *words = service["command"]
            assert program == "python" or program in scripts
            if program == "python":
                assert (ROOT / f"{words[1].replace('.', '/')}.py").exists()
            if "--pool" in words:
                assert f'"{words[words.index("--pool") + 1]}"' in (ROOT / "flows/deploy.py").read_text()


def test_docker_accepts_the_composition(tmp_path):
    if (
        not shutil.which("docker")
        or subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode
    ):
        pytest.skip("no `docker compose` here")
    files = ["-f", str(ROOT / "docker/compose.yaml"), "--env-file", str(ROOT / "docker/.env.example")]
    command = ["docker", "compose", *files, "--profile", "gpu", "--profile", "vllm", "config", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# ------------------------------------------------------------------------ without an engine
def build_stage(name: str) -> list[Instruction]:
    found = instructions(name)
    return found[1 : [word for word, _ in found].index("FROM", 1)]


def copy(line: str, folder: Path) -> None:
    *sources, target = line.split()
    for source in (ROOT / source for source in sources):
        if source.is_dir():
            shutil.copytree(source, folder / target, dirs_exist_ok=True)
        else:
            shutil.copy(source, folder / target)


def shell(command: str, folder: Path, env: dict[str, str]) -> None:
    done = subprocess.run(["bash", "-euc", command], cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"


@pytest.mark.e2e
def test_installation_and_command_work_in_a_clean_folder(tmp_path):
    """The CPU image's build stage, instruction by instruction, with /opt in a temporary folder; then its command."""
    name, opt, folder = DOCKERFILES[0], tmp_path / "opt", tmp_path
    env = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")} | {"HOME": str(tmp_path)}
    env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"
    for word, rest in build_stage(name):
        rest = rest.replace("/opt/", f"{opt}/")
        match word:
            case "ARG":
                key, _, value = rest.partition("=")
                env.setdefault(key, value.strip('"'))
            case "ENV":
                env |= {key: value.replace("$PATH", env["PATH"]) for key, value in re.findall(r"(\S+?)=(\S+)", rest)}
            case "WORKDIR":
                folder = Path(rest)
                folder.mkdir(parents=True)
            case "COPY":
                copy(rest, folder)
            case "RUN":
                shell(rest, folder, env)
            case _:
                pytest.fail(f"{word}: this test does not know how to execute it")
    for command in (" ".join(json.loads(of(name, "CMD")[0])), "dmp plan -p smoke", "prefect worker start --help"):
        shell(command, folder, env)
