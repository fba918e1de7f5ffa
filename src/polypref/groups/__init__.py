"""Who belongs together: groups from a column, from users' attributes, or discovered in how people judge.

``grouping`` is what a training run holds: who is in which group, new users, moves, names that last, files. ``mixture``
is the model that finds groups, ``number_of_groups`` says how many there are, ``group_likelihood`` keeps the result.
"""

from polypref.groups.discover_groups import Discovery, discover
from polypref.groups.grouping import UNKNOWN, Grouping, from_attribute, from_mapping

__all__ = ["UNKNOWN", "Discovery", "Grouping", "discover", "from_attribute", "from_mapping"]
