"""``polypref align``: from comparisons to a policy (``run``), with its model and trainer (``trainer``)."""

from polypref.align.run import align, groups_from, measured, questions
from polypref.align.task import Task

__all__ = ["Task", "align", "groups_from", "measured", "questions"]
