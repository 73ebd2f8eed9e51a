"""Prompts → images → labels → latents → fine-tuning → prediction → score, on the library's own functions, no stages.

    python examples/end_to_end.py OUT [IMAGES] [STEPS]

Renders bedrooms to learn from and kitchens to be scored on, and teaches the mini prior their albedo. The
defaults take about two minutes on two cores; `dmp run` is the same with resume, shards and a report.
"""

import sys
from pathlib import Path

import numpy as np

from dmp_core.diffusion.settings import SamplingConfig
from dmp_core.methods.dmp.finetune import finetune, make_card
from dmp_core.methods.dmp.predict import load_predictor, predict_batch
from dmp_core.methods.dmp.settings import TrainConfig
from dmp_core.modalities import find_modality
from dmp_core.prompts.grammar import GrammarGenerator
from dmp_core.render import Rendered, render_prompt
from dmp_core.scoring.protocol import aggregate, constant_like, constant_prediction, score
from dmp_core.scoring.registry import CONSTANT
from dmp_core.training.data import LatentPairs
from dmp_core.training.latents import encode_column, read_column
from dmp_core.weights.load import load_base
from dmp_core.weights.settings import BaseConfig

TARGET = find_modality("albedo")
BASE = BaseConfig(model="shipped:mini")
SIZE = 64


def render(keyword: str, count: int, seed: int) -> list[Rendered]:
    """Captions by the grammar, one scene per caption."""
    seeds = range(seed, seed + count)
    captions = GrammarGenerator().generate([keyword] * count, "", seeds)
    return [
        render_prompt(caption, keyword, own, resolution=SIZE, samples_per_pixel=4)
        for caption, own in zip(captions, seeds, strict=True)
    ]


def main(out: Path, images: int = 48, steps: int = 150) -> dict[str, float]:
    """Returns the mean squared error on the kitchens: of the predictions, and of the best constant colour."""
    rooms = render("bedroom", images, seed=0)
    base = load_base(BASE)
    keys = [f"train-{number:08d}" for number in range(images)]
    columns = {"image": [room.rgb for room in rooms], TARGET: [room.albedo / 255 for room in rooms]}
    latents = [read_column([encode_column(base.vae, name, keys, arrays)]) for name, arrays in columns.items()]

    settings = TrainConfig(steps=steps, batch_size=8, learning_rate=3e-3)
    pairs = LatentPairs(latents[0], latents[1], settings.batch_size, seed=0)
    card = make_card(TARGET, BASE.model, sampling={"source": "oracle", "num_steps": 5})
    result = finetune(settings, base, pairs, out / "work", out / "adapter", card=card)

    kitchens = render("kitchen", 16, seed=10_000)
    truth, names = np.stack([room.albedo / 255 for room in kitchens]), [f"test-{number:08d}" for number in range(16)]
    pipeline = load_predictor(BASE, result.folder, modality=TARGET)
    predicted = predict_batch(pipeline, np.stack([room.rgb for room in kitchens]), TARGET, SamplingConfig())

    constant = constant_like(TARGET, constant_prediction(TARGET, columns[TARGET]), truth)
    tables = [score(TARGET, predicted, truth, names), score(TARGET, constant, truth, names, row=CONSTANT)]
    rows = aggregate(tables)[TARGET.name][""]
    return {row: found["metrics"][TARGET.primary_metric.name]["mean"] for row, found in rows.items()}


if __name__ == "__main__":
    sys.stdout.write(f"{main(Path(sys.argv[1]), *map(int, sys.argv[2:]))}\n")
