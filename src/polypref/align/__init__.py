"""``polypref align``: from comparisons to a policy (``run``), with its model and trainer (``trainer``)."""

from polypref.align.lora import Lora
from polypref.align.measures import measured
from polypref.align.questions import groups_from, questions
from polypref.align.run import align
from polypref.align.task import Task

__all__ = ["Lora", "Task", "align", "groups_from", "measured", "questions"]
