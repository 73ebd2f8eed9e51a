"""Small inline SVG plots with the page's colours, light or dark."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dmp_core.modalities.pictures import load_matplotlib

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_THEME = {
    "#010101": "var(--ink-2)",
    "#020202": "var(--line)",
    "#030303": "var(--accent)",
    "#040404": "var(--constant)",
    "#050505": "var(--ceiling)",
}
"""Placeholder colours that matplotlib writes and the page's own variables replace."""
INK, LINE, ACCENT, CONSTANT_COLOUR, CEILING_COLOUR = _THEME

_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "dmp",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": LINE,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}


def loss_curve(curve: pd.DataFrame, name: str) -> str:
    """Training loss over steps, raw and smoothed, as inline SVG. curve: columns step, loss (lr)."""
    steps = curve["step"].to_numpy(dtype=np.float64)
    loss = curve["loss"].to_numpy(dtype=np.float64)

    def draw(axes: Axes) -> None:
        axes.plot(steps, loss, color=ACCENT, alpha=0.3, linewidth=1)
        axes.plot(steps, smooth(loss), color=ACCENT, linewidth=1.8)
        if np.nanmin(loss, initial=np.inf) > 0 and np.nanmax(loss) / np.nanmin(loss) > 8:
            axes.set_yscale("log")
        axes.set_xlabel("step")
        axes.set_ylabel("loss")
        axes.grid(axis="y")

    title = f"Training loss over {int(steps[-1]) if len(steps) else 0} steps"
    return _svg(draw, name, title, {"step": _numbers(steps), "loss": _numbers(loss)})


def smooth(values: NDArray[np.float64], share: float = 0.08) -> NDArray[np.float64]:
    """Running mean over a window of `share` of the curve, shrinking at both ends. (N,) -> (N,)."""
    half = max(1, round(len(values) * share / 2))
    series = pd.Series(values).rolling(2 * half + 1, center=True, min_periods=1).mean()
    return series.to_numpy(dtype=np.float64)


def distribution(
    values: Sequence[float] | NDArray[Any], lines: Mapping[str, float], label: str, name: str, *, whole: bool = False
) -> str:
    """Histogram of per-image values with vertical lines for the means of `lines` (row name -> value).

    whole: the values are counts, so bins and ticks are at whole numbers.
    """
    from matplotlib.ticker import MaxNLocator

    shown = np.asarray(values, dtype=np.float64)
    shown = shown[np.isfinite(shown)]
    marks = {row: value for row, value in lines.items() if np.isfinite(value)}

    def draw(axes: Axes) -> None:
        low, high = _span([*shown.tolist(), *marks.values()])
        bins = np.linspace(low, high, 25)
        if whole:
            bins = np.arange(np.floor(low), np.ceil(high) + 1, max(1, (high - low) // 24)) - 0.5
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.hist(shown, bins=bins.tolist(), color=ACCENT, alpha=0.55, edgecolor="none")
        for row, value in marks.items():
            axes.axvline(value, color=line_colour(row), linewidth=1.8, linestyle="-" if row == "DMP" else (0, (4, 2)))
        axes.set_xlabel(label, parse_math=False)
        axes.set_ylabel("images")
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.set_xlim(bins[0], bins[-1])

    data = {
        "quantity": label,
        "values": _numbers(shown),
        "lines": dict(zip(marks, _numbers(marks.values()), strict=True)),
    }
    return _svg(draw, name, f"Distribution of {label} over {len(shown)} images", data)


def _numbers(values: Iterable[float]) -> list[float | None]:
    """As JSON has them: six digits, None for NaN and infinities."""
    return [float(f"{value:.6g}") if np.isfinite(value) else None for value in values]


def line_colour(row: str) -> str:
    """The placeholder colour of a row's line."""
    return {"constant": CONSTANT_COLOUR, "VAE ceiling": CEILING_COLOUR}.get(row, ACCENT)


def _span(values: Sequence[float]) -> tuple[float, float]:
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    margin = 0.04 * (high - low) or 0.5
    return low - margin, high + margin


def _svg(draw: Any, name: str, title: str, data: Mapping[str, Any]) -> str:
    matplotlib = load_matplotlib()
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(2.7, 1.75))
        draw(figure.add_subplot())
        figure.tight_layout(pad=0.4)
        return inline_svg(figure, name, title, data)


def inline_svg(figure: Figure, name: str, title: str, data: Mapping[str, Any]) -> str:
    """A figure as an <svg> element: no prologue, no links, unique ids, the page's colours.

    name: prefix of the ids, unique on the page. title: text for screen readers. data: what is drawn; it becomes the
    element's <metadata>, as JSON.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\s(xmlns(:\w+)?|version)="[^"]*"', "", text)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'((?:xlink:)?href="#|url\(#)', rf"\g<1>{name}-", text).replace("xlink:href", "href")
    text = re.sub(r" font-family: [^;\"]*;?", "", text)
    text = re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL)
    for stand_in, variable in _THEME.items():
        text = text.replace(stand_in, variable)
    size = re.search(r'width="([\d.]+)pt" height="([\d.]+)pt"', text)
    assert size is not None, "matplotlib writes the size in points"
    text = text.replace(size.group(0), f'class="plot" role="img" aria-label="{escape(title)}"', 1)
    text = re.sub(r"\s+", " ", text).replace("> <", "><").strip()
    held = escape(json.dumps(data, allow_nan=False), quote=False)
    return text.replace("</svg>", f"<metadata>{held}</metadata></svg>")
