"""The images of your own folder, with the captions and labels that `listing` finds."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from dmp_core.errors import InputError
from dmp_core.modalities import BUILT_IN, Modality
from dmp_core.store import canonical_json

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


UNKNOWN_SIZE = (0, 0)


# A thousand lines would hide the first; the rest is shown once these are fixed.
_MOST_PROBLEMS = 20


@dataclass(frozen=True, slots=True)
class LabelFile:
    """A label that came with an image; `file` is relative to the folder, with forward slashes."""

    modality: Modality
    file: str
    sha256: str


@dataclass(frozen=True, slots=True)
class OwnImage:
    """One image of the folder."""

    file: str
    sha256: str
    size: tuple[int, int]
    """Height and width in pixels, as shown: after the EXIF orientation. `UNKNOWN_SIZE` for a broken file."""
    keyword: str
    prompt: str
    labels: tuple[LabelFile, ...]


@dataclass(frozen=True)
class Listing:
    """The images of a folder, in the order of their names."""

    root: Path
    images: tuple[OwnImage, ...]
    ignored: tuple[str, ...] = ()
    """Files that are neither image nor label nor caption, and links that lead back to a folder above them."""

    @property
    def labelled(self) -> list[Modality]:
        """Modalities for which some image has a label; those that are not built in come last, by name."""
        found = {label.modality for image in self.images for label in image.labels}
        order = {name: place for place, name in enumerate(BUILT_IN)}
        return sorted(found, key=lambda modality: (order.get(modality.name, len(order)), modality.name))

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of those for which every image has a label. Raises InputError for one that only some images have."""
        have = Counter(label.modality for image in self.images for label in image.labels)
        for modality in self.labelled:
            if have[modality] < len(self.images):
                first = next(i for i in self.images if all(label.modality != modality for label in i.labels))
                wanted = str(PurePosixPath(first.file).with_suffix(f".{modality.member}"))
                raise InputError(
                    f"{self.root / wanted}: missing, though {have[modality]} of {len(self.images)} images have their "
                    f"{modality.name}; add the label, or remove those of the other images"
                )
        return tuple(modality.name for modality in self.labelled)

    @property
    def digest(self) -> str:
        """Digest of names and contents of images, captions and labels; independent of the folder's path."""
        digest = hashlib.sha256()
        for number, i in enumerate(self.images):  # one list in JSON, row by row
            row = (i.file, i.sha256, i.keyword, i.prompt, [(x.modality.name, x.file, x.sha256) for x in i.labels])
            digest.update(f"{',' if number else '['}{canonical_json(row)}".encode())
        digest.update(b"]" if self.images else b"[]")
        return digest.hexdigest()[:16]


def refuse(problems: Iterable[str]) -> None:
    """Raise one InputError with a line per problem, if there is any."""
    lines = list(problems)
    if len(lines) > _MOST_PROBLEMS:
        lines = [*lines[:_MOST_PROBLEMS], f"… and {len(lines) - _MOST_PROBLEMS} more"]
    if lines:
        raise InputError("\n".join(lines))
