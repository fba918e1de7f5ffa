"""Slow risks of personalization: what a system does to long-term users, and to their data.

One file per measure; each opens with what it measures and what it does not cover. ``experiments.closed_loop`` is the
simulation that most measures use, ``worlds.community`` its people and texts. ``summary.slow_risks`` measures all.
"""

from polypref.forgetting import forget, residue
from polypref.studies.risks.differential_privacy import dp_mean, noise
from polypref.studies.risks.settings import SlowRisks
from polypref.studies.risks.summary import RISKS, slow_risks

__all__ = ["RISKS", "SlowRisks", "dp_mean", "forget", "noise", "residue", "slow_risks"]
