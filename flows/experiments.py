"""Comparisons and ablations as flows: one per file of `data_manifests/experiments/`."""

from __future__ import annotations

from typing import Any

from prefect import Flow, flow
from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger

from dmp_core.config import PipelineConfig
from dmp_core.experiments.planning import choose, distinct_nodes, plan_experiment
from dmp_core.experiments.settings import experiment_names, load_experiment
from dmp_core.stages import StageOutput
from dmp_core.store import Workspace
from flows.naming import experiment_run_name
from flows.pipeline import run_dag
from flows.stages import Overrides
from flows.visible import show_artefacts, show_bad_input, show_experiment


def _experiment_flow(name: str) -> Flow[Any, Any]:
    experiment = load_experiment(name)

    @flow(
        name=name,
        description=f"{experiment.title}: variants of one configuration over one workspace, then tables and figures.",
        flow_run_name=experiment_run_name,
        persist_result=False,
        on_failure=[show_bad_input],
    )
    def run_experiment(
        *,
        workspace: str = "runs/default",
        force: bool = False,
        variants: list[str] = [],  # noqa: B006 (becomes the schema's default; never changed)
        modalities: list[str] = [],  # noqa: B006
        overrides: Overrides = [],  # noqa: B006
        config: PipelineConfig,
    ) -> list[StageOutput] | State[Any]:
        """Run an experiment.

        Args:
            workspace: local folder or fsspec URL.
            force: make artefacts again even if they are complete.
            variants: only these rows; all by default. Tables show all results in the workspace.
            modalities: only these; all by default.
            overrides: `field.subfield=value`, overrides every variant's configuration.
            config: base of all variants; see `dmp config show`.
        """
        planned = plan_experiment(experiment, config, overrides=overrides, modalities=modalities)
        chosen = choose(planned, variants)
        outputs: list[StageOutput] = []
        own: dict[str, list[str]] = {variant.name: [] for variant in chosen}
        for variant, node in distinct_nodes(chosen):  # each once, so that `force` makes nothing twice
            own[variant.name].append(node.id)
        # Imports pandas and matplotlib, which only writing the tables needs.
        from dmp_core.experiments.outputs import write_outputs

        try:
            for number, variant in enumerate(chosen, 1):
                get_run_logger().info("%d/%d %s", number, len(chosen), variant.title)
                done = run_dag(variant.config, workspace, force, own[variant.name])
                if isinstance(done, State):
                    return done
                outputs += done
        finally:  # show the scores so far after an error, too
            show_experiment(write_outputs(name, experiment, planned, Workspace(workspace)), name)
        show_artefacts(outputs, f"{config.dataset} {name}")
        return outputs

    return run_experiment


EXPERIMENT_FLOWS: dict[str, Flow[Any, Any]] = {name: _experiment_flow(name) for name in experiment_names()}
globals().update(EXPERIMENT_FLOWS)  # a deployment's entry point: flows/experiments.py:compare
