"""Results of a finished run in Prefect's interface: the artefacts that it made, and the report's scores."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from prefect import Flow
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from prefect.client.schemas.objects import FlowRun, State
from prefect.logging.loggers import flow_run_logger

from dmp_core.errors import InputError
from dmp_core.modalities import Modality, modalities_of
from dmp_core.stages import StageOutput
from dmp_core.store import Workspace
from dmp_core.text import markdown, markdown_code, one_line
from tasks.events import url_of
from tasks.progress import artifact_key


def show_artefacts(outputs: Sequence[StageOutput], title: str) -> None:
    """One row per artefact: id, fingerprint, whether it was cached, size and path."""
    rows = [
        {
            name: one_line(value) if isinstance(value, str) else value
            for name, value in asdict(output).items()
            if name != "published"
        }
        for output in outputs
    ]
    create_table_artifact(rows, artifact_key("artefacts", title), f"Artefacts of {markdown(title)}")


def show_report(outputs: Sequence[StageOutput], dataset: str, workspace: str) -> None:
    """The report's headline scores and the page's path; nothing if the outputs contain no report."""
    place = Workspace(workspace)
    for output in outputs:
        if output.id.startswith("report/"):
            metrics = json.loads(place.fs.cat_file(f"{output.path}/metrics.json"))["metrics"]
            made_with = json.loads(place.fs.cat_file(f"{output.path}/manifest.json"))["config"].get("pipeline", {})
            text = report_markdown(metrics, place.address(output.path), modalities_of(made_with))
            create_markdown_artifact(text, artifact_key("report", dataset), f"Scores on {markdown(dataset)}")


def show_link(outputs: Sequence[StageOutput]) -> None:
    """A link to every report. Its text is the address, to copy: browsers open no files from a server's page."""
    for output in outputs:
        name, url = output.id.removeprefix("report/"), f"{url_of(output.path)}/index.html"
        create_link_artifact(url, markdown(url), artifact_key("report", name, "link"), f"Report of {markdown(name)}")


def show_bad_input(flow: Flow[Any, Any], run: FlowRun, state: State[Any]) -> None:
    """The message alone, as the last line of a failed run's log: above it are the tracebacks of its flows and tasks."""
    error = state.result(raise_on_failure=False)
    if isinstance(error, InputError):
        flow_run_logger(run, flow).error("bad input: %s", error)


def report_markdown(metrics: dict[str, Any], path: str, modalities: Sequence[Modality] | None = None) -> str:
    """A table with one row per modality and split, and the page's path: the interface shows no links to files."""
    from dmp_core.report.tables import headlines, split_name

    lines = ["| modality | metric | split | DMP | constant | VAE ceiling |", "|---|---|---|---:|---:|---:|"]
    for card in headlines(metrics, modalities=modalities):
        for at in card.standings:
            metric = f"{card.metric.label} {'↑' if card.metric.higher_is_better else '↓'}"
            shown = (card.title, metric, split_name(at.split), at.value, at.constant, at.ceiling)
            lines.append(f"| {' | '.join(map(markdown, shown))} |")
    where = markdown_code(f"{path}/index.html")
    return "\n".join([*lines, "", f"The whole report, with galleries and provenance: {where}"])


def show_experiment(path: str, name: str) -> None:
    """The tables of an experiment, and the paths of its figures."""
    folder = Workspace(path)
    index = json.loads(folder.fs.cat_file(f"{folder.root}/experiment.json"))
    files = [file for output in index["outputs"].values() for file in output["files"]]
    tables = [folder.fs.cat_file(f"{folder.root}/{file}").decode() for file in files if file.endswith(".md")]
    figures = [file for file in files if file.endswith(".png")]
    where = (
        f"Figures, and the tables as LaTeX and HTML: {markdown_code(path)} ({', '.join(figures) or 'no figure yet'})"
    )
    create_markdown_artifact("\n\n".join([*tables, where]), artifact_key("experiment", name), index["title"])
