"""Feedback that products have collected, as preference files: one module per product, listed in FEEDBACK.

Each is a frozen dataclass of settings whose ``convert(paths, limits)`` reads the product's export and returns rows that
``check``, ``profile`` and ``compare`` read. Each module's docstring says which files, who the user is, and what becomes
of a record; every record is used or counted as left out.
"""

from __future__ import annotations

from polypref.data.feedback.argilla import Argilla
from polypref.data.feedback.helicone import Helicone
from polypref.data.feedback.label_studio import LabelStudio
from polypref.data.feedback.langfuse import Langfuse
from polypref.data.feedback.langsmith import LangSmith
from polypref.data.feedback.open_webui import OpenWebUI
from polypref.data.feedback.phoenix import Phoenix
from polypref.data.feedback.portkey import Portkey
from polypref.data.published import Adapter

__all__ = ["FEEDBACK"]

FEEDBACK: dict[str, type[Adapter]] = {
    "open-webui": OpenWebUI,
    "langfuse": Langfuse,
    "langsmith": LangSmith,
    "phoenix": Phoenix,
    "helicone": Helicone,
    "portkey": Portkey,
    "label-studio": LabelStudio,
    "argilla": Argilla,
}
