"""Groups of users: from a column, from users' attributes, or discovered in how people judge.

``grouping`` is the object that a training run uses: members, new users, moves, lasting names, files. ``mixture`` is the
model that finds groups, ``number_of_groups`` chooses their number, ``group_likelihood`` is the result.
"""

from polypref.groups.discover_groups import Discovery, discover
from polypref.groups.grouping import UNKNOWN, Grouping, from_attribute, from_mapping

__all__ = ["UNKNOWN", "Discovery", "Grouping", "discover", "from_attribute", "from_mapping"]
