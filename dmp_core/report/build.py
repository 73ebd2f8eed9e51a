"""Builds the report: one folder with `index.html`, `metrics.json` and images, no server, no network."""

from __future__ import annotations

import base64
import json
import math
import mimetypes
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np

from dmp_core.modalities import Modality, with_built_in
from dmp_core.report.data import QualityRecord, ReportData, SplitStatistics, TrainingRecord
from dmp_core.report.gallery import GalleryWriter, ImageFile, Shown, SplitGallery
from dmp_core.report.plots import distribution, loss_curve
from dmp_core.report.statistics import entropy_bits
from dmp_core.report.tables import (
    DASH,
    Table,
    format_number,
    headlines,
    score_tables,
    scored_splits,
    split_name,
    wins,
)
from dmp_core.report.values import quantities
from dmp_core.scoring.registry import CEILING, CONSTANT, DMP, describe
from dmp_core.text import plain as plain_text

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "templates"
SINGLE = "single.html"
MAILED = 8
"""Most images per split in the single file, so that a mail takes it."""


def build_report(data: ReportData, out_dir: str | Path) -> Path:
    """Write the report into `out_dir` (created if needed) and return the path of its `index.html`.

    Equal data gives equal bytes. Images are in `images/`, the numbers behind the maps in `values/`, scores in
    `metrics.json`; `single.html` is the page as one file, with at most `MAILED` images per split.
    """
    out = Path(out_dir)
    out.mkdir(parents=True, exist_ok=True)
    writer = GalleryWriter(data, out)
    galleries = [writer.split(split) for split, samples in data.samples.items() if samples]
    (out / "metrics.json").write_text(_json(metrics_record(data)))
    page, plots = out / "index.html", draw_plots(data)
    page.write_text(render_page(data, galleries, plots), encoding="utf-8")
    first = [replace(gallery, shown=gallery.shown[:MAILED]) for gallery in galleries]
    (out / SINGLE).write_text(render_page(data, first, plots, embed=out), encoding="utf-8")
    return page


def _data_url(file: Path) -> str:
    kind = mimetypes.types_map.get(file.suffix, "text/plain")
    return f"data:{kind};base64,{base64.b64encode(file.read_bytes()).decode()}"


def metrics_record(data: ReportData) -> dict[str, Any]:
    """All numbers of the report as plain data: the content of `metrics.json`."""
    return {
        "title": data.title,
        "metrics": data.metrics,
        "registry": describe(with_built_in(data.modalities)),
        "training": {name: _training_record(record) for name, record in data.training.items()},
        "statistics": {split: _statistics_record(s) for split, s in data.statistics.items()},
        "quality": {"gates": data.quality.gates, "dropped": data.quality.dropped},
        "timing": [asdict(timing) for timing in data.timing],
        "provenance": asdict(data.provenance),
        "notes": list(data.notes),
    }


def _training_record(record: TrainingRecord) -> dict[str, Any]:
    final = None if record.curve is None or record.curve.empty else float(record.curve["loss"].iloc[-1])
    return {
        "source": record.source,
        "seconds": record.seconds,
        "images": record.images,
        "final_loss": final,
        "adapter": dict(record.adapter),
    }


def _statistics_record(statistics: SplitStatistics) -> dict[str, Any]:
    record = asdict(statistics)
    lengths = record.pop("prompt_characters")
    record["prompt_characters_mean"] = float(np.mean(lengths)) if lengths else None
    record["trait_entropy_bits"] = {trait: entropy_bits(words.values()) for trait, words in statistics.traits.items()}
    return record


def _json(record: Any) -> str:
    return json.dumps(plain(record), indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def plain(value: Any) -> Any:
    """Values in JSON's types: NumPy scalars become Python's, NaN and infinities become None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool | type(None)) else str(value)


# ----------------------------------------------------------------------------------------- page
@dataclass(frozen=True)
class SplitScores:
    """One split's part of the results section."""

    split: str
    title: str
    tables: Sequence[Table]
    plots: Sequence[tuple[str, str]]
    """Modality's title and inline SVG."""


@dataclass(frozen=True)
class Plots:
    """The parts of the page with inline SVGs, which take most of its time."""

    results: Sequence[SplitScores]
    curves: Sequence[tuple[str, TrainingRecord, str]]
    statistics: Sequence[StatisticsView]
    quality: Sequence[str]


def draw_plots(data: ReportData) -> Plots:
    """For `render_page`, once for both editions."""
    return Plots(
        results=[_split_scores(data, split) for split in scored_splits(data.metrics)],
        curves=_curves(data),
        statistics=[_statistics_view(split, s) for split, s in data.statistics.items()],
        quality=_quality_plots(data.quality),
    )


def render_page(data: ReportData, galleries: Sequence[SplitGallery], plots: Plots, embed: Path | None = None) -> str:
    """The page as text; the files that `galleries` refer to must be in the same folder.

    embed: a folder whose files become part of the page.
    """
    environment = page_environment()
    environment.filters.update(
        number=format_number,
        duration=duration,
        thousands=lambda n: f"{n:,}".replace(",", " "),
        address=(lambda path: _data_url(embed / path)) if embed else quote,
    )
    return environment.get_template("index.html").render(
        data=data,
        summary=data.summary or summary_sentence(data),
        cards=headlines(data.metrics, modalities=data.modalities),
        wins=[(split_name(s), *wins(data.metrics, s)) for s in scored_splits(data.metrics)],
        **vars(plots),
        galleries=galleries,
        hero=hero(galleries),
        total_seconds=sum(t.seconds or 0.0 for t in data.timing),
        live_seconds=sum(t.seconds or 0.0 for t in data.timing if t.cached is False),
        shows_cache=any(t.cached is not None for t in data.timing),
        split_name=split_name,
        references={"dmp": DMP, "ceiling": CEILING, "constant": CONSTANT},
        dash=DASH,
        quantities=quantities(data.modalities),
        single=None if embed else SINGLE,
        mailed=MAILED,
    )


def page_environment() -> Environment:
    """Templates of pages; every value is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        finalize=lambda value: plain_text(value, keep="\n\t") if type(value) is str else value,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def summary_sentence(data: ReportData) -> str:
    """Trained modalities and training set, in one or two sentences."""
    live = [name for name, record in data.training.items() if record.source == "trained in this run"]
    rest = [name for name in data.training if name not in live]
    parts = []
    if live:
        parts.append(f"{_listed(map(data.title_of, live))} trained in this run")
    if rest:
        parts.append(f"{_listed(map(data.title_of, rest))} from finished adapters")
    trained = f"{'; '.join(parts)}." if parts else ""
    train = data.statistics.get("train")
    images = (
        f" Training set: {train.images} images of “{', '.join(train.keywords)}”." if train and train.keywords else ""
    )
    sentence = (trained + images).strip()
    return sentence[:1].upper() + sentence[1:]


def _listed(titles: Iterable[str]) -> str:
    *most, last = (title.lower() for title in titles)
    return f"{', '.join(most)} and {last}" if most else last


def hero(galleries: Sequence[SplitGallery]) -> list[tuple[str, Shown, Sequence[tuple[str, ImageFile]]]]:
    """The first image of every split with all its predictions: (split title, sample, (modality, prediction))."""
    strips: list[tuple[str, Shown, Sequence[tuple[str, ImageFile]]]] = []
    for gallery in galleries:
        if gallery.shown:
            first = gallery.shown[0]
            predictions = [(p.modality.short, p.prediction) for p in first.panels if p.prediction]
            strips.append((gallery.title, first, predictions))
    return strips


def _split_scores(data: ReportData, split: str) -> SplitScores:
    plots = [(m.title, svg) for m in data.modalities if (svg := _distribution(data, split, m))]
    return SplitScores(split, split_name(split), score_tables(data.metrics, split, data.modalities), plots)


def _distribution(data: ReportData, split: str, modality: Modality) -> str:
    tables = {t.row: t for t in data.tables if t.split == split and t.modality.name == modality.name}
    if DMP not in tables:
        return ""
    metric = modality.image_metric
    means = {row: float(table.values[metric.name].mean()) for row, table in tables.items()}
    lines = {row: means[row] for row in (CONSTANT, CEILING, DMP) if row in means}
    label = f"{metric.label} ({metric.unit.strip()})" if metric.unit else metric.label
    return distribution(
        tables[DMP].values[metric.name].to_numpy(dtype=float), lines, label, f"dist-{split}-{modality.name}"
    )


def _curves(data: ReportData) -> list[tuple[str, TrainingRecord, str]]:
    """Modality's title, its record, and the loss curve as inline SVG (empty without a curve)."""
    shown = []
    for name, record in data.training.items():
        has_curve = record.curve is not None and len(record.curve) > 1
        svg = loss_curve(record.curve, f"loss-{name}") if has_curve else ""  # type: ignore[arg-type]
        shown.append((data.title_of(name), record, svg))
    return shown


def _quality_plots(quality: QualityRecord) -> list[str]:
    """Histograms of the scores as inline SVG, each with the bound that applies to it."""
    bounds = {gate.rpartition(".")[2].partition("_")[2]: bound for gate, bound in quality.gates.items()}
    return [
        distribution(
            values,
            {"bound": bounds[score]} if score in bounds else {},
            score.replace("_", " "),
            f"quality-{score}",
            whole=score.endswith("distance"),
        )
        for score, values in quality.scores.items()
    ]


# ----------------------------------------------------------------------------------- statistics
@dataclass(frozen=True)
class Bar:
    """One bar of a bar list: name, value as text, length 0 to 1."""

    name: str
    text: str
    length: float


@dataclass(frozen=True)
class StatisticsView:
    split: str
    title: str
    images: int
    facts: Sequence[tuple[str, str]]
    colour: str
    keywords: Sequence[Bar]
    families: Sequence[Bar]
    styles: Sequence[Bar]
    traits: Sequence[Bar]
    """Entropy of the words of each trait, as long as its share of the largest one."""
    classes: Sequence[Bar]
    lengths: str
    """Histogram of prompt lengths as inline SVG."""


def _statistics_view(split: str, s: SplitStatistics) -> StatisticsView:
    facts = [("Images", str(s.images)), ("Keywords", str(len(s.keywords)))]
    if s.depth_metres:
        near, middle, far = s.depth_metres
        facts.append(("Depth 5 / 50 / 95 %, m", f"{near:.1f} / {middle:.1f} / {far:.1f}"))
    if s.class_pixels:
        facts.append(("Classes seen", str(len(s.class_pixels))))
    if s.made_again:
        facts.append(("Made again / still miss", f"{s.made_again} / {s.still_miss}"))
    if s.failures:
        facts.append(("Dropped", str(s.failures)))
    colour = "rgb({})".format(" ".join(str(round(255 * c)) for c in s.mean_rgb)) if s.mean_rgb else ""
    return StatisticsView(
        split=split,
        title=split_name(split),
        images=s.images,
        facts=facts,
        colour=colour,
        keywords=_bars(s.keywords, 8),
        families=_bars(s.families, 10),
        styles=_bars(s.styles, 10),
        traits=_entropies(s.traits),
        classes=_bars(s.class_pixels, 12, percent=True),
        lengths=_lengths(split, s.prompt_characters) if s.prompt_characters else "",
    )


def _entropies(traits: Mapping[str, Mapping[str, int]]) -> list[Bar]:
    bits = {trait: entropy_bits(words.values()) for trait, words in traits.items() if words}
    most = max(bits.values(), default=0) or 1
    values = {name: "1 value" if len(words) == 1 else f"{len(words)} values" for name, words in traits.items()}
    return [Bar(name, f"{value:.2f} bits, {values[name]}", value / most) for name, value in bits.items()]


def _lengths(split: str, characters: Sequence[int]) -> str:
    return distribution(characters, {}, "characters", f"len-{split}", whole=True)


def _bars(counts: Mapping[str, float], limit: int, *, percent: bool = False) -> list[Bar]:
    """The largest entries as bars; the rest is summed in a last one."""
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    if not ranked:
        return []
    longest = ranked[0][1] or 1
    bars = [Bar(name, _amount(value, percent), value / longest) for name, value in ranked[:limit]]
    rest = ranked[limit:]
    if rest:
        total = sum(value for _, value in rest)
        bars.append(Bar(f"{len(rest)} more", _amount(total, percent), 0.0))
    return bars


def _amount(value: float, percent: bool) -> str:
    return f"{100 * value:.1f} %" if percent else f"{value:g}"


def duration(seconds: float | None) -> str:
    """A duration for readers: `0.4 s`, `12 s`, `3 min 20 s`, `2 h 05 min`."""
    if seconds is None or not math.isfinite(seconds):
        return DASH
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
