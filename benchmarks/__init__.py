"""Measurements, as ratios within one run where possible. Run one: `python -m benchmarks.NAME`."""
