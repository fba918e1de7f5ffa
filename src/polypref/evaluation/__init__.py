"""Comparing learners person by person: cells, metrics, intervals, verdict."""
