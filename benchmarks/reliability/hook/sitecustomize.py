"""Loaded by every Python that starts with this folder on its path: see ``killer``."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

import killer

killer.install()
