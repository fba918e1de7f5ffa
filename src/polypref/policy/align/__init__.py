"""``polypref align``: from comparisons to a policy (``run``), and the model and trainer that it takes (``trainer``)."""

from polypref.policy.align.run import Task, align, groups_from, measured, questions

__all__ = ["Task", "align", "groups_from", "measured", "questions"]
