"""The page and its server: two tabs, on this machine alone unless another address is given."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from dmp_core.app.browse_tab import browse_tab
from dmp_core.app.predict_tab import predict_tab
from dmp_core.app.predicting import Studio
from dmp_core.errors import InputError, MissingExtra
from dmp_core.processes import environment_variable

_HERE = Path(__file__).parent
_LARGEST = "100mb"


def load_gradio() -> ModuleType:
    """Gradio, without its reports about use; raises MissingExtra with the command that installs it."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        import gradio
    except ImportError as error:
        raise MissingExtra.of(error) or MissingExtra("gradio", "app") from None
    return gradio


def build(studio: Studio, collections: Mapping[str, str], images: Path | None = None) -> Any:
    """The page as Gradio's Blocks. collections: of `find_collections`; images: as in `open_collection`."""
    gr = load_gradio()
    with gr.Blocks(title="DMP Pipeline", analytics_enabled=False, fill_width=True) as page:
        with gr.Tab("Predict", id="predict"):
            predict_tab(gr, studio)
        with gr.Tab("Browse", id="browse"):
            browse_tab(gr, page, collections, images)
    return page


@contextmanager
def served(
    studio: Studio, collections: Mapping[str, str], *, host: str, port: int, images: Path | None = None
) -> Iterator[str]:
    """Serves the page within this context; yields its address. Raises InputError if the port is taken."""
    with _own_cache():  # before Gradio is imported, which reads the folder's name then
        gr, page = load_gradio(), build(studio, collections, images)
        try:
            _, address, _ = page.launch(
                server_name=host,
                server_port=port,
                share=False,
                quiet=True,
                prevent_thread_lock=True,
                ssr_mode=False,
                mcp_server=False,
                pwa=False,
                enable_monitoring=False,
                run_history=False,
                footer_links=[],
                max_file_size=_LARGEST,
                # Named fonts of the system: the default theme fetches its own from elsewhere.
                theme=gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
                css=(_HERE / "page.css").read_text(),
                head=f"<script>{(_HERE / 'keyboard.js').read_text()}</script>",
            )
        except OSError as error:
            raise InputError(f"--port {port}: {error.strerror or 'in use'} on {host}; give another --port") from None
        try:
            yield str(address)
        finally:
            page.close(verbose=False)


@contextmanager
def _own_cache() -> Iterator[None]:
    """A private folder for uploads and results, removed at the end: the default is shared and stays."""
    with (
        tempfile.TemporaryDirectory(prefix="dmp-app-", ignore_cleanup_errors=True) as folder,
        environment_variable("GRADIO_TEMP_DIR", folder),
    ):
        yield
