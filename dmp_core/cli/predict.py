"""`dmp predict`: finished adapters on your own images."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dmp_core.cli.console import ConfigFile, Json, Overrides, Preset, ProgressDisplay, out_folder, stderr, stdout

if TYPE_CHECKING:
    from dmp_core.requests.predict_files import Result

_NAME = "predict"


Adapters = Annotated[
    list[str] | None,
    typer.Option("--adapter", help="Adapter folder, or shipped:NAME; repeatable. By default the preset's, or shipped."),
]
Modalities = Annotated[
    list[str] | None,
    typer.Option(
        "--modality", "-m", help="What to predict; repeatable. By default all of the preset, or what --adapter does."
    ),
]
Resolution = Annotated[
    int | None,
    typer.Option(min=1, max=16384, help="Shorter side at which the networks work, pixels; the adapter's by default."),
]
Tile = Annotated[
    int | None, typer.Option(min=1, max=16384, help="Predict in tiles of this size, blended; for large images.")
]
Overlap = Annotated[
    int | None, typer.Option(min=0, max=16384, help="Pixels that neighbouring tiles share; a fourth by default.")
]
Batch = Annotated[int, typer.Option(min=1, max=1024, help="Images at once; above 1, results may change by rounding.")]


def predict(
    images: Annotated[list[str], typer.Argument(help="Image files, folders, or patterns such as 'photos/*.jpg'.")],
    adapter: Adapters = None,
    modality: Modalities = None,
    out: Annotated[Path, typer.Option(help="Folder for the predictions.", callback=out_folder)] = Path("predictions"),
    preset: Preset = "mini",
    config: ConfigFile = None,
    overrides: Overrides = None,
    processing_res: Resolution = None,
    tile: Tile = None,
    overlap: Overlap = None,
    uncertainty: Annotated[
        bool, typer.Option("--uncertainty", help="Also write how far the mirrored image's prediction is apart.")
    ] = False,
    batch_size: Batch = 1,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Make results again that are already there.")] = False,
    as_json: Json = False,
) -> None:
    """Predict properties of images: per image and modality, a label file in the dataset's encoding and a view of it.

    Results that are there are skipped. The settings in an adapter's card are used, unless --config or --set overrides
    them.
    """
    from dmp_core.requests.predict_files import predict_files
    from dmp_core.requests.predictor import Manner, Predictor, find_targets

    targets = find_targets(preset, config, overrides, modality or (), adapter or ())
    predictor = Predictor(targets, Manner(processing_res, tile, overlap, uncertainty))
    start, pace = time.monotonic(), _Pace()
    results: list[Result] = []
    with ProgressDisplay(stderr) as display:
        display.started(_NAME)

        def advanced(done: int, total: int, message: str = "") -> None:
            display.advanced(_NAME, done, total, pace(total - done))

        for result in predict_files(
            images, predictor, out, batch_size=batch_size, overwrite=overwrite, progress=advanced
        ):
            results.append(result)
            _print(result, as_json)
    _summarise(results, out, time.monotonic() - start, as_json)


class _Pace:
    """Results per second since the first one, and the time of day at which the last will be there."""

    def __init__(self) -> None:
        self.made, self.first = 0, 0.0

    def __call__(self, left: int) -> str:
        now = time.monotonic()
        if self.made == 0:
            self.first = now
        self.made += 1
        if now <= self.first:
            return ""
        rate = (self.made - 1) / (now - self.first)
        end = time.strftime("%H:%M:%S", time.localtime(time.time() + left / rate))
        return f"{rate:.1f}/s, ends {end}"


def _print(result: Result, as_json: bool) -> None:
    if as_json:
        files = {role: str(file) for role, file in result.files.items()}
        line = {"image": str(result.image), "modality": result.modality, "files": files, "made": result.made}
        typer.echo(json.dumps(line))
    elif result.made:
        stdout.print(str(result.files["view"]), soft_wrap=True)


def _summarise(results: list[Result], out: Path, seconds: float, as_json: bool) -> None:
    made = sum(result.made for result in results)
    there = len(results) - made
    if as_json:
        summary = {"made": made, "already_there": there, "seconds": round(seconds, 2), "out": str(out)}
        typer.echo(json.dumps({"summary": summary}))
        return
    note = f"; {there} were there already and are kept (--overwrite makes them again)" if there else ""
    word = "prediction" if made == 1 else "predictions"
    stderr.print(f"{made} {word} in {out}{note}", soft_wrap=True)
