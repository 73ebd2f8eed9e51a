"""The GPU's benchmark, at tiny size on the CPU: every row is measured, and its operations are those of its network."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from typer import BadParameter

from benchmarks import gpu
from benchmarks.flops import tera

WHERE = gpu.Machine("cpu", torch.float32, "tiny")


def test_every_row_is_measured_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gpu.main("tiny", "cpu", repeats=1, limit=600, compiled=False, out=tmp_path / "gpu.json", write=False)
    found = json.loads((tmp_path / "gpu.json").read_text())
    rows = {row["name"]: row for row in found["rows"]}
    assert [row["failed"] for row in rows.values()] == [None] * len(rows)
    for name in ("training step, plain", "training step, channels-last", "prediction, steps: 1", "prediction, steps: 5",
                 "images, steps: 50, guided", "images, steps: 1, not guided", "labels, eva02, float32"):  # fmt: skip
        row = rows[name]
        assert row["per_second"] == row["batch"] / row["seconds"]
        assert 0 < row["utilisation"] == pytest.approx(row["per_second"] * row["tflop"] / found["matmul_tflops"])
    assert rows["prediction, steps: 1, small decoder"]["tflop"] < rows["prediction, steps: 5"]["tflop"]
    printed = capsys.readouterr().out
    assert found["device"] in printed
    assert printed.count("| labels, ") == sum(name.startswith("labels") for name in rows)


def test_operations_of_a_prediction_are_those_of_its_parts() -> None:
    base = gpu.pipeline(WHERE)
    image, latents, text = torch.rand(1, 3, 64, 64), torch.rand(1, 4, 8, 8), torch.rand(1, 77, 16)
    with torch.no_grad():
        encode, decode = tera(lambda: base.vae.encode(image)), tera(lambda: base.vae.decode(latents))
        unet, words = (
            tera(lambda: base.unet(latents, 1, encoder_hidden_states=text)), tera(lambda: base.encode_prompt("")),
        )  # fmt: skip
    for steps in (1, 5):
        counted = gpu.prediction(WHERE, 2, steps, small=False, compiled=False)[1]()
        assert counted == pytest.approx(encode + decode + steps * unet + words / 2, rel=1e-3)
    guided, plain = (gpu.synthesis(WHERE, 2, 3, guidance)[1]() for guidance in (7.5, 0.0))
    assert guided - plain == pytest.approx(3 * unet + words, rel=1e-3)


def test_a_row_that_fails_or_needs_more_memory_does_not_end_the_run() -> None:
    def build(batch: int, limit: int):
        if batch > limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 TiB.")
        return lambda: torch.rand(64, 64) @ torch.rand(64, 64), lambda: 2 * 64**3 / 1e12

    row = gpu.measured(gpu.Work("halved", 8, partial(build, limit=2)), WHERE, 1)
    assert (row.batch, row.failed) == (2, None)
    row = gpu.measured(gpu.Work("none", 8, partial(build, limit=0)), WHERE, 1)
    assert row.failed == "CUDA out of memory. Tried to allocate 1 TiB."
    text = gpu.table(gpu.report(WHERE, [row, gpu.Row("late", failed="no time left")], 1.0))
    assert "| none | 1 | CUDA out of memory" in text
    assert "| late |  | no time left |" in text


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_how_to_try_the_script() -> None:
    with pytest.raises(BadParameter, match="--size tiny --device cpu"):
        gpu.machine("cuda", "sd")
