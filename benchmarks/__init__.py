"""Measurements, as ratios taken in one run; each module prints a table (`python -m benchmarks.startup`)."""
