"""Datasets and adapters to the Hugging Face hub and back: which files go, and whether what came is whole."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from dmp_core.diffusion.card import CARD_FILE
from dmp_core.diffusion.model_card import HUB_NAME, model_card
from dmp_core.errors import InputError, RunError
from dmp_core.requests.runs import config_text, finished
from dmp_core.requests.scores import adapter_scores
from dmp_core.stages.registry import kind_of
from dmp_core.store import Artefact, Manifest, Workspace
from dmp_core.store.folders import files_below
from dmp_core.store.workspace import README, split_manifests
from dmp_core.text import one_line
from dmp_core.weights.adapters import adapter_folder

CONFIG, REPORT = "config.yaml", "report"
"""Names in a repository: the configuration for `--config`, and the folder of the report."""
_ADAPTER_FILES = (
    "adapter_config.json", "adapter_model.safetensors", "config.json", "diffusion_pytorch_model.safetensors",
    "pytorch_lora_weights.safetensors", CARD_FILE, "loss.csv",
)  # fmt: skip
_ABOUT = (README, CONFIG, f"{REPORT}/*")
_DATASET_FILES = ("*/manifest.json", "*/index.json", "*/shard-*.tar", "*/shard-*.json")


@dataclass(frozen=True)
class Upload:
    """The files of one repository."""

    kind: Literal["dataset", "model"]
    files: Mapping[str, Path | bytes] = field(default_factory=dict)
    """Name in the repository → a file here, or its content."""

    def sizes(self) -> dict[str, int]:
        return {name: _size(content) for name, content in self.files.items()}


def _size(content: Path | bytes) -> int:
    return content.stat().st_size if isinstance(content, Path) else len(content)


# ---------------------------------------------------------------------------------------- push
def dataset_upload(path: str) -> Upload:
    """The files of a finished dataset's folder: shards, card, and of the newest run with it configuration and report.

    Raises InputError if nothing is finished there, or a shard has changed since it was made.
    """
    from dmp_core.report.dataset_card import card_from_manifests

    root = Path(Workspace(path).root)
    if not Workspace(path).is_local or not root.is_dir():
        raise InputError(f"{path}: no such folder here; give a local WORKSPACE/datasets/NAME")
    place = Workspace(root)
    manifests = {
        name: manifest for name, manifest in split_manifests(place, str(root)).items() if manifest.stage == "shards"
    }
    if not manifests:
        raise InputError(
            f"{path}: no finished dataset here; give WORKSPACE/datasets/NAME, or make one: dmp dataset new"
        )
    _check_shards(root, manifests)
    workspace = root.parent.parent if root.parent.name == "datasets" else root
    found = {
        f"{split}/{name}": root / split / name
        for split in manifests
        for name in files_below(place.fs, f"{root}/{split}")
    }
    written = root / README  # it may state a licence by now
    card = written if written.is_file() else card_from_manifests(manifests).encode()
    known = [manifest.fingerprint for manifest in manifests.values()]
    return Upload("dataset", {README: card, **found, **_about_run(Workspace(workspace), known)})


def adapter_upload(reference: str) -> Upload:
    """The files of an adapter: weights, `dmp.json`, card, and of the newest run with it configuration and report."""
    folder = adapter_folder(reference)
    if folder.is_file():
        raise InputError(f"{reference}: a file; give the folder that holds it and its {CARD_FILE}")
    check_adapter(folder)
    found: dict[str, Path | bytes] = {name: folder / name for name in _ADAPTER_FILES if (folder / name).is_file()}
    made = _artefact_of(folder)
    scores = adapter_scores(made) if made else []
    written = folder / README
    edited = written.is_file() and written.read_bytes() != model_card(folder).encode()
    card = written.read_bytes() if edited else model_card(folder, scores).encode()
    about = _about_run(made.workspace, [made.fingerprint]) if made else {}
    return Upload("model", {README: card, **found, **about})


def _artefact_of(folder: Path) -> Artefact | None:
    """The artefact that an adapter's folder is, if it lies in a workspace."""
    name, _, fingerprint = folder.name.rpartition("-")
    workspace = Workspace(folder.parent.parent)
    artefact = kind_of("train").artefact(workspace, name, fingerprint)
    return artefact if artefact.path == str(folder) and artefact.manifest() is not None else None


def _about_run(workspace: Workspace, fingerprints: Sequence[str]) -> dict[str, Path | bytes]:
    """Configuration and report of the newest run that used these artefacts; empty if there is none."""
    runs = [one for one in finished(workspace, "report") if set(fingerprints) <= set(one.inputs.values())]
    if not runs:
        return {}
    newest = runs[-1]
    folder = Path(kind_of("report").artefact(workspace, newest.name, newest.fingerprint).path)
    names = [name for name in files_below(workspace.fs, str(folder)) if name != "manifest.json"]
    return {CONFIG: config_text(newest).encode()} | {f"{REPORT}/{name}": folder / name for name in names}


def push(upload: Upload, repository: str, *, private: bool) -> str:
    """Upload as one commit; returns the repository's address. The token is Hugging Face's own (`HF_TOKEN`, login).

    private: of a repository that does not exist yet. Raises InputError if the hub refuses, RunError if it is away.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    check_repository(repository)
    with _hub_errors(repository, "set HF_TOKEN to a token that may write there, or run `hf auth login`"):
        api = HfApi(library_name="dmp-pipeline")
        address = api.create_repo(repository, repo_type=upload.kind, private=private, exist_ok=True)
        operations = [CommitOperationAdd(name, content) for name, content in sorted(upload.files.items())]
        api.create_commit(address.repo_id, operations, commit_message="Upload with DMP Pipeline", repo_type=upload.kind)
    return str(address)


# ---------------------------------------------------------------------------------------- pull
def pull_dataset(repository: str, workspace: str, name: str) -> Path:
    """Fetch a dataset to WORKSPACE/datasets/NAME; it appears there once every shard has its manifest's digest."""
    place = Workspace(workspace)
    if not place.is_local:
        raise InputError(f"--workspace {workspace}: give a local folder")
    if not name or name.startswith(".") or Path(name).name != name:
        raise InputError(f"--name {name}: not a folder's name; give one without slashes")
    return _pull(repository, "dataset", Path(kind_of("shards").place(place), name), _DATASET_FILES, _check_dataset)


def pull_adapter(repository: str, out: Path) -> Path:
    """Fetch an adapter to a folder that `dmp predict --adapter` takes; it appears there once its weights are read."""
    return _pull(repository, "model", out, _ADAPTER_FILES, check_adapter)


def _pull(repository: str, kind: str, out: Path, patterns: Sequence[str], check: Callable[[Path], object]) -> Path:
    from huggingface_hub import snapshot_download

    check_repository(repository)
    if os.path.lexists(out):
        raise InputError(f"{out}: exists; choose another name or folder, nothing is overwritten")
    scratch = out.absolute().with_name(f".{out.name}.{os.getpid()}.tmp")
    scratch.mkdir(parents=True)
    try:
        with _hub_errors(repository, "check the name; for a private one set HF_TOKEN, or run `hf auth login`"):
            snapshot_download(
                repository, repo_type=kind, local_dir=scratch, allow_patterns=[*patterns, *_ABOUT],
                library_name="dmp-pipeline",
            )  # fmt: skip
        shutil.rmtree(scratch / ".cache", ignore_errors=True)  # what the download notes for itself
        try:
            check(scratch)
        except InputError as error:
            reason = str(error).replace(f"{scratch}/", "").replace(str(scratch), repository)
            raise InputError(f"{repository}: not a whole {_NOUN[kind]} of this program ({reason})") from None
        scratch.rename(out.absolute())
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return out


_NOUN = {"dataset": "dataset", "model": "adapter"}


def _check_dataset(folder: Path) -> None:
    place = Workspace(folder)
    manifests = split_manifests(place, str(folder))
    if not manifests or any(manifest.stage != "shards" for manifest in manifests.values()):
        raise InputError("no split with a manifest.json")
    _check_shards(folder, manifests)


def _check_shards(folder: Path, manifests: Mapping[str, Manifest]) -> None:
    """Raise InputError for a shard that is missing or differs from its manifest's digest."""
    for split, manifest in manifests.items():
        place = Workspace(folder / split)
        artefact = Artefact(place, manifest.stage, manifest.name, manifest.fingerprint, place.root)
        names = [record.name for record in manifest.files]
        if any(Path(name).name != name for name in names):
            raise InputError(f"{split}/manifest.json: names a file outside its folder")
        if broken := artefact.verify():
            raise InputError(f"{folder / split / broken[0]}: missing, or its bytes have changed since it was made")


def check_adapter(folder: Path) -> None:
    """Raise InputError unless the folder holds a card and weights that can be read, none of them a pickle."""
    from dmp_core.diffusion.adapters import find_adapter, read_weights
    from dmp_core.diffusion.card import read_card

    file = find_adapter(folder)
    if not (folder / CARD_FILE).is_file():
        raise InputError(f"{folder / CARD_FILE}: missing; an adapter that is handed over states what it predicts")
    if file.suffix != ".safetensors":
        raise InputError(f"{file}: a pickle; save the adapter as .safetensors")
    read_card(folder)
    read_weights(file)


def check_repository(repository: str) -> None:
    """Raise InputError for what is no repository's name, before any file is read."""
    if not HUB_NAME.fullmatch(repository):
        raise InputError(f"{one_line(repository)}: not a repository's name; write it as USER/NAME")


@contextmanager
def _hub_errors(repository: str, fix: str) -> Iterator[None]:
    """What the hub's client raises, in one line without the request, whose headers hold the token."""
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled
    from huggingface_hub.utils import httpx

    try:
        yield
    except HFValidationError:
        raise InputError(f"{one_line(repository)}: not a repository's name; write it as USER/NAME") from None
    except (httpx.LocalProtocolError, UnicodeEncodeError):
        raise InputError("HF_TOKEN: not a token as the hub shows it; copy it again") from None
    except HfHubHTTPError as error:
        code = error.response.status_code
        if code in (400, 401, 403, 404, 409):
            raise InputError(f"{repository}: the hub refuses ({code}); {fix}") from None
        raise RunError(f"{repository}: the hub failed ({code}); run the same command again later") from None
    except ValueError as error:  # the client's word for a README whose header the hub does not take
        raise InputError(f"{repository}: the hub refuses: {one_line(str(error))[:200]}") from None
    except (OfflineModeIsEnabled, LocalEntryNotFoundError, httpx.HTTPError) as error:
        reason = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else one_line(str(error))[:100]
        raise RunError(
            f"{repository}: the hub cannot be reached ({reason}); check the network and HF_ENDPOINT"
        ) from None
