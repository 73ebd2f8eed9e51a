"""Settings of splits and of their shards."""

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
"""Most samples of one split: a sample's key has eight digits."""


class SplitConfig(Settings):
    """One split of the dataset: source and number of its images."""

    keywords: list[str] = []
    """List of keywords; they are used in turn until `count` prompts are made."""
    keywords_file: str | None = None
    """A file with one keyword per line: a path, or a name in `data_manifests/keywords/`."""
    folder: str | None = None
    """Your own images instead of generated ones: a local folder, see `docs/own_images.md`."""
    share: tuple[Fraction, Fraction] = (0.0, 1.0)
    """Range of the folder's images, as two fractions, in the order of their content's digest. Splits of one folder
    whose ranges do not overlap have no image in common."""
    fit: Literal["crop", "shorter_side", "keep"] = "crop"
    """How the folder's images are resized: `shorter_side`: the shorter side becomes `images.resolution`; `crop`: then
    the centre square is cut out; `keep`: not at all."""
    count: Annotated[int, Field(gt=0, le=MOST_SAMPLES)] | None = None
    """Number of images; of a folder the first ones by name, all by default."""
    scored: bool = True
    """False: the labels are not trusted here, so the report shows images without scores (paper, `arbitrary`)."""
    exclude: list[str] = []
    """Prompts artefacts of the workspace (`<split>-<fingerprint>`) whose captions must not be repeated."""

    @model_validator(mode="after")
    def _one_source(self) -> SplitConfig:
        if sum(map(bool, (self.keywords, self.keywords_file, self.folder))) != 1:
            raise ValueError("give one of keywords, keywords_file and folder, and only one")
        if self.count is None and not self.folder:
            raise ValueError("count: give the number of images to make")
        if self.share[0] >= self.share[1]:
            raise ValueError("share: give two fractions, the smaller first, e.g. [0, 0.2]")
        return self

    @model_serializer(mode="wrap")
    def _without_idle_fields(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Omit a folder's settings from generated splits, so that these are neither shown nor fingerprinted."""
        fields: dict[str, Any] = dump(self)
        idle = set() if self.folder else {"folder", "share", "fit"}
        return {name: value for name, value in fields.items() if name not in idle and (value or name != "exclude")}


class ShardsConfig(Settings):
    """How samples are written."""

    samples_per_shard: PositiveInt = 1000
    """Samples in one tar file, the smallest part that is made again."""
    image_format: Literal["png", "jpg"] = "png"
    """Of the images in the merged dataset; jpg is smaller and loses detail. Labels are unaffected."""
