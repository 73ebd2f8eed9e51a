"""One image → its maps, as the page needs them; the base model is loaded once, at the first image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmp_core.app.relief import glb, surface
from dmp_core.app.relight import relit
from dmp_core.errors import InputError
from dmp_core.modalities.albedo import MODALITY as ALBEDO
from dmp_core.modalities.colour import VectorMap
from dmp_core.modalities.depth import Depth
from dmp_core.modalities.files import npy_bytes
from dmp_core.requests.predictor import Predictor, Target, find_targets, read_image

Array = NDArray[Any]


@dataclass(frozen=True)
class Maps:
    """What was predicted of one image."""

    image: NDArray[np.uint8]
    labels: Mapping[str, Array]
    """Modality → label, in the image's size."""
    views: Mapping[str, NDArray[np.uint8]]
    """The same, rendered."""
    targets: Mapping[str, Target]

    def relief(self, fov: float) -> bytes | None:
        """The first depth map as .glb; None if there is no depth, or no surface. fov: horizontal, degrees."""
        depth = next((self.labels[name] for name, of in self.targets.items() if isinstance(of.modality, Depth)), None)
        made = None if depth is None else surface(depth, self.image, fov)
        return None if made is None or not len(made.triangles) else glb(made)

    def relit(self, azimuth: float, elevation: float) -> NDArray[np.uint8] | None:
        """The image under another light; None unless albedo and normals were predicted."""
        normals = next(
            (self.labels[name] for name, of in self.targets.items() if isinstance(of.modality, VectorMap)), None
        )
        albedo = self.labels.get(ALBEDO.name)
        return None if normals is None or albedo is None else relit(albedo, normals, azimuth, elevation)

    def write(self, folder: Path, stem: str) -> list[Path]:
        """STEM.MODALITY.npy: the arrays as `Predictor` returns them."""
        files = [folder / f"{stem}.{name}.npy" for name in self.labels]
        for file, label in zip(files, self.labels.values(), strict=True):
            file.write_bytes(npy_bytes(label))
        return files


class Studio:
    """Predicts with the configuration's adapters, or with one that is named."""

    def __init__(self, preset: str = "mini", file: Path | None = None, overrides: Sequence[str] = ()) -> None:
        """Raises InputError as `find_targets`; loads nothing."""
        self.preset, self.file, self.overrides = preset, file, list(overrides)
        self.predictor = Predictor(find_targets(preset, file, self.overrides))

    @property
    def modalities(self) -> list[str]:
        return [target.modality.name for target in self.predictor.targets]

    @property
    def steps(self) -> int:
        return self.predictor.targets[0].config.sampling.num_steps

    def predict(
        self, image: str | Path, modalities: Sequence[str], steps: int | None = None, adapter: str = ""
    ) -> Maps:
        """modalities: of the configuration; without effect if an adapter is named, which predicts what its card states.

        steps: None: the configuration's. Raises InputError that names the image, the modality or the adapter.
        """
        targets = self._targets(modalities, steps, adapter.strip())
        rgb = read_image(image, Path(image).name)
        (row,) = self.predictor.predict(rgb[None], [Path(image).name], targets=targets)
        of = {one.target.modality.name: one for one in row}
        return Maps(
            image=rgb,
            labels={name: one.label for name, one in of.items()},
            views={name: one.target.modality.colourise(one.label) for name, one in of.items()},
            targets={name: one.target for name, one in of.items()},
        )

    def _targets(self, modalities: Sequence[str], steps: int | None, adapter: str) -> list[Target]:
        if not modalities and not adapter:
            raise InputError("choose at least one modality")
        more = [] if steps is None else [f"sampling.num_steps={steps}"]
        named = ((), (adapter,)) if adapter else (modalities, ())
        return find_targets(self.preset, self.file, [*self.overrides, *more], *named)
