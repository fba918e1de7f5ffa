"""Profiles the data before any learner: disagreement, consistency, minorities, room, groups, social choice."""

from polypref.profile.minorities import minority_users
from polypref.profile.room import Room, room
from polypref.profile.summary import Profile, profile

__all__ = ["Profile", "Room", "minority_users", "profile", "room"]
