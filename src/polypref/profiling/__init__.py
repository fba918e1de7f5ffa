"""Profiles the data before any learner: disagreement, consistency, minorities, room, groups, social choice."""

from polypref.profiling.minorities import minority_users
from polypref.profiling.room import Room, room
from polypref.profiling.summary import Profile, profile

__all__ = ["Profile", "Room", "minority_users", "profile", "room"]
