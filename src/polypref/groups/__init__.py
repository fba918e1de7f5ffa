"""Who belongs together: groups from a column, from users' attributes, or discovered in how people judge.

``grouping`` is what a training run holds: who is in which group, new users, moves, names that last, files. ``mixture``
is the model that finds groups, ``discovery`` how many there are, ``model`` what is kept of it.
"""

from polypref.groups.discover import Discovery, discover
from polypref.groups.grouping import UNKNOWN, Grouping, from_attribute, from_mapping

__all__ = ["UNKNOWN", "Discovery", "Grouping", "discover", "from_attribute", "from_mapping"]
