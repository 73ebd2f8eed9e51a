"""Estimated time, size and memory of a node, each with its source.

`measured`: similar nodes in the same workspace. `computed`: from counted operations, the device's name, and the shapes
of what is stored. `default`: typical rates (`StageKind`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

from dmp_core.modalities import Modality
from dmp_core.runtime import RuntimeConfig
from dmp_core.stages.base import Node, OfModality
from dmp_core.stages.hardware import Speed, find_speed
from dmp_core.stages.registry import stage_module
from dmp_core.store import Workspace, sidecars
from dmp_core.store.folders import files_below
from dmp_core.store.workspace import known_manifests

Source = Literal["measured", "computed", "default"]

A_PASS, A_PASS_ON_A_GPU = 0.006, 0.03
"""Seconds per image and U-Net pass, added for predictions."""
OPERATIONS = {
    "unet": 0.80,
    "encode": 1.12,
    "decode": 2.52,
    "small decode": 0.14,
    "step": 1.78,
    "omnidata": 0.47,
    "zoedepth": 0.95,
    "eva02": 2.49,
    "pienet": 4.30,
}
"""10¹² operations per image of 512 x 512 pixels: a pass of Stable Diffusion v1's U-Net, its VAE's two directions,
decoding with `taesd`, a training step of LoRA, and the labelers (`benchmarks.device_memory.operations`)."""
_SIDE = 512
_PHOTO, _COLOURS, _GREY, _CLASSES, _HALF = 1.7, 1.3, 0.45, 0.05, 2.0
"""Bytes per pixel: PNG of photos, and of networks' outputs in colours, grey levels and classes; float16."""
_BASE_RAM = 3.0
"""Gigabytes of a process with its libraries."""


class Estimate(NamedTuple):
    seconds: float
    bytes: int
    source: Source
    """Of the seconds."""
    size_source: Source
    """Of the bytes."""


def estimate_seconds(
    node: Node, workspace: Workspace, runtime: RuntimeConfig | None = None, before: Iterable[Node] = ()
) -> Estimate:
    """Estimate of the node, without its finished shards, and without the time of those that others fill.

    runtime: the device; None: that of the defaults. before: the nodes that are to be made before this one.
    """
    measured = _measured(node, workspace)
    if measured is not None:
        (seconds, size), source, size_source = measured, "measured", "measured"
    else:
        seconds, size = _typical(node)
        speed = find_speed(runtime) if runtime is not None and _is_big(node) else None
        computed, stored = speed and _computed(node, speed), _stored(node)
        source, size_source = "computed" if computed else "default", "computed" if stored else "default"
        seconds, size = computed or seconds, stored or size
    left = _left(node, workspace)
    filled = max((_left(other, workspace) for other in _same_pass(node, before)), default=0)
    return Estimate(seconds * max(0, left - filled), int(size * left), source, size_source)  # type: ignore[arg-type]


def estimate_each(
    nodes: Sequence[Node], workspace: Workspace, runtime: RuntimeConfig | None = None
) -> dict[str, Estimate]:
    """Estimates of nodes that are made in this order, by their ids."""
    return {node.id: estimate_seconds(node, workspace, runtime, nodes[:number]) for number, node in enumerate(nodes)}


def _left(node: Node, workspace: Workspace) -> int:
    """Samples that are still to be made; all, if the artefact is complete."""
    out = node.artefact(workspace)
    if out.manifest() is not None:
        return node.samples
    made = sum(record.samples for record in sidecars(out) if record.fingerprint == out.fingerprint)
    return max(0, node.samples - made)


def _same_pass(node: Node, before: Iterable[Node]) -> list[Node]:
    """Which of these fill this node's shards along with their own, as one network that gives two modalities does."""
    find: Callable[[Node, Iterable[Node]], list[Node]] | None = getattr(stage_module(node.stage), "same_pass", None)
    return [] if find is None else find(node, [other for other in before if other.stage == node.stage])


def _is_big(node: Node) -> bool:
    return any(each.models for each in (node, *node.inputs.values()))


def _typical(node: Node) -> tuple[float, float]:
    """The GPU's rates if large models are used, in the stage itself or in its inputs."""
    big = _is_big(node)
    seconds, size = node.kind.on_a_gpu if big else node.kind.typical
    if big and node.stage == "images":  # the rate is that of 50 guided steps
        seconds *= _operations(node, node.config.model_dump(mode="json")) / _image_operations(50, guided=True)
    return seconds + node.config.passes * (A_PASS_ON_A_GPU if big else A_PASS), size


# ------------------------------------------------------------------------------------- computed
def _computed(node: Node, speed: Speed) -> float | None:
    """Seconds per sample from operations; None for a stage whose operations are not counted."""
    settings = node.config.model_dump(mode="json")
    operations = _operations(node, settings)
    if not operations:
        return None
    scale = (_resolution(node) / _SIDE) ** 2
    return scale * operations / (speed.full if _is_float32(node, settings) else speed.half)


def _operations(node: Node, settings: dict[str, Any]) -> float:
    """10¹² operations per sample of 512 x 512 pixels; 0 if unknown."""
    count = OPERATIONS
    if node.stage == "images":
        images = settings["images"]
        return _image_operations(images.get("num_inference_steps", 0), guided=images.get("guidance_scale", 1) > 1)
    if node.stage == "labels":
        labeler = settings["labeler"]
        twice = (2 if (labeler.get("options") or {}).get("flip") else 1) * (2 if labeler.get("check_flip") else 1)
        return twice * count.get(labeler["kind"], 0.0)
    if node.stage == "latents":
        return count["encode"] * (2 if settings.get("flip") else 1)
    if node.stage == "predict":
        small = settings["sampling"].get("decoder") is not None
        return count["encode"] + node.config.passes * count["unet"] + count["small decode" if small else "decode"]
    if node.stage == "train" and (settings.get("train") or {}).get("method") == "dmp":
        return count["step"] + (3 * count["decode"] if settings["train"].get("loss") == "decoded" else 0.0)
    return 0.0


def _image_operations(steps: int, *, guided: bool) -> float:
    """10¹² operations per generated image; guided: with a second pass per step, without the caption."""
    return steps * (2 if guided else 1) * OPERATIONS["unet"] + OPERATIONS["decode"]


def _is_float32(node: Node, settings: dict[str, Any]) -> bool:
    if node.stage == "train":
        return bool(settings["train"].get("mixed_precision") == "no")
    named = settings.get("labeler") or settings.get("images") or settings.get("sampling") or {"dtype": "float32"}
    return bool(node.stage == "latents" or named.get("dtype") == "float32")


def _stored(node: Node) -> float | None:
    """Bytes per sample of large maps from their shapes; None for others."""
    if not _is_big(node):
        return None
    pixels = _resolution(node) ** 2
    if node.stage == "images":
        return _PHOTO * pixels + 2000
    if isinstance(node.config, OfModality) and node.stage in ("labels", "predict"):
        return _bytes_per_pixel(node.config.modality) * pixels + 2000
    if node.stage == "latents":
        # Four channels of float32 at an eighth of each side, plain and mirrored.
        return 4 * 4 * pixels / 64 * (2 if getattr(node.config, "flip", False) else 1)
    if node.stage == "shards":
        columns = (source for source in node.inputs.values() if source.stage in ("images", "labels"))
        return sum(_stored(column) or column.kind.on_a_gpu[1] for column in columns)
    return None


def _bytes_per_pixel(modality: Modality) -> float:
    if not modality.member.endswith(".png"):
        return _HALF
    return _CLASSES if modality.has_classes else _COLOURS if modality.channels == 3 else _GREY


def _resolution(node: Node) -> int:
    """Side of the images that the node works on, pixels."""
    for each in _upstream(node):
        found = getattr(each.config, "resolution", None) or getattr(
            getattr(each.config, "images", None), "resolution", None
        )
        if found:
            return int(found)
    return _SIDE


def _upstream(node: Node) -> Iterator[Node]:
    """The node, and all that it is made from."""
    yield node
    for source in node.inputs.values():
        yield from _upstream(source)


def ram_gb(node: Node, weights: int) -> float:
    """Memory of the machine that the node takes: a shard in it three times over, latents twice, weights once.

    weights: bytes of the largest model, which is read before it is moved to the device.
    """
    size = float(weights)
    if node.kind.sharded:
        per_shard = next(
            (n for each in _upstream(node) if (n := getattr(each.config, "samples_per_shard", None))), 1000
        )
        size += 3 * min(per_shard, node.samples) * (_stored(node) or _typical(node)[1])
    if node.stage == "train":
        latents = [source for source in node.inputs.values() if source.stage == "latents"]
        size += 2 * sum(source.samples * (_stored(source) or source.kind.typical[1]) for source in latents)
    return _BASE_RAM + size / 1e9


# ------------------------------------------------------------------------------------- measured
def _measured(node: Node, workspace: Workspace) -> tuple[float, float] | None:
    """Rates of the newest finished artefact in this workspace of the same stage and of the same kind of work."""
    folder = node.kind.place(workspace)
    names = [name for name in files_below(workspace.fs, folder) if name.endswith("/manifest.json")]
    paths = [f"{folder}/{name}" for name in names]
    rates, work = [], _work(node.config.model_dump(mode="json"))
    for manifest in known_manifests(workspace, paths).values():
        if manifest.samples and _work(manifest.config) == work:
            total = sum(record.bytes for record in manifest.files)
            rates.append((manifest.created, manifest.seconds / manifest.samples, total / manifest.samples))
    return max(rates)[1:] if rates else None


def _work(stage: dict[str, Any]) -> Any:
    """What determines the cost per sample: the method or model, its number of steps, the size and what is stored."""
    own = stage.get("inference") or stage.get("sampling") or {}
    labeler, images = stage.get("labeler") or {}, stage.get("images") or {}
    generator = (stage.get("prompts") or {}).get("generator") or {}
    named = tuple(images.get(name) for name in ("kind", "model", "resolution", "num_inference_steps"))
    column = (stage.get("task"), labeler.get("kind")) if labeler else stage.get("column")
    return (
        stage.get("row") or (stage.get("train") or {}).get("method"),
        own.get("num_steps"),
        (generator.get("kind"), generator.get("model")),
        named,
        column,
    )
