"""The tab *Predict*: an image, its maps, a relief, another light, the raw arrays."""

from __future__ import annotations

import os
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from dmp_core.app.events import guarded
from dmp_core.app.figures import figures
from dmp_core.app.predicting import Maps, Studio
from dmp_core.errors import InputError

_BUTTONS = ["download", "fullscreen"]
"""Not the default's `share`, which uploads the image to somebody else's server."""
_FOV = 60
_LIGHT = (45, 45)


def predict_tab(gr: Any, studio: Studio) -> None:
    """Adds the tab's components and handlers to the page that is being built."""
    with gr.Row():
        with gr.Column(scale=1):
            asked = _asked(gr, studio)
            start = gr.Button("Predict", variant="primary", elem_id="predict-start")
        with gr.Column(scale=2):
            maps = gr.HTML(label="Maps", elem_id="predict-maps")
            compared = gr.Dropdown([], label="Compare with the image")
            slider = gr.ImageSlider(label="Image and map", format="png", interactive=False, elem_id="predict-slider")
    with gr.Row():
        with gr.Column():
            relief = gr.Model3D(label="Relief", display_mode="solid", height=300, elem_id="predict-relief")
            fov = gr.Slider(10, 120, _FOV, step=1, label="Horizontal field of view, degrees")
        with gr.Column():
            relit = gr.HTML(label="Another light", elem_id="predict-relit")
            azimuth = gr.Slider(
                -180,
                180,
                _LIGHT[0],
                step=1,
                label="Light: direction, degrees; 0 right, 90 up",
                elem_id="predict-azimuth",
            )
            elevation = gr.Slider(0, 90, _LIGHT[1], step=1, label="Light: height above the image, degrees")
    raw = gr.File(label="Raw arrays (.npy)", interactive=False, elem_id="predict-raw")
    state = gr.State(None)

    start.click(
        guarded(gr, partial(_predict, gr, studio)),
        [*asked, fov, azimuth, elevation],
        [state, maps, compared, slider, relief, relit, raw],
        concurrency_limit=1,
    )
    compared.input(lambda made, name: made and (made.image, made.views[name]), [state, compared], slider)
    fov.release(lambda made, angle: made and _relief(made, angle), [state, fov], relief)
    for angle in (azimuth, elevation):
        angle.change(
            lambda made, *light: made and _relit(made, *light),
            [state, azimuth, elevation],
            relit,
            trigger_mode="always_last",
            show_progress="hidden",
        )


def _asked(gr: Any, studio: Studio) -> list[Any]:
    """Image, modalities, steps, adapter."""
    return [
        gr.Image(
            type="filepath",
            image_mode=None,
            sources=["upload", "clipboard"],
            label="Image",
            elem_id="predict-image",
            buttons=_BUTTONS,
        ),
        gr.CheckboxGroup(studio.modalities, value=studio.modalities, label="Modalities"),
        gr.Slider(1, 50, studio.steps, step=1, label="Steps"),
        gr.Textbox("", label="Adapter", info="A folder, or shipped:NAME; empty: the preset's."),
    ]


def _predict(
    gr: Any,
    studio: Studio,
    path: str | None,
    modalities: list[str],
    steps: float,
    adapter: str,
    fov: float,
    *light: float,
) -> Any:
    if path is None:
        raise InputError("Drop an image first.")
    made, name = studio.predict(path, modalities, int(steps), adapter), Path(path).name
    first = next(iter(made.views))
    return (
        made,
        figures({"image": made.image, **made.views}, name),
        gr.Dropdown(choices=list(made.views), value=first),
        (made.image, made.views[first]),
        _relief(made, fov),
        _relit(made, *light),
        [str(file) for file in made.write(_folder(), Path(path).stem)],
    )


def _relit(made: Maps, *light: float) -> str:
    image = made.relit(*light)
    return "" if image is None else figures({"another light": image}, "the image")


def _relief(made: Maps, fov: float) -> str | None:
    data = made.relief(fov)
    if data is None:
        return None
    file = _folder() / "relief.glb"
    file.write_bytes(data)
    return str(file)


def _folder() -> Path:
    """A new folder in the page's own cache, which `served` removes."""
    return Path(tempfile.mkdtemp(dir=os.environ.get("GRADIO_TEMP_DIR")))
