"""Simulated people with known preferences, judging text of known style: for tests, docs and the demo.

    world = simulate("two-tastes", seed=0)
    world.comparisons    what a learner sees
    world.people         tastes, groups and noise: the truth
    world.reward_UR      true reward of each response for each user
    candidates(world, 200, 16)   fresh responses to choose from, with their true rewards

``WORLDS`` names the worlds with their default settings. ``text.py`` writes the responses, ``people.py`` defines who
judges them, ``simulation.py`` draws the judgements; ``community.py`` is for people who return every day.
"""

from polypref.worlds.people import WORLDS, People, Row, World
from polypref.worlds.simulation import Candidates, SimulatedWorld, candidates, simulate
from polypref.worlds.text import STYLES

__all__ = ["STYLES", "WORLDS", "Candidates", "People", "Row", "SimulatedWorld", "World", "candidates", "simulate"]
