"""Published preference sets, brought to preference files: one file for each, named in PUBLISHED.

Each is a frozen dataclass of settings whose ``convert(paths, limits)`` reads files in the published shape, from disk or
``hf://`` paths, and returns rows that ``check``, ``profile`` and ``compare`` read. Each file opens with where the set
comes from, whose protocols it offers, its traps and what was changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from polypref.data.files.limits import Limits
from polypref.data.published.arena import Arena
from polypref.data.published.personal_rewardbench import PersonalRewardBench
from polypref.data.published.personalllm import PersonalLLM
from polypref.data.published.prism import Prism
from polypref.data.published.psoups import PSoups
from polypref.data.published.rows import Converted
from polypref.data.published.tldr import TLDR

__all__ = ["PUBLISHED", "Adapter", "Converted"]


class Adapter(Protocol):
    """Settings of one published set."""

    def convert(self, paths: Sequence[str], limits: Limits | None = None) -> Converted: ...


PUBLISHED: dict[str, type[Adapter]] = {
    "psoups": PSoups,
    "tldr": TLDR,
    "personalllm": PersonalLLM,
    "prism": Prism,
    "arena": Arena,
    "personal-rewardbench": PersonalRewardBench,
}
