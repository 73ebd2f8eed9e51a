"""The tab *Browse*: filters, one sample at a time, and marks, by mouse or by keyboard (`keyboard.js`)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

from dmp_core.app.browsing import NO_OVERLAY, Shelf, Walk, scores_table, shown, status
from dmp_core.app.events import guarded
from dmp_core.app.filters import EVERYTHING, Filter, number_or_none
from dmp_core.app.samples import open_collection

_ALL = ("all", "")
_HELP = (
    "**→** or **j** next · **←** or **k** previous · **x** mark as bad, or take the mark back. "
    "Marks are saved at once; they are a gate of the next run with `--set quality.rejects_file=…`"
)
_IN_ORDER: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "browse", "show_progress": "hidden"}
"""One queue, first in, first out: a mark after a step is of the sample that the step leads to."""
_EACH = _IN_ORDER | {"trigger_mode": "multiple"}
_LAST = _IN_ORDER | {"trigger_mode": "always_last"}
_NOTHING = "Open with `dmp app FOLDER` (a dataset, a split or predictions) or `dmp app --workspace WORKSPACE`."


def browse_tab(gr: Any, page: Any, collections: Mapping[str, str], images: Path | None) -> None:
    """Adds the tab's components and handlers to the page that is being built."""
    if not collections:
        gr.Markdown(_NOTHING)
        return
    do = _Handlers(gr, collections, images)
    names = list(collections)
    first = do.shelf(names[0])
    source = gr.Dropdown(names, value=names[0], label="Dataset", visible=len(names) > 1)
    fields = _filters(gr, first)
    notice = gr.Markdown(first.collection.notice, visible=bool(first.collection.notice))
    with gr.Row():
        previous = gr.Button("← Previous", elem_id="browse-previous")
        mark = gr.Button("Mark as bad (x)", variant="stop", elem_id="browse-mark")
        following = gr.Button("Next →", elem_id="browse-next")
        number = gr.Number(1, precision=0, minimum=1, label="Number", min_width=80)
        above = gr.Dropdown(_overlays(first), value=NO_OVERLAY, label="Overlay")
        opacity = gr.Slider(0, 1, 0.5, step=0.05, label="Opacity")
    gr.Markdown(_HELP)
    walk = gr.State(Walk())
    about = gr.HTML(elem_id="browse-status")
    figure = gr.HTML(elem_id="browse-figures")
    with gr.Accordion("Scores", open=False):
        table = gr.Dataframe(headers=["score", "value"], interactive=False, show_label=False)
    view = [walk, number, about, figure, table]
    seen = [source, walk, above, opacity, *fields]

    page.load(guarded(gr, do.refilter), seen, view, **_IN_ORDER)  # opened, or again: marks may have changed
    previous.click(guarded(gr, partial(do.move, -1)), seen, view, **_EACH)
    following.click(guarded(gr, partial(do.move, 1)), seen, view, **_EACH)
    mark.click(guarded(gr, do.toggle), seen, about, **_EACH)
    number.submit(guarded(gr, do.jump), [number, *seen], view, **_IN_ORDER)
    source.input(guarded(gr, do.reopen), source, [*view, above, notice, *fields], **_IN_ORDER)
    for component in (above, opacity):
        component.input(guarded(gr, partial(do.move, 0)), seen, view, **_LAST)
    for component in fields:
        # A textbox has no `input` event for text that is pasted.
        changed = component.change if isinstance(component, gr.Textbox) else component.input
        changed(guarded(gr, do.refilter), seen, view, **_LAST)


class _Handlers:
    """What the page does; values: those of the filters, in the order of `_filters`."""

    def __init__(self, gr: Any, collections: Mapping[str, str], images: Path | None) -> None:
        self.gr = gr
        self.shelf = cache(lambda name: Shelf(open_collection(collections[name], images)))

    def _view(self, name: str, now: Walk, laid: str, share: float, score: str) -> tuple[Any, ...]:
        of = self.shelf(name)
        scores = scores_table(of.entries[now.key] if now.key is not None else None)
        return now, now.position + 1, status(of, now, score), shown(of, now, laid, share), scores

    def move(self, by: int, name: str, now: Walk, laid: str, share: float, *values: Any) -> Any:
        return self._view(name, now.moved(by), laid, share, _filter(values).score)

    def jump(self, to: float | None, name: str, now: Walk, laid: str, share: float, *values: Any) -> Any:
        return self._view(name, now.at(int(to or 1) - 1), laid, share, _filter(values).score)

    def toggle(self, name: str, now: Walk, laid: str, share: float, *values: Any) -> str:
        of = self.shelf(name)
        if now.key is not None:
            of.marks.toggle(now.key)
        return status(of, now, _filter(values).score)

    def refilter(self, name: str, now: Walk, laid: str, share: float, *values: Any) -> Any:
        by = _filter(values)
        return self._view(name, self.shelf(name).chosen(by), laid, share, by.score)

    def reopen(self, name: str) -> Any:
        of = self.shelf(name)
        return (
            *self._view(name, of.chosen(Filter()), NO_OVERLAY, 0.5, ""),
            self.gr.Dropdown(choices=_overlays(of), value=NO_OVERLAY),
            self.gr.Markdown(of.collection.notice, visible=bool(of.collection.notice)),
            *_updates(self.gr, of),
        )


def _filters(gr: Any, of: Shelf) -> list[Any]:
    """One component per field of `Filter`, in its order."""
    offered = of.choices
    with gr.Row():
        fields = [
            gr.Dropdown([_ALL, *offered.splits], value="", label="Split", min_width=100),
            gr.Dropdown([_ALL, *offered.keywords], value="", label="Keyword", min_width=100),
            gr.Textbox("", label="Word of the prompt", elem_id="browse-word"),
            gr.Dropdown(offered.gates, value=EVERYTHING, label="Gate", elem_id="browse-gate"),
        ]
    with gr.Row():
        fields += [
            gr.Dropdown([("none", ""), *offered.scores], value="", label="Order by score", elem_id="browse-score"),
            gr.Textbox("", label="At least", min_width=80),  # a number field would send 0 for nothing
            gr.Textbox("", label="At most", min_width=80),
            gr.Checkbox(label="Highest first", elem_id="browse-highest"),
            gr.Checkbox(label="Only marked"),
        ]
    return fields


def _updates(gr: Any, of: Shelf) -> list[Any]:
    """The filters of another collection, all unset."""
    offered = of.choices
    return [
        gr.Dropdown(choices=[_ALL, *offered.splits], value=""),
        gr.Dropdown(choices=[_ALL, *offered.keywords], value=""),
        "",
        gr.Dropdown(choices=offered.gates, value=EVERYTHING),
        gr.Dropdown(choices=[("none", ""), *offered.scores], value=""),
        "",
        "",
        False,
        False,
    ]


def _filter(values: Any) -> Filter:
    split, keyword, word, gate, score, low, high, *flags = values
    return Filter(split, keyword, word, gate, score, number_or_none(low), number_or_none(high), *flags)


def _overlays(of: Shelf) -> list[str]:
    """The maps that the first sample with an image has."""
    with_place = (entry for entry in of.collection.entries if entry.place is not None)
    first = next(with_place, None)
    return [NO_OVERLAY, *(of.collection.show(first).maps if first is not None else ())]
