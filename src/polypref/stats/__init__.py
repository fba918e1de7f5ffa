"""Intervals, metrics and tests over arrays. Knows numpy, scipy and polars, and nothing of ours."""
