"""Settings of splits and of the shards that hold them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    PositiveInt,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from dmp_core.names import Fraction
from dmp_core.settings import Settings

MOST_SAMPLES = 100_000_000
"""Of one split: a sample's key has eight digits."""


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


class ShardsConfig(Settings):
    """How samples are written."""

    samples_per_shard: PositiveInt = 1000
    """Samples in one tar file, the smallest part that is made again."""
    image_format: Literal["png", "jpg"] = "png"
