"""Settings of each stage, in the order of the DAG. Defaults are the paper's, unless noted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    PositiveFloat,
    PositiveInt,
    SerializationInfo,
    SerializeAsAny,
    SerializerFunctionWrapHandler,
    Tag,
    WithJsonSchema,
    field_validator,
    model_serializer,
    model_validator,
)

from dmp_core.config.base import Settings
from dmp_core.modalities import BUILT_IN
from dmp_core.modalities.base import Axes, Code, DepthCurve, Modality
from dmp_core.modalities.settings import OwnModality
from dmp_core.passwords import refuse_password

ModalityName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=60, examples=[*BUILT_IN])]
"""Of a built-in modality, of one that a package announces, or of one of `own_modalities`."""
Fraction = Annotated[float, Field(ge=0, le=1)]

MOST_SAMPLES = 100_000_000
"""Of one split: a sample's key has eight digits."""

PAPER_TEMPLATE = (
    "Provide a caption for a photo of a {keyword}. The caption should contain many adjectives, "
    "should describe colors, styles, lighting and materials in the photo, should be in English and "
    "should be no longer than 150 characters. Caption:"
)


class SplitConfig(Settings):
    """One split of the dataset: where its images come from, and how many there are."""

    keywords: list[str] = []
    """Keywords given here; each is used in turn until `count` prompts are made."""
    keywords_file: str | None = None
    """A file with one keyword a line: a path, or a name in `data_manifests/keywords/`."""
    folder: str | None = None
    """Your own images instead of generated ones: a local folder, see `docs/own_images.md`."""
    share: tuple[Fraction, Fraction] = (0.0, 1.0)
    """Which of the folder's images, in the order of their content's digest: from this fraction to that one. Splits
    of one folder whose shares do not overlap have no image in common."""
    fit: Literal["crop", "shorter_side", "keep"] = "crop"
    """How the folder's images are brought to `images.resolution`: the centre square of the image whose shorter side
    has that size; the whole of that image; or not at all."""
    count: Annotated[int, Field(gt=0, le=MOST_SAMPLES)] | None = None
    """Number of images; of a folder the first so many by name, all if not given."""
    scored: bool = True
    """False: the labels are not trusted here, so the report shows pictures only (paper, `arbitrary`)."""
    exclude: list[str] = []
    """Prompts artefacts of the workspace (`<split>-<fingerprint>`) whose captions may not come again."""

    @model_validator(mode="after")
    def _one_source(self) -> SplitConfig:
        if sum(map(bool, (self.keywords, self.keywords_file, self.folder))) != 1:
            raise ValueError("give one of keywords, keywords_file and folder, and only one")
        if self.count is None and not self.folder:
            raise ValueError("count: say how many images to make")
        if self.share[0] >= self.share[1]:
            raise ValueError("share: give two fractions, the smaller first, e.g. [0, 0.2]")
        return self

    @model_serializer(mode="wrap")
    def _without_idle_fields(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Settings of a folder are nothing that a generated split should show, or be made anew for."""
        fields: dict[str, Any] = dump(self)
        idle = set() if self.folder else {"folder", "share", "fit"}
        return {name: value for name, value in fields.items() if name not in idle and (value or name != "exclude")}


# ------------------------------------------------------------------------------------- prompts
Precision = Literal["float32", "float16", "bfloat16"]
# Left out of the dump when it is not set, so that configurations from before it keep their fingerprints.
_Optional = Field(default=None, exclude_if=lambda value: value is None)


class GrammarPrompts(Settings):
    """Captions from a built-in grammar: no model, instant."""

    kind: Literal["grammar"] = "grammar"


class TransformersPrompts(Settings):
    """Captions from any causal language model that transformers loads, GGUF included."""

    kind: Literal["transformers"] = "transformers"
    model: str
    """Hub id or local folder, or `package:NAME` for a model that a Python package ships."""
    revision: str | None = _Optional
    """Branch, tag or commit on the hub; None: the newest."""
    gguf_file: str | None = None
    dtype: Precision | None = _Optional
    """Of the weights; None: the checkpoint's own on an accelerator, float32 on a CPU."""
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
    """Captions from a vLLM engine (bloomz in the paper) or an OpenAI-compatible server; see docs/prompts.md."""

    kind: Literal["vllm"] = "vllm"
    model: str = "bigscience/bloomz-7b1"
    revision: str | None = None
    server_url: str | None = None
    """Base URL of an OpenAI-compatible server; None runs the engine in this process."""
    fallback: bool = True
    """Where no vLLM is that runs this model, let transformers write the captions, and say so; False: stop instead.
    Nothing stands in for a server."""
    dtype: Precision | None = None
    """Of the weights; None: the checkpoint's own. A server decides for itself."""
    gpu_memory_utilization: Annotated[float | None, Field(gt=0, le=1)] = None
    """Share of the memory that the engine may take; None: vLLM's own default."""
    max_model_len: PositiveInt | None = None
    """Tokens of request and caption together; fewer need less memory. None: the model's own limit."""
    temperature: PositiveFloat = 0.95
    eta_cutoff: Annotated[float, Field(ge=0, lt=1)] = 1e-5
    """Published, but vLLM knows no eta sampling: only transformers, where it stands in, applies it."""
    min_new_tokens: PositiveInt = 15
    max_new_tokens: PositiveInt = 128

    @field_validator("server_url")
    @classmethod
    def _without_key(cls, address: str | None) -> str | None:
        if address and "?" in address:
            raise ValueError("give the address without a query; a key goes into the environment variable VLLM_API_KEY")
        return address and refuse_password(address, "a key goes into the variable VLLM_API_KEY")

    @model_serializer(mode="wrap")
    def _what_not_how(self, handler: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:
        """A fingerprint leaves out where the model runs and with how much memory."""
        values: dict[str, Any] = handler(self)
        if info.context and info.context.get("fingerprint"):
            how = ("server_url", "gpu_memory_utilization", "max_model_len")
            values = {name: value for name, value in values.items() if name not in how}
        return values


class PromptsConfig(Settings):
    """Captions of the images, made from the keywords."""

    template: str = PAPER_TEMPLATE
    """Request put to the language model; `{keyword}` is filled in (section 4.1).

    `{details}`, if there, becomes two objects and a light, drawn afresh for every caption.
    """
    max_characters: PositiveInt = 150
    """Longer captions are cut after the last sentence or clause that fits."""
    max_rounds: PositiveInt = 10
    """How often missing captions are asked for again before the stage gives up."""
    generator: Annotated[GrammarPrompts | TransformersPrompts | VLLMPrompts, Field(discriminator="kind")]
    """Who writes them."""

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
    """Paths traced for each pixel: more take longer and leave less noise."""
    max_depth: PositiveInt = 4
    """Longest light path."""


class DiffusionImages(Settings):
    """Images from a text-to-image diffusion model."""

    kind: Literal["diffusion"] = "diffusion"
    model: str = "CompVis/stable-diffusion-v1-4"
    """Hub id, local folder in diffusers format, or `shipped:mini`; any text-to-image model."""
    revision: str | None = None
    resolution: Annotated[int, Field(ge=64, le=2048, multiple_of=8)] = 512
    """Height and width in pixels."""
    scheduler: Literal["ddim", "model"] = "ddim"
    """`model`: the scheduler that the model comes with; flow-matching models need it."""
    num_inference_steps: Annotated[int, Field(ge=1, le=1000)] = 50
    guidance_scale: float = 7.5
    """Classifier-free guidance; 1 is none."""
    negative_prompt: str | None = None
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    """`auto`: float32 on the CPU; on CUDA bfloat16, or float16 where the GPU has no bfloat16."""
    safety_checker: bool = True
    """Note in every sample's json whether the model's own safety checker flags it; images are kept as they are."""


class FolderImages(Settings):
    """A split's own images; `plan` makes this of the split's `folder`."""

    kind: Literal["folder"] = "folder"
    folder: str = Field(exclude=True)
    """Where they lie. Not part of the fingerprint: their content is, by the prompts that the images are made from."""
    fit: Literal["crop", "shorter_side", "keep"]
    resolution: PositiveInt | None
    """Shorter side in pixels; None keeps the images as they are."""
    labels: list[ModalityName]
    """Modalities whose labels lie beside the images, for all of them."""
    own_modalities: dict[ModalityName, OwnModality] = Field(default={}, exclude_if=lambda own: not own)
    """What those are of them that are not built in."""


# -------------------------------------------------------------------------------------- labels
class ExactLabels(Settings):
    """The truth that came with the image: from the renderer, or from files beside one's own images."""

    kind: Literal["exact"] = "exact"
    axes: Axes = Field(default="opengl", exclude_if=lambda axes: axes == "opengl")
    """Of vectors in files beside one's own images; the dataset always stores ours (`opengl`)."""


def _list_labelers(schema: dict[str, Any]) -> None:
    from dmp_core.labelers.registry import labeler_names  # here, since labelers read the configuration

    schema["enum"] = labeler_names()


class ModelLabels(Settings):
    """Pseudo-labels from an off-the-shelf predictor."""

    kind: str = Field(json_schema_extra=_list_labelers)
    """Name of a labeler: one of ours, or one that an installed package announces."""
    weights: str
    """Id in `data_manifests/models.yaml`, a hub id, or a local path."""
    batch_size: PositiveInt = 8
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    options: dict[str, Any] = {}
    """What else the labeler takes, by the names of its `build`, e.g. {pad: true, flip: true} for zoedepth."""
    # Left out of the dump, and so of the fingerprint, while it is off.
    check_flip: bool = Field(default=False, exclude_if=lambda value: not value)
    """Also label the mirrored image, and store how far the two answers are apart; doubles the time."""

    @field_validator("kind")
    @classmethod
    def _is_a_labeler(cls, kind: str) -> str:
        from dmp_core.labelers.registry import labeler_names  # here, since labelers read the configuration

        names = labeler_names()
        if kind not in names:
            raise ValueError(f"no such labeler; choose one of: {', '.join(['exact', *names])}")
        return kind


def _labels_tag(value: Any) -> str:
    kind = value.get("kind") if isinstance(value, Mapping) else getattr(value, "kind", None)
    return "<exact>" if kind == "exact" else "<model>"


LabelsConfig = Annotated[
    Annotated[ExactLabels, Tag("<exact>")] | Annotated[ModelLabels, Tag("<model>")], Discriminator(_labels_tag)
]


# ------------------------------------------------------------------------------------- quality
Share = Annotated[float, Field(ge=0, le=1)]
Bits = Annotated[int, Field(ge=1, le=65)]


class QualityConfig(Settings):
    """Scores are always stored; these bounds decide late what is left out. null: no bound. See docs/quality.md."""

    clip_model: str | None = None
    """CLIP model that scores how well image and prompt fit: a hub id or a local folder."""
    drop_flagged: bool = True
    """Leave out what the image source's own safety checker flagged."""
    min_std: PositiveFloat | None = 1.0
    """Standard deviation of the luminance, 8-bit levels; less is a blank image."""
    max_clipped: Share | None = None
    """Share of pixels whose every channel is 0 or 255."""
    min_sharpness: PositiveFloat | None = None
    """Variance of the luminance's Laplacian, levels²; it depends on the resolution."""
    min_hash_distance: Bits | None = 3
    """Bits of 64 between the perceptual hashes of an image and of the nearest earlier one in its split."""
    min_test_distance: Bits | None = 3
    """The same between a training image and the nearest one in the scored splits that share a keyword with it."""
    max_prompt_similarity: Share | None = None
    """Words in common with the nearest earlier prompt of the split / words in either."""
    min_clip_score: Annotated[float, Field(ge=-1, le=1)] | None = None
    """Cosine of image and prompt under `clip_model`."""
    min_labelled: Share | None = None
    """Share of pixels that have a normal, a depth, a class; each on its own."""
    min_unit: Share | None = None
    """Share of the normals whose length is 1 ± 0.05."""
    min_normal_z: Annotated[float, Field(ge=-1, le=1)] | None = None
    """Mean z of the normals; below 0 they face away from the viewer."""
    max_far: PositiveFloat | None = None
    """Largest depth, metres."""
    min_classes: PositiveInt | None = None
    """Number of classes in the class map."""
    max_class_share: Share | None = None
    """Share of the labelled pixels that the largest class has."""
    min_label_std: Share | None = None
    """Standard deviation of albedo and of shading, which lie in [0, 1]; 0 is a constant map."""
    max_label_clipped: Share | None = None
    """Share of the values of albedo and of shading that are 0 or 1."""
    max_flip_degrees: PositiveFloat | None = None
    """With `check_flip`: mean angle between the normals of an image and of its mirrored copy."""
    max_flip_abs_rel: PositiveFloat | None = None
    """With `check_flip`: mean relative difference of the depths."""
    min_flip_agreement: Share | None = None
    """With `check_flip`: share of pixels of the same class."""
    max_flip_mse: PositiveFloat | None = None
    """With `check_flip`: mean squared difference of albedo, and of shading."""

    @model_validator(mode="after")
    def _scored(self) -> QualityConfig:
        if self.min_clip_score is not None and self.clip_model is None:
            raise ValueError("min_clip_score: needs clip_model, which makes that score")
        return self


class ShardsConfig(Settings):
    """How samples are written."""

    samples_per_shard: PositiveInt = 1000
    """Samples in one tar file, the smallest part that is made again."""
    image_format: Literal["png", "jpg"] = "png"


# ------------------------------------------------------------------------- base model, latents
class BaseConfig(Settings):
    """The pre-trained text-to-image model that serves as the prior."""

    model: str = "CompVis/stable-diffusion-v1-4"
    """Hub id, local folder, or `shipped:mini` for the prior in `data_manifests/priors/mini`."""
    revision: str | None = None


class EditorConfig(Settings):
    """The model that edits images by instructions; InstructPix2Pix and VISII ask it."""

    model: str | None = "timbrooks/instruct-pix2pix"
    """Hub id, id of the registry, or local folder; in the format of diffusers' InstructPix2Pix pipeline. Its
    autoencoder must be the base model's. null: one is made from the base model, as `recipe` says."""
    revision: str | None = None
    recipe: dict[str, Any] = {}
    """For `model: null`, laid over `data_manifests/editor_mini.yaml`, e.g. {fit: {steps: 200}}."""


class LatentsConfig(Settings):
    """VAE latents (posterior mode), encoded once before training."""

    flip: bool = True
    """Also encode every image mirrored; a mirrored normal map has its x negated."""
    resolution: PositiveInt | None = None
    """Resize images to this size before encoding; None keeps their size."""
    resolutions: dict[ModalityName, PositiveInt] = {}
    """Of single modalities, where it is another: what is small needs more latents to be seen in."""
    batch_size: PositiveInt = 16
    depth_scale: PositiveFloat = 8.0
    """Depth is divided by this and clipped to [0, 1] before encoding; metres."""
    depth_curve: DepthCurve = Field(default="linear", exclude_if=lambda value: value == "linear")
    """How grey levels grow with depth: `log` and `sqrt` give near surfaces more of them; see docs/modalities.md."""
    depth_clip: bool = Field(default=True, exclude_if=lambda value: value)
    """False: what is deeper than `depth_scale` is brighter than white, instead of white."""
    palette: str = "default"
    """Colour code of the segmentation classes: a name in `data_manifests/palettes/`."""
    min_class_share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Segmentation is predicted among the classes that cover at least this share of the training labels' pixels. Where
    two classes meet, colours lie in between, which may be those of a class that is hardly ever right."""

    def resolution_of(self, modality: str) -> int | None:
        """At which the network works for a modality: shorter side in pixels; None: the images' own."""
        return self.resolutions.get(modality, self.resolution)

    @property
    def code(self) -> Code:
        """How labels become images."""
        return Code(self.depth_scale, self.depth_curve, self.depth_clip, self.palette)


# ----------------------------------------------------------------------------------- diffusion
Spacing = Literal["leading", "trailing", "linspace"]


class ScheduleConfig(Settings):
    """The noise schedule, by the names that diffusers gives its options."""

    spacing: Spacing = "leading"
    zero_terminal_snr: bool = False
    set_alpha_to_one: bool = False


class SamplingConfig(Settings):
    """Reverse process (eq. 4)."""

    num_steps: PositiveInt = 5
    source: Literal["oracle", "estimated"] = "oracle"
    spacing: Spacing | None = _Optional
    """Of the steps; None: as the adapter was trained. All timesteps are trained at unless `train.num_timesteps` says
    otherwise, so that one adapter serves every spacing."""
    guidance_scale: float = 1.0
    use_prompt: bool = False
    mirrored: bool = Field(default=False, exclude_if=lambda value: not value)
    """Predict the mirrored image as well, and take the mean of both: better, in twice the time. Segmentation goes
    without, since the mean of two classes' colours may be a third one's."""
    colour_noise: PositiveFloat | None = _Optional
    """In segmentation, how far a predicted colour is off, the standard deviation of a channel (which is 0 to 1): a
    pixel is then of the class that is likeliest by its colour and by the classes' shares of the training labels. None:
    of the class whose colour is nearest."""
    batch_size: PositiveInt = 16
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    """Of the U-Net, the text encoder and the VAE's decoding."""

    @property
    def passes(self) -> int:
        """Of the U-Net, for one image."""
        guided = self.use_prompt and self.guidance_scale != 1
        return self.num_steps * (2 if guided else 1) * (2 if self.mirrored else 1)

    def for_modality(self, modality: Modality) -> SamplingConfig:
        """Without what only other modalities read, so that it predicts nothing again."""
        other = {"mirrored": False} if modality.has_classes else {"colour_noise": None}
        return self.model_copy(update=other)


class LoraConfig(Settings):
    """Low-rank adapters in the U-Net: all that is trained."""

    rank: PositiveInt = 4
    alpha: PositiveFloat | None = None
    """LoRA scale is alpha / rank; None means alpha = rank, a scale of 1."""
    targets: Literal["attention", "self_attention", "all"] = "attention"


class MethodConfig(Settings):
    """What the settings of every method have; each method adds its own (`dmp_core.methods.protocol`)."""

    method: str
    """Its name in the registry of methods."""
    samples: PositiveInt | None = _Optional
    """Learn from the first so many samples of the training split; None: from all."""

    @property
    def draws(self) -> int:
        """Samples that the fit sees, for estimates of time."""
        return 0

    @property
    def reads_prompts(self) -> bool:
        """Whether the fit needs the captions."""
        return False

    @property
    def reads_labels(self) -> bool:
        """Whether the fit needs the labels themselves, beside their latents."""
        return False

    @property
    def own_model(self) -> tuple[str, str, str | None] | None:
        """A model of its own besides the base: the setting that names it, its reference, its revision."""
        return None

    @property
    def reads_editor(self) -> bool:
        """Whether it asks the model that `editor` names."""
        return False

    @property
    def fitted(self) -> MethodConfig:
        """What the fit reads, and no more: all else trains nothing anew, and methods whose fits agree share one."""
        return self

    def for_modality(self, modality: Modality) -> MethodConfig:
        """Without what only other modalities read, so that it trains nothing again."""
        return self

    @property
    def inference(self) -> Settings | None:
        """What prediction reads of these settings, besides `sampling`; None: nothing."""
        return None


class FitConfig(Settings):
    """What every training by gradient descent has; `dmp_core.training.loop` reads it."""

    steps: PositiveInt = 50_000
    batch_size: PositiveInt = 8
    gradient_accumulation: PositiveInt = 1
    learning_rate: PositiveFloat = 1e-4
    lr_schedule: Literal["cosine", "constant", "linear"] = "cosine"
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    max_grad_norm: PositiveFloat = 1.0
    mixed_precision: Literal["no", "fp16", "bf16"] = "no"
    checkpoint_every: PositiveInt = 1000
    log_every: PositiveInt = 10
    seed: int = 0

    @property
    def draws(self) -> int:
        """Samples that the fit sees."""
        return self.steps * self.batch_size * self.gradient_accumulation


class TrainConfig(FitConfig, MethodConfig):
    """Fine-tuning with deterministic diffusion (eq. 2-3, section 3.2)."""

    method: Literal["dmp"] = "dmp"
    # Left out of the dump, and so of the fingerprint, while they are as they were before there was a choice.
    weights: Literal["lora", "all"] = Field(default="lora", exclude_if=lambda value: value == "lora")
    """What is trained: low-rank layers (as published), or the whole U-Net."""
    init: Literal["pretrained", "random"] = Field(default="pretrained", exclude_if=lambda value: value == "pretrained")
    """random: the same U-Net without what it was pre-trained to know, so that a comparison shows what the prior is
    worth; needs `weights: all`."""
    lora: LoraConfig = LoraConfig()
    prediction: Literal["x", "y", "v"] = "v"
    schedule: ScheduleConfig = ScheduleConfig()
    num_timesteps: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Train on just what a sampler of this many steps meets: its timesteps, and the image itself (y_T = x) at the
    first. 1 trains the single pass. None: all timesteps (eq. 3)."""
    loss: Literal["latents", "decoded"] = Field(default="latents", exclude_if=lambda value: value == "latents")
    """What is compared: the network's output with its target (eq. 3), or the label image that comes of it, decoded,
    with the true one, pixel by pixel (L1, or `colour_error`); the latter needs `num_timesteps: 1`."""
    colour_error: Literal["l1", "l2"] = Field(default="l1", exclude_if=lambda value: value == "l1")
    """In segmentation with `loss: decoded`, how far a pixel is from its true colour: the mean of its channels' absolute
    differences, or their root mean square. Where several classes are likely, the best guess under `l1` is the median of
    each channel, which can be yet another class's colour; under `l2` it is a point between them (geometric median)."""
    class_balance: Annotated[float, Field(ge=0, le=1)] = Field(default=0, exclude_if=lambda value: value == 0)
    """In segmentation with `loss: decoded`, pixels count by (their class's share of all pixels)^-class_balance: at 0
    all alike, at 1 all classes alike."""
    use_prompt: bool = False
    """Condition on the caption; False trains with the empty prompt, which the authors recommend."""

    @property
    def reads_prompts(self) -> bool:
        return self.use_prompt

    @property
    def reads_labels(self) -> bool:
        return self.loss == "decoded"

    def for_modality(self, modality: Modality) -> TrainConfig:
        return self if modality.has_classes else self.model_copy(update={"colour_error": "l1"})

    @model_validator(mode="after")
    def _trains_what_is_random(self) -> TrainConfig:
        if self.init == "random" and self.weights != "all":
            raise ValueError("init: random weights are worth nothing until all are trained; set weights: all as well")
        return self

    @model_validator(mode="after")
    def _decodes_what_is_meant(self) -> TrainConfig:
        if self.loss == "decoded" and self.num_timesteps != 1:
            raise ValueError(
                "loss: decoded images are blurs of label and photograph but in a single pass; set num_timesteps: 1"
            )
        return self


def _method_tag(value: Any) -> str:
    name = value.get("method", "dmp") if isinstance(value, Mapping) else getattr(value, "method", None)
    return "<dmp>" if name == "dmp" else "<other>"


def _registered(value: Any) -> Any:
    """Settings of a method that this module does not know, by the registry's model for them."""
    from dmp_core.methods.registry import find_method  # here, since methods read the configuration

    return find_method(str(value["method"])).settings.model_validate(value) if isinstance(value, Mapping) else value


_AnyOther = WithJsonSchema(
    {
        "title": "OtherMethod",
        "description": "Settings of another method; `dmp config show` knows them.",
        "type": "object",
        "properties": {"method": {"type": "string", "not": {"const": "dmp"}}},
        "required": ["method"],
    }
)
MethodSettings = Annotated[
    Annotated[TrainConfig, Tag("<dmp>")]
    | Annotated[SerializeAsAny[MethodConfig], BeforeValidator(_registered), _AnyOther, Tag("<other>")],
    Discriminator(_method_tag),
]


# --------------------------------------------------------------------------- evaluation, report
class EvaluateConfig(Settings):
    """Scores of the predictions."""

    bootstrap_samples: Annotated[int, Field(ge=100)] = 1000
    """Resamples for the 95 % confidence intervals."""


class ReportConfig(Settings):
    """The page of results."""

    gallery: PositiveInt = 8
    """Images shown per split."""


class BadSampleConfig(Settings):
    """What becomes of a sample that fails, while the others do not; see docs/quality.md."""

    policy: Literal["fail", "skip"] = "fail"
    """`fail`: the stage stops at once. `skip`: the sample is tried once more, a generated image from its next seed;
    if it fails again, it is recorded with the reason and left out of all that follows."""
    at_most: Fraction = 0.01
    """Share of an artefact's samples that may be skipped, never less than one sample and never all; then the stage
    stops."""
    in_a_row: PositiveInt = 20
    """So many skipped samples, one after the other, stop the stage as well."""

    @property
    def skips(self) -> bool:
        return self.policy == "skip"

    @property
    def bounds(self) -> BadSampleConfig | None:
        """None where no sample may fail."""
        return self if self.skips else None


class RuntimeConfig(Settings):
    """How, not what: nothing here changes a result beyond rounding, so none of it is fingerprinted.

    But for `on_bad_sample`, which decides whether a result may lack samples; those that it has are the same.
    """

    device: Literal["cpu", "cuda", "mps", "auto"] = "auto"
    """Where networks run; `auto` takes an accelerator if there is one."""
    workers: PositiveInt = 2
    """Processes that render; threads that torch uses on the CPU."""
    image_batch_size: PositiveInt | Literal["auto"] = "auto"
    """Images that a diffusion model makes at once, to begin with: halved whenever memory runs out.

    `auto` goes by device and resolution; at 512 pixels 16 on an accelerator, 1 on the CPU.
    """
    verify_inputs: bool = True
    """Compare every file that a stage reads with the digest that was recorded when it was made."""
    on_bad_sample: BadSampleConfig = BadSampleConfig()
    deployments: dict[str, str] = {}
    """Stage → Prefect deployment that runs it, so on another work pool: `{train: train/gpu}`. Stages that are not
    named run in the flow's own process."""
    timeouts: dict[str, PositiveInt] = {}
    """Stage → seconds that it may run; then it is stopped and the flow fails. Waiting in a queue does not count."""
    task_runner: Literal["thread", "process", "dask", "ray"] = "thread"
    """Where tasks run: one after the other in the flow's own process (`thread`), at the same time in processes of
    this machine, or on a Dask or Ray cluster."""
    parallel: PositiveInt = 1
    """Tasks at the same time; each of them may use `workers`. A cluster given by `cluster` decides for itself."""
    chunk_shards: PositiveInt | None = None
    """Shards that one task makes, where a stage's shards do not depend on each other; None: all of an artefact's."""
    cluster: str | None = None
    """Address of a running Dask scheduler (`tcp://host:8786`) or Ray cluster (`ray://host:10001`); None: one is started
    on this machine for the run."""

    @field_validator("cluster")
    @classmethod
    def _without_password(cls, address: str | None) -> str | None:
        return address and refuse_password(address, "let the scheduler's own configuration hold it")

    @model_validator(mode="after")
    def _runner_can(self) -> RuntimeConfig:
        if self.parallel > 1 and self.task_runner == "thread":
            raise ValueError("parallel: needs task_runner process, dask or ray; threads would share one random state")
        if self.cluster and self.task_runner not in ("dask", "ray"):
            raise ValueError("cluster: needs task_runner dask or ray")
        return self
