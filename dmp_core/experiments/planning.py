"""The artefacts of an experiment: the nodes of each variant, most of them shared."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dmp_core.config import PipelineConfig, load_config
from dmp_core.config.presets import validate
from dmp_core.errors import InputError
from dmp_core.experiments.settings import Experiment, Variant
from dmp_core.modalities import Modality, built_in, modalities_of
from dmp_core.overrides import layered, merge
from dmp_core.stages import Node, plan
from dmp_core.text import did_you_mean
from dmp_core.weights.resolve import same_model

RunNodes = Callable[[PipelineConfig, str, list[Node]], Any]
"""Makes these nodes of a configuration's DAG in a workspace, skipping complete ones."""


@dataclass(frozen=True)
class PlannedVariant:
    """A variant with its configuration and the nodes that its scores and figures need, in order."""

    name: str
    variant: Variant
    config: PipelineConfig
    nodes: list[Node]

    @property
    def title(self) -> str:
        return self.variant.title

    def find(self, node_id: str) -> Node | None:
        return next((node for node in self.nodes if node.id == node_id), None)

    def prediction(self, split: str, modality: str) -> Node | None:
        """The node with its predictions."""
        return self.find(f"predict/{split}-{modality}-{self.config.train.method}")


def plan_experiment(
    experiment: Experiment,
    base: PipelineConfig | str | None = None,
    file: Path | None = None,
    overrides: Sequence[str] = (),
    modalities: Sequence[str] = (),
) -> list[PlannedVariant]:
    """Every variant, each with a valid configuration: base < file < experiment < variant < overrides.

    base: a configuration or a preset; by default the experiment's own preset. A file, which may be a complete
        configuration, is the base of all variants, since otherwise it would override their differences.
    modalities: only these; a variant with none of them is omitted, and so is one that needs more training images than
        the preset has, that is for other `presets` or `only_on` another base model, or that is `optional` and has no
        base model.
    Raises InputError that names the variant and its problem.
    """
    config = base if isinstance(base, PipelineConfig) else load_config(base or experiment.preset, file)
    known = [modality.name for modality in _known(config)]
    for place, names in {"--modalities": modalities, **_named(experiment)}.items():
        if unknown := set(names) - set(known):
            raise InputError(f"{place} {', '.join(sorted(unknown))}: unknown; choose from: {', '.join(known)}")
    below = config.model_dump(mode="json")
    planned = []
    for name, variant in experiment.variants.items():
        if not _belongs(variant, below):
            continue
        settings, source = _layered(experiment, name, variant, below, overrides)
        if (settings["train"].get("samples") or 0) > (settings["splits"].get("train", {}).get("count") or math.inf):
            continue
        config = validate(settings, source)
        if variant.optional and not Path(config.base.model).expanduser().is_dir():
            continue
        chosen = [
            name
            for name in config.modalities
            if all(not only or name in only for only in (variant.modalities, modalities))
        ]
        if chosen:
            nodes = [node for node in plan(config) if _wanted(node, chosen)]
            planned.append(PlannedVariant(name, variant, config, _with_inputs(nodes)))
    return planned


def _belongs(variant: Variant, base: dict[str, Any]) -> bool:
    """Whether the variant is one for this configuration."""
    fits = variant.only_on is None or same_model(variant.only_on, base["base"]["model"])
    return fits and (not variant.presets or base["preset"] in variant.presets)


def _named(experiment: Experiment) -> dict[str, Sequence[str]]:
    """Place in the experiment's file → the modalities named there."""
    parts: dict[str, Any] = {f"variants.{name}": variant for name, variant in experiment.variants.items()}
    parts |= {f"outputs.{name}": spec for name, spec in experiment.outputs.items()}
    return {f"{place}.modalities": getattr(part, "modalities", ()) for place, part in parts.items()}


def choose(planned: Sequence[PlannedVariant], names: Sequence[str]) -> list[PlannedVariant]:
    """The variants of these names, or all for none or `all`; raises InputError that lists the existing ones."""
    if not names or "all" in names:
        return list(planned)
    known = {variant.name: variant for variant in planned}
    if unknown := [name for name in names if name not in known]:
        meant = did_you_mean(unknown[0], known)
        raise InputError(f"no such variant: {', '.join(unknown)}; choose from: {', '.join(known)}, or all{meant}")
    return [known[name] for name in known if name in names]


def known_modalities(planned: Sequence[PlannedVariant]) -> list[Modality]:
    """All modalities of the variants' common configuration, in the order to show them."""
    return _known(planned[0].config) if planned else built_in()


def _known(config: PipelineConfig) -> list[Modality]:
    return modalities_of(config.model_dump(mode="json", include={"own_modalities"}))


def shared_node(planned: Sequence[PlannedVariant], node_id: str) -> Node | None:
    """A node that all variants share, such as the images of a split; None if no variant has it."""
    return next((node for variant in planned if (node := variant.find(node_id))), None)


def distinct_nodes(planned: Sequence[PlannedVariant]) -> Iterator[tuple[PlannedVariant, Node]]:
    """Every artefact once, with the first variant that needs it."""
    seen: set[tuple[str, str]] = set()
    for variant in planned:
        for node in variant.nodes:
            if (node.id, node.fingerprint) not in seen:
                seen.add((node.id, node.fingerprint))
                yield variant, node


def run_experiment(planned: Sequence[PlannedVariant], workspace: str, run_nodes: RunNodes) -> None:
    """Make missing artefacts, variant by variant. A killed run is resumed."""
    for variant in planned:
        run_nodes(variant.config, workspace, variant.nodes)


def _layered(
    experiment: Experiment,
    name: str,
    variant: Variant,
    base: dict[str, Any],
    overrides: Sequence[str],
) -> tuple[dict[str, Any], str]:
    """The variant's settings as a plain mapping, and the name of their source for errors."""
    settings = merge(merge(base, experiment.set), variant.set)
    base_model = settings["base"]["model"]
    own = (values for name, values in variant.per_base.items() if same_model(name, base_model))
    settings = merge(settings, next(own, {}))
    settings = merge(settings, variant.per_preset.get(settings["preset"], {}))
    return layered(settings, f"variant {name}", None, list(overrides))


def _wanted(node: Node, modalities: Sequence[str]) -> bool:
    """Whether the node gives a score or an image of these; reports and merged datasets are made by `dmp run`."""
    return node.stage in ("labels", "predict", "evaluate") and getattr(node.config, "task", None) in modalities


def _with_inputs(wanted: Sequence[Node]) -> list[Node]:
    """The nodes and all their inputs, each after its inputs."""
    ordered: dict[str, Node] = {}

    def visit(node: Node) -> None:
        for source in node.inputs.values():
            visit(source)
        ordered.setdefault(node.id, node)

    for node in wanted:
        visit(node)
    return list(ordered.values())
