"""Intervals, metrics and tests over arrays. It uses numpy, scipy and polars, and nothing else of polypref."""
