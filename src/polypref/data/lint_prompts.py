"""Prompts that give the preference away."""

from __future__ import annotations


def observe(comparisons):
    return []
