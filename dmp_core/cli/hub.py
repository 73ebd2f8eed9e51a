"""`dmp adapter`, and the commands of `dmp dataset` that speak with the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dmp_core.cli.console import WorkspaceOption, stdout
from dmp_core.requests.parts import dataset_name
from dmp_core.store.workspace import README

if TYPE_CHECKING:
    from dmp_core.requests.hub import Upload

app = typer.Typer(no_args_is_help=True, help="Adapters: show the card, hand them over.")

Repository = Annotated[str, typer.Argument(help="On the Hugging Face hub: USER/NAME.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="List what would be uploaded; asks no network.")]
Public = Annotated[bool, typer.Option("--public", help="Of a new repository; by default it is private.")]


def push_dataset(
    path: Annotated[str, typer.Argument(help="A dataset folder: WORKSPACE/datasets/NAME.")],
    repository: Repository,
    public: Public = False,
    dry_run: DryRun = False,
) -> None:
    """Upload a finished dataset with its card, and the configuration and report of the newest run with it.

    The token is Hugging Face's own: HF_TOKEN, or `hf auth login`.
    """
    from dmp_core.requests.hub import dataset_upload

    _push(dataset_upload, path, repository, public, dry_run)


def pull_dataset(
    repository: Repository,
    name: Annotated[str | None, typer.Option(help="Name here; the repository's by default.")] = None,
    workspace: WorkspaceOption = "runs/default",
) -> None:
    """Fetch a dataset to WORKSPACE/datasets/NAME, and compare every shard with its digest.

    To train on it, write it as files (`dmp export PATH --format imagefolder --out FOLDER`) and import these.
    """
    from dmp_core.requests.hub import pull_dataset as fetch

    title = dataset_name(name, repository.rpartition("/")[2])
    stdout.print(f"dataset: {fetch(repository, workspace, title)}", soft_wrap=True)


@app.command("push")
def push_adapter(
    adapter: Annotated[str, typer.Argument(help="Adapter folder, such as WORKSPACE/adapters/NAME, or shipped:NAME.")],
    repository: Repository,
    public: Public = False,
    dry_run: DryRun = False,
) -> None:
    """Upload an adapter with its card, and the configuration and report of the newest run with it.

    The token is Hugging Face's own: HF_TOKEN, or `hf auth login`.
    """
    from dmp_core.requests.hub import adapter_upload

    _push(adapter_upload, adapter, repository, public, dry_run)


@app.command("pull")
def pull_adapter(
    repository: Repository,
    out: Annotated[Path | None, typer.Option(help="Folder; adapters/NAME of the repository by default.")] = None,
) -> None:
    """Fetch an adapter and read it once, for `dmp predict --adapter FOLDER` or `--set adapters.MODALITY=FOLDER`."""
    from dmp_core.requests.hub import pull_adapter as fetch

    folder = out or Path("adapters") / dataset_name(None, repository.rpartition("/")[2])
    stdout.print(f"adapter: {fetch(repository, folder)}", soft_wrap=True)


@app.command("card")
def card(
    adapter: Annotated[str, typer.Argument(help="Adapter folder, or shipped:NAME.")],
) -> None:
    """Print an adapter's card, with the scores of the newest run in its workspace."""
    from dmp_core.requests.hub import adapter_upload

    text = adapter_upload(adapter).files[README]
    typer.echo(text if isinstance(text, bytes) else text.read_bytes(), nl=False)


def _push(collect: Callable[[str], Upload], path: str, repository: str, public: bool, dry_run: bool) -> None:
    from dmp_core.requests.hub import check_repository, push

    check_repository(repository)
    upload = collect(path)
    if dry_run:
        sizes = upload.sizes()
        for name, size in sorted(sizes.items()):
            stdout.print(f"{size:>12,}  {name}", soft_wrap=True)
        seen = "public" if public else "private"
        total = f"{len(sizes)} files, {sum(sizes.values()):,} bytes"
        stdout.print(f"{total} would go to the {upload.kind} {repository} ({seen} if it is new)", soft_wrap=True)
        return
    stdout.print(push(upload, repository, private=not public), soft_wrap=True)
