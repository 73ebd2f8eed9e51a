"""The measured rate of a training, and its end."""

from __future__ import annotations

from dmp_core.training.pace import Pace


class Clock:
    """Two seconds per step, and half a minute for the first one."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_after_100_steps_rate_and_end_are_logged_once_and_then_shown(caplog):
    clock = Clock()
    pace = Pace(1000, 200, clock)  # resumed at step 200
    texts = []
    for step in range(201, 401):
        clock.now += 30 if step == 201 else 2
        texts.append(pace.step(step))
    assert texts[:99] == [""] * 99
    assert all(", 0.5 steps/s, ends " in text for text in texts[99:])
    (line,) = [record.getMessage() for record in caplog.records]
    # 700 steps of two seconds are left.
    assert line.startswith("training: measured 0.5 steps/s in 100 steps; 700 left, which take 0:23:20 and end about ")


def test_short_trainings_log_nothing(caplog):
    pace = Pace(50, 0)
    assert {pace.step(step) for step in range(1, 51)} == {""}
    assert not caplog.records
