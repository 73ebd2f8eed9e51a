"""Images that miss what was asked are made again from their next seed: `images.patience`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from types import TracebackType
from typing import TYPE_CHECKING, Any

from dmp_core.dataset.reading import column_array
from dmp_core.dataset.truth import unpack_truth
from dmp_core.memory import Batches
from dmp_core.render import CLASS_IDS, read_prompt
from dmp_core.runtime import RuntimeConfig
from dmp_core.store import Sample, Skipped, canonical_json
from dmp_core.store.attempts import next_seed
from dmp_core.synthesis.settings import ClipBound

if TYPE_CHECKING:
    from dmp_core.quality.clip import ClipScorer
    from dmp_core.synthesis.sources import ImageSource, Row

_AT_ONCE = 256
"""Samples that are made and judged together: the most that are in memory."""
_CLIP_BATCH = 32


@dataclass(frozen=True)
class Verdict:
    """How well an image shows what was asked."""

    lack: float
    """Less is better."""
    met: bool
    seen: dict[str, Any]
    """For the sample's json."""


Judge = Callable[[Sequence[Sample]], Iterable[Verdict]]


class PatientImages:
    """The images of another source, each from the first of its seeds that meets what was asked; see `ImageSource`.

    If none of `patience` + 1 attempts does, the one that lacks least is taken, of equal ones the first. The result
    depends on the row alone, since each attempt does.
    """

    def __init__(self, source: ImageSource, patience: int, judge: Judge) -> None:
        self.source, self.patience, self.judge = source, patience, judge

    @property
    def batches(self) -> Batches | None:
        return self.source.batches

    def __enter__(self) -> PatientImages:
        self.source.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.source.__exit__(kind, error, trace)

    def samples(self, rows: list[Row]) -> Iterable[Sample | Skipped]:
        for start in range(0, len(rows), _AT_ONCE):
            yield from self._chosen(rows[start : start + _AT_ONCE])

    def _chosen(self, rows: list[Row]) -> list[Sample | Skipped]:
        best: dict[str, tuple[Verdict, Sample]] = {}
        skipped: dict[str, Skipped] = {}
        attempts = dict.fromkeys((row["key"] for row in rows), 0)
        missing = rows
        for _ in range(self.patience + 1):
            made = list(self.source.samples(missing))
            good = [sample for sample in made if not isinstance(sample, Skipped)]
            skipped |= {sample.key: sample for sample in made if isinstance(sample, Skipped)}
            for sample, verdict in zip(good, self.judge(good), strict=True):
                key = sample["__key__"]
                attempts[key] += 1
                if key not in best or verdict.lack < best[key][0].lack:
                    best[key] = verdict, sample
            seeds = {sample["__key__"]: json.loads(sample["json"])["seed"] for sample in good}
            missing = [
                row | {"seed": next_seed(seeds[row["key"]])}
                for row in missing
                if row["key"] in seeds and not best[row["key"]][0].met
            ]
            if not missing:
                break
        return [
            _recorded(*best[key], attempts[key]) if key in best else skipped[key] for key in (r["key"] for r in rows)
        ]


def _recorded(verdict: Verdict, sample: Sample, attempts: int) -> Sample:
    asked = {"attempts": attempts, "met": verdict.met} | verdict.seen
    return sample | {"json": canonical_json(json.loads(sample["json"]) | {"asked": asked}).encode()}


def count_made_again(samples: Iterable[Sample]) -> dict[str, int]:
    """Of a finished artefact's samples, for its manifest: those made again, and those that miss in every attempt."""
    asked = [json.loads(sample["json"])["asked"] for sample in samples]
    return {
        "made_again": sum(one["attempts"] > 1 for one in asked),
        "still_miss": sum(not one["met"] for one in asked),
    }


def made_again(details: Mapping[str, Any]) -> dict[str, Any]:
    """These counts among a manifest's details; empty if no image was to be made again."""
    return {name: details[name] for name in ("made_again", "still_miss") if name in details}


def patient_images(source: ImageSource, patience: int, clip: ClipBound | None, runtime: RuntimeConfig) -> PatientImages:
    """Judged by the CLIP score if a bound is given, or by the renderer's own truth."""
    judge: Judge = partial(map, by_truth) if clip is None else _ClipJudge(clip, runtime.device)
    return PatientImages(source, patience, judge)


def by_truth(sample: Sample) -> Verdict:
    """Whether the class map contains the class of every object that the caption names.

    Numbers of objects are not compared. A sky that is only named for its light (`under an overcast sky`) is not
    expected inside a room.
    """
    from dmp_core.render.vocabulary import class_id

    record = json.loads(sample["json"])
    seen = set(unpack_truth(sample["truth.npz"], [CLASS_IDS])[CLASS_IDS].ravel().tolist())
    named = {item.name for item in read_prompt(record["prompt"], record["keyword"]).items}
    expected = named if record["scene"]["outdoor"] else named - {"sky"}
    missing = sorted(name for name in expected if class_id(name) not in seen)
    return Verdict(len(missing), not missing, {"missing": missing})


class _ClipJudge:
    """By the score that the quality stage bounds; the model is loaded with the first samples."""

    def __init__(self, clip: ClipBound, device: str) -> None:
        self.clip, self.device = clip, device

    @cached_property
    def score(self) -> ClipScorer:
        from dmp_core.quality.clip import ClipScorer
        from dmp_core.weights.load import choose_device

        return ClipScorer(self.clip.model, choose_device(self.device))

    def __call__(self, samples: Sequence[Sample]) -> Iterator[Verdict]:
        for start in range(0, len(samples), _CLIP_BATCH):
            batch = samples[start : start + _CLIP_BATCH]
            prompts = [json.loads(sample["json"])["prompt"] for sample in batch]
            scores = self.score([column_array(None, sample) for sample in batch], prompts)
            for score in (round(score, 6) for score in scores):  # as the quality stage stores them
                yield Verdict(-score, score >= self.clip.least, {"clip_score": score})
