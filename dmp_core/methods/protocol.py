"""What a method is to the rest of the package: something that is fitted to pairs, saved in a folder, and called.

Light on purpose (no torch), so that planning a run may read it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from dmp_core.diffusion.settings import SamplingConfig
from dmp_core.methods.settings import MethodConfig
from dmp_core.modalities import Code, Modality
from dmp_core.progress import Progress
from dmp_core.settings import Settings
from dmp_core.weights.settings import BaseConfig, EditorConfig

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dmp_core.training.data import LabelImages, LatentPairs
    from dmp_core.training.pairs import ImagePairs

Needs = Literal["latents", "images", "nothing"]
"""What a fit reads: VAE latents of images and labels, images and labels themselves, or no data at all."""

Predictor = Callable[["NDArray[Any]", Sequence[str]], "NDArray[Any]"]
"""(images uint8 (B, H, W, 3), their keys) → labels of the same size, in the units of `dmp_core.modalities`."""


@dataclass(frozen=True)
class Problem:
    """The learning problem, the same for every method."""

    modality: Modality
    base: BaseConfig
    """The pre-trained text-to-image model, for methods that use one."""
    code: Code = field(default_factory=Code)
    """How labels are encoded as images."""
    editor: EditorConfig | None = None
    """The model that edits by instructions, for methods whose settings say `reads_editor`."""
    classes: tuple[int, ...] | None = None
    """For class maps: the classes of the training labels, among which predictions choose; None: unknown, so all."""
    class_shares: tuple[float, ...] | None = None
    """In the same order, the share of the labelled pixels that each covers; only for fits."""


@dataclass(frozen=True)
class Inference:
    """How a fitted method is run."""

    sampling: SamplingConfig
    """Methods that predict latents decode them with `sampling.decoder`, if it names a network."""
    resolution: int | None = None
    """Shorter side at which networks work, pixels; None: the images' own."""
    captions: Mapping[str, str] = field(default_factory=dict)
    """Key → caption; empty unless `sampling.use_prompt`."""
    own: Settings | None = None
    """What the method's settings give as `inference`."""


class TrainingData(Protocol):
    """The training split of one modality, without the samples that the quality gates exclude."""

    fingerprints: Mapping[str, str]
    """Of the artefacts that it comes from, by role."""

    def __len__(self) -> int: ...

    def latent_pairs(self, batch_size: int, seed: int) -> LatentPairs:
        """For methods that need latents."""
        ...

    def image_pairs(self, folder: Path | None = None) -> ImagePairs:
        """For methods that need images: mapped into memory from files without a name in `folder`, a fit's `work`.

        folder: None is the system's for temporary files.
        """
        ...

    def label_images(self, size: tuple[int, int]) -> LabelImages:
        """Of this height and width, in the order of the pairs; for settings whose `reads_labels` is true."""
        ...

    def prompts(self) -> list[str]:
        """One caption per sample, in the order of the pairs; for settings whose `reads_prompts` is true."""
        ...


class Method(Protocol):
    """One compared method. The registry builds it without arguments; it holds no state."""

    name: str
    """As settings and artefacts call it: letters, digits, underscores."""
    title: str
    """As tables call it."""
    needs: Needs
    settings: type[MethodConfig]

    def fit(
        self,
        settings: Any,
        problem: Problem,
        data: TrainingData,
        work: Path,
        out: Path,
        *,
        device: str,
        progress: Progress,
    ) -> dict[str, Any]:
        """Fit the method, or resume a killed fit.

        settings: what an instance of `self.settings` gives as `fitted`.
        work: kept between attempts at the same fit, and deleted after it: checkpoints. A sub-folder `tensorboard` is
            published.
        out: what `load` reads goes here; a `loss.csv` is shown by reports.
        Returns the details for the artefact's manifest, as plain values.
        Raises InputError for what the user can fix.
        """
        ...

    def load(self, folder: Path, problem: Problem, inference: Inference, *, device: str) -> Predictor:
        """The fitted method, from a folder that `fit` filled. Raises InputError when it contains none."""
        ...
