"""The simulation of a cluster agrees with closed forms."""

from __future__ import annotations

from math import ceil, exp

import pytest

from benchmarks.cluster import HERE, MOST_CHUNKS, Fleet, Job, simulate, stages_of
from dmp_core.stages import STAGES
from flows import call

MANY = 20_000


def equal(jobs: int, parts: list[float]) -> list[list[Job] | float]:
    return [[Job([parts]) for _ in range(jobs)]]


@pytest.mark.parametrize(("jobs", "workers"), [(1, 1), (7, 3), (9, 3), (2, 5), (100, 8)])
def test_equal_jobs_take_as_many_rounds_as_they_need(jobs, workers):
    fleet = Fleet(workers, start=2.0)
    out = simulate(equal(jobs, [3.0, 5.0]), fleet)
    assert out.seconds == pytest.approx(ceil(jobs / workers) * 10)
    assert (out.useful, out.wasted, out.losses) == (8 * jobs, 0, 0)
    assert out.busy(fleet) == pytest.approx(8 * jobs / (workers * out.seconds))
    assert out.gpu_hours(fleet) == pytest.approx(workers * out.seconds / 3600)


def test_stages_wait_for_each_other_and_divided_jobs_are_published_after_their_last_run():
    fleet = Fleet(2, start=1.0)
    assert simulate([[Job([[4.0], [4.0], [4.0]], divided=True)]], fleet).seconds == 5 + 5 + 1
    assert simulate([[Job([[4.0]]), Job([[9.0]])], 7.0, [Job([[1.0]])]], fleet).seconds == 10 + 7 + 2


def test_chunks_bring_one_artefact_to_all_machines():
    whole = simulate([[Job([[60.0] * 40])]], Fleet(8))
    divided = simulate([[Job([[60.0] * 5] * 8, divided=True)]], Fleet(8))
    assert (whole.seconds, divided.seconds) == (2400, 300)
    assert divided.useful == whole.useful


@pytest.mark.parametrize(("part", "start", "life"), [(50.0, 0.0, 100.0), (100.0, 0.0, 100.0), (50.0, 10.0, 80.0)])
def test_a_lost_part_takes_as_long_as_exponential_lives_make_it(part, start, life):
    """Until a stretch s survives, it takes L (exp(s / L) - 1) on average, in exp(s / L) tries."""
    out = simulate(equal(MANY, [part]), Fleet(1, start, life))
    stretch = (start + part) / life
    assert out.seconds / MANY == pytest.approx(life * (exp(stretch) - 1), rel=0.03)
    assert out.losses / MANY == pytest.approx(exp(stretch) - 1, rel=0.03)
    assert out.useful == pytest.approx(MANY * part)
    if start == 0:
        assert out.wasted / MANY == pytest.approx(life * (exp(stretch) - 1) - part, rel=0.05)


def test_finished_parts_are_not_made_again_and_losses_cost_their_delay():
    """Without a start, a run of several parts is as good as several runs."""
    life, delay = 100.0, 30.0
    out = simulate(equal(MANY // 4, [25.0] * 4), Fleet(1, 0.0, life, noticed=delay, replaced=delay))
    losses = exp(0.25) - 1
    assert out.seconds / MANY == pytest.approx((life + delay) * losses, rel=0.03)
    assert out.useful == pytest.approx(MANY * 25)


def test_a_seed_gives_the_same_run():
    fleet, jobs = Fleet(3, 5.0, 60.0, 20.0, 30.0), equal(50, [10.0, 20.0])
    assert simulate(jobs, fleet, 1) == simulate(jobs, fleet, 1) != simulate(jobs, fleet, 2)


def test_the_paper_presets_plan_keeps_its_work_however_it_is_divided():
    def gpu_seconds(chunk_shards: int | None) -> tuple[float, int]:
        jobs = [job for stage in stages_of([], chunk_shards) if isinstance(stage, list) for job in stage]
        return sum(part for job in jobs for run in job.runs for part in run), max(len(job.runs) for job in jobs)

    whole, divided = gpu_seconds(None), gpu_seconds(5)
    assert whole[0] == pytest.approx(divided[0])
    assert (whole[1], divided[1]) == (1, 10)
    assert set(HERE) < set(STAGES)
    assert MOST_CHUNKS == call.MOST_CHUNKS
