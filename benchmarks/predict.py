"""`dmp predict` of all modalities in one call, against one call per modality by an earlier commit.

    git worktree add ../before c75b607
    python -m benchmarks.predict ../before [IMAGES] [WIDTH] [HEIGHT]

That commit is the last one whose `dmp predict` took one modality. All calls are whole processes, on images that this
makes; their files are compared array by array.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from dmp_core.config import load_config
from dmp_core.modalities import find_modality

ROOT = Path(__file__).resolve().parent.parent


def make_photos(folder: Path, count: int, size: tuple[int, int]) -> None:
    """Smooth colours with grain, as JPEG; size: (width, height)."""
    folder.mkdir()
    for number in range(count):
        random = np.random.default_rng(number)
        coarse = Image.fromarray(random.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize(size, Image.Resampling.BICUBIC)).astype(np.float32)
        grained = smooth + random.normal(0, 6, smooth.shape)
        Image.fromarray(grained.clip(0, 255).astype(np.uint8)).save(folder / f"{number:03d}.jpg", quality=92)


def timed(checkout: Path, arguments: list[str]) -> tuple[float, float]:
    """(seconds, processor seconds) of `dmp predict` from a checkout, as a process of its own."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    command = [sys.executable, "-m", "dmp_core.cli", "predict", *arguments]
    subprocess.run(command, check=True, cwd=checkout, env=os.environ | {"PYTHONPATH": str(checkout)},
                   stdout=subprocess.DEVNULL)  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.monotonic() - start, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def differing(first: Path, second: Path) -> list[str]:
    """Names of the label files whose arrays are not bit for bit equal."""
    found = []
    for name in load_config("mini").modalities:
        modality = find_modality(name)
        word, _, suffix = modality.member.partition(".")
        for file in first.glob(f"*.{word}.pred.{suffix}"):
            one, other = (modality.decode(place.read_bytes()) for place in (file, second / file.name))
            found += [] if np.array_equal(one, other) else [file.name]
    return found


def main(before: Path, count: int = 100, width: int = 1024, height: int = 768) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        make_photos(root / "photos", count, (width, height))
        files = [str(file) for file in sorted((root / "photos").iterdir())]
        names = load_config("mini").modalities
        old = np.zeros(2)
        for name in names:
            options = ["--modality", name, "--adapter", f"shipped:{name}", "--out", str(root / "old")]
            old += timed(before.resolve(), [*files, *options])
        new = np.array(timed(ROOT, [*files, "--out", str(root / "new")]))
        wrong = differing(root / "old", root / "new")
    return {
        "images": count, "size": [width, height], "modalities": names, "cores": len(os.sched_getaffinity(0)),
        "threads": os.environ.get("OMP_NUM_THREADS", "torch's own number"),
        "seconds": {"one call per modality": round(old[0], 1), "one call": round(new[0], 1)},
        "processor_seconds": {"one call per modality": round(old[1], 1), "one call": round(new[1], 1)},
        "times_faster": round(old[0] / new[0], 2), "differing_arrays": wrong,
    }  # fmt: skip


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]), *map(int, sys.argv[2:])), indent=1) + "\n")
