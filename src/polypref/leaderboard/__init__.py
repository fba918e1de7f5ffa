"""``polypref leaderboard``: systems ranked for the population, groups and persons from people's judgements."""

from polypref.leaderboard.battles import Battles, battles_of
from polypref.leaderboard.table import Settings, leaderboard

__all__ = ["Battles", "Settings", "battles_of", "leaderboard"]
