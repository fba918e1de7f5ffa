"""Settings that several commands share, so that they are spelt, read and explained in one way."""

from __future__ import annotations

from typing import Annotated

import tyro
from tyro.conf import arg

Files = Annotated[
    tuple[str, ...],
    tyro.conf.Positional,
    arg(
        metavar="FILE ...",
        help="JSONL, CSV (both also .gz, .zst) or Parquet files, patterns, or hf://datasets/... paths.",
        help_behavior_hint="(one or more)",
    ),
]

Columns = Annotated[
    tuple[str, ...],
    arg(
        metavar="ROLE=NAME ...",
        help="Which column plays which role, as in user_id=annotator chosen=better; ROLE= leaves a column out.",
        help_behavior_hint="(default: found by their names)",
    ),
]

Ties = Annotated[
    tuple[str, ...],
    arg(
        metavar="FILE ...",
        help="Files whose rows are ties (columns response_a and response_b).",
        help_behavior_hint="(default: none)",
    ),
]

EncoderName = Annotated[
    str,
    arg(
        metavar="NAME",
        help="What turns text into features: minilm, static, hf:MODEL, endpoint:URL; or several: minilm+static.",
    ),
]
