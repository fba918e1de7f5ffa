"""``polypref align``: from comparisons to a policy (``run``), and the model and trainer that it takes (``trainer``)."""

from polypref.align.run import align, groups_from, measured, questions
from polypref.align.task import Task

__all__ = ["Task", "align", "groups_from", "measured", "questions"]
