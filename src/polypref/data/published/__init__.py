"""Converts published preference sets to preference files: one module per set, listed in PUBLISHED.

Each is a frozen dataclass of settings whose ``convert(paths, limits)`` reads files in the published form, from disk or
``hf://`` paths, and returns rows that ``check``, ``profile`` and ``compare`` read. Each module's docstring gives the
source of the set, its protocols, traps and our changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from polypref.data.files.limits import Limits
from polypref.data.published.arena import Arena
from polypref.data.published.community_alignment import CommunityAlignment
from polypref.data.published.helpsteer3 import HelpSteer3
from polypref.data.published.multipref import MultiPref
from polypref.data.published.personal_rewardbench import PersonalRewardBench
from polypref.data.published.personalllm import PersonalLLM
from polypref.data.published.prism import Prism
from polypref.data.published.psoups import PSoups
from polypref.data.published.rfm import RFM
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
    "community-alignment": CommunityAlignment,
    "helpsteer3": HelpSteer3,
    "multipref": MultiPref,
    "rfm": RFM,
}
