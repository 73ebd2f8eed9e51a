"""Settings of each stage, in the order of the DAG. Defaults are the paper's, unless noted."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from dmp_core.config.base import Settings

Task = Literal["normal", "depth", "segmentation", "albedo", "shading"]
TASKS: tuple[Task, ...] = ("normal", "depth", "segmentation", "albedo", "shading")

PAPER_TEMPLATE = (
    "Provide a caption for a photo of a {keyword}. The caption should contain many adjectives, "
    "should describe colors, styles, lighting and materials in the photo, should be in English and "
    "should be no longer than 150 characters. Caption:"
)


class SplitConfig(Settings):
    """One split of the dataset: its keywords and its size."""

    keywords: list[str] = []
    """Keywords given here; each is used in turn until `count` prompts are made."""
    keywords_file: str | None = None
    """A file with one keyword a line: a path, or a name in `data_manifests/keywords/`."""
    count: PositiveInt
    """Number of images."""
    scored: bool = True
    """False: the labels are not trusted here, so the report shows pictures only (paper, `arbitrary`)."""

    @model_validator(mode="after")
    def _one_source(self) -> SplitConfig:
        if bool(self.keywords) == bool(self.keywords_file):
            raise ValueError("give either keywords or keywords_file, and not both")
        return self


# ------------------------------------------------------------------------------------- prompts
class GrammarPrompts(Settings):
    """Captions from a built-in grammar: no model, instant."""

    kind: Literal["grammar"] = "grammar"


class TransformersPrompts(Settings):
    """Captions from any causal language model that transformers loads, GGUF included."""

    kind: Literal["transformers"] = "transformers"
    model: str
    """Hub id or local folder, or `package:NAME` for a model that a Python package ships."""
    gguf_file: str | None = None
    chat: bool = True
    """Wrap the request in the model's chat template when it has one."""
    answer_prefix: str = ""
    """First words of every caption, put into the model's mouth; keeps small models on the subject."""
    batch_size: PositiveInt = 64
    temperature: PositiveFloat = 0.95
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    eta_cutoff: Annotated[float, Field(ge=0, lt=1)] = 0.0
    min_new_tokens: PositiveInt = 15
    max_new_tokens: PositiveInt = 128


class VLLMPrompts(Settings):
    """Captions from a vLLM engine (bloomz in the paper) or an OpenAI-compatible server."""

    kind: Literal["vllm"] = "vllm"
    model: str = "bigscience/bloomz-7b1"
    revision: str | None = None
    server_url: str | None = None
    """Base URL of an OpenAI-compatible server; None runs the engine in this process."""
    temperature: PositiveFloat = 0.95
    min_new_tokens: PositiveInt = 15
    max_new_tokens: PositiveInt = 128


class PromptsConfig(Settings):
    template: str = PAPER_TEMPLATE
    """Request put to the language model; `{keyword}` is filled in (section 4.1).

    `{details}`, if there, becomes two objects and a light, drawn afresh for every caption.
    """
    max_characters: PositiveInt = 150
    max_rounds: PositiveInt = 10
    """How often missing captions are asked for again before the stage gives up."""
    generator: Annotated[GrammarPrompts | TransformersPrompts | VLLMPrompts, Field(discriminator="kind")]

    @model_validator(mode="after")
    def _template_has_keyword(self) -> PromptsConfig:
        if "{keyword}" not in self.template:
            raise ValueError("template must contain {keyword}")
        return self


# -------------------------------------------------------------------------------------- images
class RenderImages(Settings):
    """Path-traced scenes with exact labels (Mitsuba 3)."""

    kind: Literal["render"] = "render"
    resolution: Annotated[int, Field(ge=16, le=1024)] = 64
    """Height and width in pixels."""
    samples_per_pixel: PositiveInt = 16
    max_depth: PositiveInt = 4
    """Longest light path."""


class DiffusionImages(Settings):
    """Images from a text-to-image diffusion model."""

    kind: Literal["diffusion"] = "diffusion"
    model: str = "CompVis/stable-diffusion-v1-4"
    revision: str | None = None
    resolution: Annotated[int, Field(ge=64, le=2048, multiple_of=8)] = 512
    num_inference_steps: PositiveInt = 50
    guidance_scale: float = 7.5
    dtype: Literal["float32", "float16", "bfloat16"] = "float16"
    batch_size: PositiveInt = 8


# -------------------------------------------------------------------------------------- labels
class ExactLabels(Settings):
    """The renderer's own ground truth; only for rendered images."""

    kind: Literal["exact"] = "exact"


class ModelLabels(Settings):
    """Pseudo-labels from an off-the-shelf predictor."""

    kind: Literal["omnidata", "zoedepth", "eva02", "pienet"]
    weights: str
    """Id in `data_manifests/models.yaml`, a hub id, or a local path."""
    batch_size: PositiveInt = 8
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"


LabelsConfig = Annotated[ExactLabels | ModelLabels, Field(discriminator="kind")]


class ShardsConfig(Settings):
    samples_per_shard: PositiveInt = 1000
    image_format: Literal["png", "jpg"] = "png"


# ------------------------------------------------------------------------- base model, latents
class BaseConfig(Settings):
    """The pre-trained text-to-image model that serves as the prior."""

    model: str = "CompVis/stable-diffusion-v1-4"
    """Hub id, local folder, or `shipped:mini` for the prior in `data_manifests/priors/mini`."""
    revision: str | None = None


class LatentsConfig(Settings):
    """VAE latents (posterior mode), encoded once before training."""

    flip: bool = True
    """Also encode every image mirrored; a mirrored normal map has its x negated."""
    resolution: PositiveInt | None = None
    """Resize images to this size before encoding; None keeps their size."""
    batch_size: PositiveInt = 16
    depth_scale: PositiveFloat = 8.0
    """Depth is divided by this and clipped to [0, 1] before encoding; metres."""
    palette: str = "default"
    """Colour code of the segmentation classes: a name in `data_manifests/palettes/`."""


# ----------------------------------------------------------------------------------- diffusion
class ScheduleConfig(Settings):
    spacing: Literal["leading", "trailing", "linspace"] = "leading"
    zero_terminal_snr: bool = False
    set_alpha_to_one: bool = False


class SamplingConfig(Settings):
    """Reverse process (eq. 4)."""

    num_steps: PositiveInt = 5
    source: Literal["oracle", "estimated"] = "oracle"
    guidance_scale: float = 1.0
    use_prompt: bool = False
    batch_size: PositiveInt = 16


class LoraConfig(Settings):
    rank: PositiveInt = 4
    alpha: PositiveFloat | None = None
    """LoRA scale is alpha / rank; None means alpha = rank, a scale of 1."""
    targets: Literal["attention", "self_attention", "all"] = "attention"


class TrainConfig(Settings):
    """Fine-tuning with deterministic diffusion (eq. 2-3, section 3.2)."""

    method: Literal["dmp"] = "dmp"
    lora: LoraConfig = LoraConfig()
    prediction: Literal["x", "y", "v"] = "v"
    schedule: ScheduleConfig = ScheduleConfig()
    num_timesteps: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Train on just what a sampler of this many steps meets: its timesteps, and the image itself (y_T = x) at the
    first. 1 trains the single pass. None: all timesteps (eq. 3)."""
    steps: PositiveInt = 50_000
    batch_size: PositiveInt = 8
    gradient_accumulation: PositiveInt = 1
    learning_rate: PositiveFloat = 1e-4
    lr_schedule: Literal["cosine", "constant", "linear"] = "cosine"
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    max_grad_norm: PositiveFloat = 1.0
    mixed_precision: Literal["no", "fp16", "bf16"] = "no"
    use_prompt: bool = False
    """Condition on the caption; False trains with the empty prompt, which the authors recommend."""
    checkpoint_every: PositiveInt = 1000
    log_every: PositiveInt = 10
    seed: int = 0


# --------------------------------------------------------------------------- evaluation, report
class EvaluateConfig(Settings):
    bootstrap_samples: Annotated[int, Field(ge=100)] = 1000
    """Resamples for the 95 % confidence intervals."""


class ReportConfig(Settings):
    gallery: PositiveInt = 8
    """Images shown per split and task."""


class RuntimeConfig(Settings):
    """How, not what: nothing here changes a byte of any result, so none of it is fingerprinted."""

    device: Literal["cpu", "cuda", "mps", "auto"] = "auto"
    workers: PositiveInt = 2
    """Processes that render; threads that torch uses on the CPU."""
