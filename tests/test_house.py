"""The house rules that no linter knows: documents match the code, layers stay light, the wheel is complete."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from functools import cache
from importlib import import_module
from importlib.metadata import packages_distributions
from importlib.util import find_spec
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from dmp_core.cli.examples import EXAMPLES
from dmp_core.config import load_config, preset_names
from dmp_core.config.presets import dump, validate
from dmp_core.modalities import BUILT_IN, find_modality
from dmp_core.scoring.registry import PAPER_CLASSES
from tests.commands import in_process
from tests.mutants import MUTANTS

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("dmp_core", "flows", "tasks")
DOCUMENTS = sorted(path.relative_to(ROOT).as_posix() for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
LONGEST_FUNCTION = 60

# Importing these costs seconds or needs an extra; the command line must answer without them.
HEAVY = {
    "accelerate",
    "datasets",
    "diffusers",
    "gradio",
    "huggingface_hub",
    "matplotlib",
    "mitsuba",
    "peft",
    "prefect",
    "torch",
    "transformers",
}


def normalised(name: str) -> str:
    """A distribution's name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


@cache
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@cache
def declared_dependencies() -> frozenset[str]:
    extras = project()["optional-dependencies"].values()
    requirements = [*project()["dependencies"], *(item for extra in extras for item in extra)]
    names = {normalised(re.match(r"[\w.-]+", item)[0]) for item in requirements}
    return frozenset(names - {normalised(project()["name"])})


@cache
def sources() -> dict[Path, ast.Module]:
    files = [file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))]
    return {file.relative_to(ROOT): ast.parse(file.read_text()) for file in files}


def run_python(code: str, folder: Path) -> str:
    """Standard output of a fresh interpreter that was started in `folder`."""
    result = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


# --------------------------------------------------------------------------------- documents
WITH_COMMANDS = [
    *(name for name in DOCUMENTS if name != "CHANGELOG.md"),  # what it says was right in its day
    *(
        path.relative_to(ROOT).as_posix()
        for part in ("docker", "data_manifests")
        for path in (ROOT / part).rglob("*.md")
    ),
]
BLOCK = re.compile(r"^[ \t]*```(\w*)\n(.*?)^[ \t]*```", re.MULTILINE | re.DOTALL)
SHELLS = {"sh", "bash", "shell", "console", "zsh"}
INLINE = re.compile(r"`((?:\.venv/bin/)?(?:dmp|make|python -m|pip install) [^`]+)`")


def shell_commands(document: str) -> Iterator[list[str]]:
    """Every command in the document's shell blocks, split into words; continued lines are joined."""
    for language, block in BLOCK.findall((ROOT / document).read_text()):
        for line in block.replace("\\\n", " ").splitlines() if language in SHELLS else ():
            words = shlex.split(line, comments=True)
            while words and re.fullmatch(r"\w+=\S*", words[0]):  # variables before the program
                words = words[1:]
            if words:
                yield [word for word in words if word != "&"]


def inline_commands(document: str) -> Iterator[list[str]]:
    """Every command in the document's text. They are there for their names, so arguments may be missing."""
    for found in INLINE.findall(BLOCK.sub("", (ROOT / document).read_text())):
        yield shlex.split(" ".join(found.replace("--set …", "").replace("…", "").split()))


def as_parameters(commands: Callable[[str], Iterator[list[str]]]) -> list[Any]:
    """Each command once, with the first document that has it."""
    found = {tuple(words): name for name in reversed(WITH_COMMANDS) for words in commands(name)}
    return [pytest.param([*words], id=f"{name}: {' '.join(words)}") for words, name in found.items()]


GENERATED = {"../reference/settings.md", "../reference/commands.md"}
"""Pages that only the site has."""
OTHER_PROGRAMS = {"cd", "cp", "docker", "export", "git", "rm", "source"}
OTHER_TOOLS = {"pre-commit", "prefect", "tensorboard"}
"""Programs in a `.venv`."""
OTHER_MODULES = {"pytest", "venv", "vllm.entrypoints.openai.api_server"}


@pytest.mark.parametrize("words", as_parameters(shell_commands))
def test_documented_command_exists(words: list[str]) -> None:
    check_command(words)


@pytest.mark.parametrize("words", as_parameters(inline_commands))
def test_command_in_a_text_exists(words: list[str]) -> None:
    check_command(words, whole=False)


def test_commands_are_found_wherever_they_are() -> None:
    documents = {name for name in WITH_COMMANDS if [*shell_commands(name), *inline_commands(name)]}
    assert {"README.md", "CONTRIBUTING.md", "docker/README.md", "docs/how/rerun.md"} <= documents
    untagged = re.compile(r"^\s*(\$ |(\.venv/bin/)?(dmp|make|python) )", re.MULTILINE)
    blocks = [(name, block) for name in WITH_COMMANDS for block in BLOCK.findall((ROOT / name).read_text())]
    assert not [name for name, (language, block) in blocks if language == "" and untagged.search(block)]


@pytest.mark.parametrize(
    "line",
    [
        "dmp predct photo.jpg", "dmp run --prest mini", "dmp run --preset minni", "dmp run --set train.stepps=3",
        "dmp plan --preset mini --set train.steps=-1", "dmp stage trian", "dmp stage train --modality", "dmp dataset",
        "dmp export runs/a --format cocoa --out b", "dmp dataset new --count many --keyword a", "make demoo",
        "make demo WORKSPCE=a", "python -m flows.deply", "python -m flows.serve --limmit 3", ".venv/bin/dnp run",
        "prefect deployment run pipeline/minni", "prefect deployment run pipeline/mini -p workspce=a", "dpm run",
            "pip install 'dmp-pipeline[wanbd]'",
    ],
)  # fmt: skip
def test_a_wrong_command_would_be_found(line: str) -> None:
    with pytest.raises(Exception):  # noqa: B017, PT011  each program has errors of its own
        check_command(shlex.split(line))


def check_command(words: list[str], whole: bool = True) -> None:
    """Raise unless the command is one that a reader can run, as far as can be seen without running it.

    whole: nothing that it needs may be missing.
    """
    program, *arguments = words
    name = Path(program).name
    if name == "make":
        check_make(arguments)
    elif name == "dmp":
        parse_dmp(arguments, whole)
    elif name == "prefect" and arguments[:2] == ["deployment", "run"]:
        check_deployment(arguments[2], arguments[4::2])
    elif name.startswith("python") and arguments[:1] == ["-m"]:
        check_module(*arguments[1:])
    elif name == "pip":
        check_extras(arguments)
    elif program.startswith(".venv"):
        assert name in OTHER_TOOLS
    else:
        assert program in OTHER_PROGRAMS


def check_make(arguments: list[str]) -> None:
    text = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z0-9-]+):", text, re.MULTILINE))
    variables = set(re.findall(r"^(\w+) \?=", text, re.MULTILINE))
    for word in arguments:
        name, is_variable, _ = word.partition("=")
        assert name in (variables if is_variable else targets), word


def check_extras(arguments: list[str]) -> None:
    named = [re.fullmatch(r"(dmp-pipeline|\.)\[(.*)\]", word) for word in arguments]
    extras = {extra for found in named if found for extra in found[2].split(",")}
    assert extras <= set(project()["optional-dependencies"])


def check_deployment(name: str, given: list[str]) -> None:
    """given: its parameters, as NAME=VALUE."""
    flow = documented_flows()[name]
    assert {one.partition("=")[0] for one in given} <= set(signature(flow.fn).parameters)


def check_module(name: str, *arguments: str) -> None:
    if name in OTHER_MODULES:
        return
    found = find_spec(name.replace("dmp_pipeline.", ""))
    assert found, name
    assert found.origin
    source = Path(found.origin).read_text()
    for option in (word for word in arguments if word.startswith("--")):
        parameter = option.removeprefix("--").replace("-", "_")
        assert f'"{option}"' in source or re.search(rf"\b{parameter}: ", source), option


@cache
def documented_flows() -> dict[str, Any]:
    """Deployment → its flow."""
    places = [(entry["name"], *entry["entrypoint"].split(":")) for entry in deployments()]
    modules = {file: import_module(file.removesuffix(".py").replace("/", ".")) for _, file, _ in places}
    flows = [(name, getattr(modules[file], flow)) for name, file, flow in places]
    return {f"{flow.name}/{name}": flow for name, flow in flows}


def deployments() -> list[dict[str, Any]]:
    return yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]


def parse_dmp(arguments: list[str], whole: bool = True) -> None:
    """Let the command line parse the arguments without running anything, and the configuration its settings."""
    from dmp_core.cli import app

    command = typer.main.get_command(app)
    while hasattr(command, "commands"):
        if not whole and (not arguments or arguments[0].startswith("-")):  # the group's name, or an option's
            return
        assert arguments, "a group needs a subcommand"
        assert arguments[0] in command.commands, f"no such command: dmp … {arguments[0]}"
        command, arguments = command.commands[arguments[0]], arguments[1:]
    try:
        given = command.make_context("dmp", list(arguments)).params
    except Exception as error:
        if whole or type(error).__name__ not in ("MissingParameter", "BadOptionUsage", "NoArgsIsHelpError"):
            raise
        return
    for option in command.params:
        choices, value = (getattr(option, "help", None) or "").split(" | "), given.get(option.name)
        assert len(choices) == 1 or value in (None, *choices) or value.isupper(), value  # STAGE stands for any
    if {"preset", "overrides"} <= given.keys():
        load_config(given["preset"] or "mini", None, given["overrides"])


NEEDS_NOTHING = re.compile(
    r"(--version|config show|models list|prior card shipped|adapter card shipped|compare|ablate|plan)\b(?!.* --config )"
)
"""What runs without a workspace, with `--dry-run` where there is one."""


def fast_commands() -> list[str]:
    found = [words[1:] for name in WITH_COMMANDS for words in shell_commands(name) if Path(words[0]).name == "dmp"]
    found += [shlex.split(example)[1:] for example in EXAMPLES.values()]
    dry = [[*words, "--dry-run"] if words[0] in ("compare", "ablate") else words for words in found]
    lines = dict.fromkeys(shlex.join(dict.fromkeys(words) if "--dry-run" in words else words) for words in dry)
    return [line for line in lines if NEEDS_NOTHING.match(line)]


@pytest.mark.parametrize("line", fast_commands())
def test_fast_command_runs(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = shlex.split(line.replace(" /data/", " "))
    for file in re.findall(r"rejects_file=(\S+)", line):
        Path(file).parent.mkdir(parents=True)
        Path(file).write_text("train-00000000\n")
    done = in_process(*arguments)
    assert done.exit_code == 0
    assert done.output.strip()


def test_words_that_were_given_up_stay_away() -> None:
    """One word per thing, the field's own; see CONTRIBUTING.md."""
    listed = [
        line.rsplit("  ", 1) for line in (ROOT / "tests/data/words.txt").read_text().splitlines() if line[0] != "#"
    ]
    words = [(re.compile(word.strip(), re.IGNORECASE), better.strip()) for word, better in listed]
    code = [file for part in (*PACKAGES, "benchmarks", "docs", "examples") for file in (ROOT / part).rglob("*.py")]
    found = [
        f"{file.relative_to(ROOT)}:{number}: {hit[0]!r}: {better}"
        for file in (*code, *(ROOT / name for name in DOCUMENTS if name != "CHANGELOG.md"))
        for number, line in enumerate(file.read_text().splitlines(), 1)
        for word, better in words
        if (hit := word.search(line))
    ]
    assert words
    assert not found, "\n".join(found)


def test_readme_names_the_two_commands() -> None:
    commands = list(shell_commands("README.md"))
    assert ["make", "demo"] in commands
    assert ["make", "test"] in commands


def test_documents_link_to_files_that_exist() -> None:
    broken = [
        f"{document}: {target}"
        for document in DOCUMENTS
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", (ROOT / document).read_text())
        if "://" not in target and target not in GENERATED and not (ROOT / document).parent.joinpath(target).exists()
    ]
    assert not broken


def test_every_metric_is_documented() -> None:
    named = set(re.findall(r"`(\w+)`", (ROOT / "docs/metrics.md").read_text()))
    of_one_class = re.compile("|".join(f"(iou|acc)_{name}" for name in PAPER_CLASSES))
    metrics = {metric.name for name in BUILT_IN for metric in find_modality(name).metrics}
    assert {name for name in metrics if not of_one_class.fullmatch(name)} <= named


def test_every_mutant_is_documented_and_can_be_planted() -> None:
    listed = (ROOT / "docs/parity.md").read_text()
    for mutant in MUTANTS:
        assert f"- {mutant.defect}\n" in listed
        assert (ROOT / mutant.file).read_text().count(mutant.right) == 1, mutant.defect


def test_every_dependency_is_explained() -> None:
    rows = re.findall(r"^\| `([^`]+)` \|", (ROOT / "docs/dependencies.md").read_text(), re.MULTILINE)
    assert {normalised(row) for row in rows} == declared_dependencies()


# -------------------------------------------------------------------------------------- code
def third_party_imports() -> dict[str, set[str]]:
    """Top-level module name → files that import it, lazily or not."""
    found: dict[str, set[str]] = {}
    for file, tree in sources().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                modules = [node.module or ""]
            else:
                continue
            for module in modules:
                found.setdefault(module.partition(".")[0], set()).add(str(file))
    own = {*PACKAGES, "tests"}
    return {name: files for name, files in found.items() if name not in sys.stdlib_module_names and name not in own}


def test_every_import_is_a_declared_dependency() -> None:
    distributions = packages_distributions()
    undeclared = {
        name: sorted(files)
        for name, files in third_party_imports().items()
        if not {normalised(item) for item in distributions.get(name, [name])} & declared_dependencies()
    }
    assert not undeclared


def calls() -> Iterator[tuple[str, str, dict[str, str]]]:
    """Place, dotted name and keyword arguments (as source) of every call."""
    for file, tree in sources().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                options = {keyword.arg or "**": ast.unparse(keyword.value) for keyword in node.keywords}
                yield f"{file}:{node.lineno}", ast.unparse(node.func), options


SAFE = {
    "np.load": ("allow_pickle", "False"),
    "numpy.load": ("allow_pickle", "False"),
    "torch.load": ("weights_only", "True"),
    "Image.open": ("formats", None),  # else any of Pillow's decoders sees the bytes, PostScript's among them
}
"""Call → the argument that makes it safe for a file from a stranger."""
CODE = re.compile(
    r"(eval|exec|compile|os\.system|os\.popen)$|(pickle|cPickle|dill|cloudpickle|joblib|shelve|marshal)\.|"
    r"yaml\.(?!safe_dump|YAMLError)|pd\.read_pickle$|.*\.extractall$"
)
"""Calls that can run what a file says, or write where it says."""
PARSES_YAML = "dmp_core/yaml.py"
"""With the safe loader, as tests/test_yaml.py shows; everything else calls it."""


def is_safe(options: dict[str, str], argument: str, value: str | None) -> bool:
    return argument in options and value in (None, options[argument])


def test_files_from_strangers_run_no_code() -> None:
    unsafe = [
        f"{place}: {name}"
        for place, name, options in calls()
        if (CODE.match(name) and not place.startswith(f"{PARSES_YAML}:"))
        or (name in SAFE and not is_safe(options, *SAFE[name]))
        or options.get("trust_remote_code", "False") != "False"
        or "custom_pipeline" in options
        or options.get("shell", "False") != "False"
    ]
    assert not unsafe


def test_no_function_is_too_long() -> None:
    functions = [
        (f"{file}:{node.name}", node.end_lineno - node.lineno + 1)
        for file, tree in sources().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    assert functions
    assert not [name for name, lines in functions if lines > LONGEST_FUNCTION]


def test_every_room_says_what_may_live_there() -> None:
    rooms = [folder for folder in (ROOT / "dmp_core").iterdir() if any(folder.glob("*.py"))]
    undescribed = [
        room.name
        for room in rooms
        if not (room / "__init__.py").exists() or not ast.get_docstring(ast.parse((room / "__init__.py").read_text()))
    ]
    assert rooms
    assert not undescribed


@pytest.mark.parametrize("room", ["config", "store", "stages", "cli.commands"])
def test_light_imports_stay_light(room: str) -> None:
    code = f"import dmp_core.{room}, sys; print(*sorted({HEAVY!r} & set(sys.modules)))"
    assert run_python(code, ROOT).split() == []


# ----------------------------------------------------------------------------------- presets
@pytest.mark.parametrize("name", preset_names())
def test_preset_is_valid_and_survives_a_round_trip(name: str) -> None:
    config = load_config(name)
    assert config.preset == name
    assert validate(yaml.safe_load(dump(config)), name) == config


# ------------------------------------------------------------------------------------- wheel
@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from hatchling.builders.wheel import WheelBuilder

    folder = tmp_path_factory.mktemp("wheel")
    return Path(next(WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])))


def test_wheel_holds_code_and_manifests(wheel: Path) -> None:
    """`flows` and `tasks` are names that others use, too: in a wheel they are in `dmp_pipeline`."""
    files = [path for folder in (*PACKAGES, "data_manifests") for path in (ROOT / folder).rglob("*") if path.is_file()]
    names = {path.relative_to(ROOT).as_posix() for path in files if "__pycache__" not in path.parts}
    expected = {re.sub("^(flows|tasks)/", r"dmp_pipeline/\1/", name) for name in names}
    expected = {re.sub("^data_manifests/", "dmp_core/_data_manifests/", name) for name in expected}
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
        assert held == expected | {"dmp_pipeline/__init__.py", "dmp_pipeline/prefect.yaml"}
        texts = {name: archive.read(name).decode() for name in held if name.startswith("dmp_pipeline/")}
    assert not [name for name, text in texts.items() if re.search(r"(?m)^\s*(from|import) (flows|tasks)\b", text)]
    for name in (name for name in names if name.startswith(("flows/", "tasks/"))):
        assert texts[f"dmp_pipeline/{name}"].replace("dmp_pipeline.", "") == (ROOT / name).read_text()


def test_wheel_works_without_the_checkout(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = (
        "from dmp_core.config import load_config; from dmp_core.resources import manifest_root; "
        "load_config('mini'); print(manifest_root())"
    )
    assert Path(run_python(code, tmp_path).strip()) == tmp_path / "dmp_core" / "_data_manifests"


def test_wheel_announces_command_and_runner(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        name = next(item for item in archive.namelist() if item.endswith("entry_points.txt"))
        entries = archive.read(name).decode()
    assert "dmp = dmp_core.cli:main" in entries
    assert "prefect = dmp_pipeline.flows.pipeline:run_pipeline" in entries


def test_wheel_serves_its_deployments(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = (
        "from dmp_pipeline.flows.serve import listed, served; import dmp_pipeline.tasks; "
        "print(len(listed()), served(listed()[0]).entrypoint)"
    )
    assert run_python(code, tmp_path).split() == [str(len(deployments())), "dmp_pipeline.flows.pipeline.pipeline"]


def test_modalities_are_named_where_they_are_made_and_nowhere_else():
    """A sixth one is one file: whatever knows one by its name would have to be found and changed."""
    allowed = ("dmp_core/modalities/", "dmp_core/labelers/", "dmp_core/render/")
    others = {"dmp_core/experiments/tables.py", "flows/pools.py"}  # the paper's tables; a queue's name
    named = re.compile(r'"(normal|depth|segmentation|albedo|shading)"')
    found = {
        path.relative_to(ROOT).as_posix()
        for room in ("dmp_core", "flows", "tasks")
        for path in (ROOT / room).rglob("*.py")
        if named.search(path.read_text().replace("'", '"'))
    }
    assert {path for path in found if not path.startswith(allowed)} <= others
