"""Every model is opened once before the work that needs it, so that no run ends after hours of images.

Names and shapes of its weights are compared with the network that will take them, on torch's meta device.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from dmp_core.diffusion.decoder import FIELD as DECODER
from dmp_core.errors import InputError
from dmp_core.labelers.registry import BUILT_IN, build_labeler
from dmp_core.labelers.settings import ModelLabels
from dmp_core.prompts.settings import PromptsConfig, TransformersPrompts
from dmp_core.stages.base import ModelUse, Node
from dmp_core.weights.registry import Model, check, proven
from dmp_core.weights.resolve import resolve_model

_META = "meta"
_PIPELINES = ("base.model", "images.model", "editor.model")


def open_model(model: Model) -> None:
    """Open a complete model of the registry. Raises InputError that names the file and what does not fit."""
    if model.network is not None:
        _open(model.network, model.place())


def problems_of(model: Model, *, full: bool = False) -> list[str]:
    """What is wrong with a model's files, or, if they are new, or with `full`, with what is in them."""
    found = [str(problem) for problem in check(model, full=full, trust=False)]
    if found or (proven(model) and not full):
        return found
    try:
        open_model(model)
    except InputError as error:
        return [str(error)]
    return [str(problem) for problem in check(model)]


def open_uses(nodes: Iterable[Node]) -> None:
    """Open what is here of the models that nodes load. Raises InputError that names the setting."""
    opened: set[tuple[str, str, str]] = set()
    for node in nodes:
        for use in node.models:
            place = resolve_model(use.reference, use.field, revision=use.revision)
            kind = _network(node, use, Path(place.place))
            known = (kind or "", place.place, repr(getattr(node.config, "labeler", None)))
            if kind is not None and place.local and known not in opened:
                opened.add(known)
                _open_use(node, use, kind, Path(place.place))


def _network(node: Node, use: ModelUse, place: Path) -> str | None:
    """What a setting's model is opened as; None for what only its own library can tell."""
    labeler = getattr(node.config, "labeler", None)
    if isinstance(labeler, ModelLabels):
        return labeler.kind if labeler.kind in BUILT_IN else None
    if use.field in _PIPELINES:
        return "diffusers"
    if use.field == DECODER:
        return "decoder"
    prompts = getattr(node.config, "prompts", None)
    if isinstance(prompts, PromptsConfig) and not isinstance(prompts.generator, TransformersPrompts):
        return None
    return "transformers" if (place / "config.json").is_file() else None


def _open_use(node: Node, use: ModelUse, kind: str, place: Path) -> None:
    from dmp_core.stages.labels import labeler_on

    labeler, name = getattr(node.config, "labeler", None), getattr(node.config, "task", "")
    try:
        if isinstance(labeler, ModelLabels):
            labeler_on(_META, name, labeler)
        else:
            _open(kind, place)
    except InputError as error:
        said = str(error)
        raise InputError(said if said.startswith(use.field.rpartition(".")[0]) else f"{use.field}: {said}") from None


def _open(network: str, place: Path) -> None:
    if network in BUILT_IN:
        build_labeler(network, place, _META)
        return
    from dmp_core.weights.opening import open_decoder, open_diffusers, open_transformers

    {"decoder": open_decoder, "diffusers": open_diffusers, "transformers": open_transformers}[network](place)
