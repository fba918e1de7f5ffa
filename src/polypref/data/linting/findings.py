"""A finding of the linter, and the collector to which checks add findings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from polypref.comparisons import BoolArray
from polypref.data.read import Reading
from polypref.data.thumbs import bar_N, disliked_N, judged_N, liked_N
from polypref.wording import shown

Action = Literal["kept", "dropped", "counted"]


@dataclass(frozen=True)
class Finding:
    """``count`` of ``total`` ``unit`` (rows, users, pairs, prompts) are like ``example``, at ``line`` of ``file``.

    ``action`` is what happens to such rows; "counted" means that it is about the data as a whole and not single rows.
    ``line`` is 0 if there is none. ``values`` are the figures behind ``text``, such as an interval.
    """

    name: str
    count: int
    total: int
    unit: str
    action: Action
    example: str
    file: str
    line: int
    text: str
    values: Mapping[str, float] = field(default_factory=dict)


class Inspection:
    """The findings so far, and the rows dropped so far, ``dropped_N``."""

    def __init__(self, reading: Reading) -> None:
        self.reading = reading
        self.data = reading.comparisons
        self.findings: list[Finding] = []
        self.dropped_N: BoolArray = np.zeros(len(self.data), bool)

    def note(
        self,
        name: str,
        seen: tuple[int, int, str],
        action: Action,
        text: str,
        row: int | None = None,
        example: str = "",
        values: Mapping[str, float] | None = None,
    ) -> None:
        """Add a finding: ``seen`` is (count, total, unit), ``row`` the number of the example judgement."""
        file, line = "", 0
        if row is not None:
            file, line = self.reading.files[self.reading.file_N[row]], int(self.reading.line_N[row])
            example = f"line {line} of {file}: {example or self.tell(row)}"
        self.findings.append(Finding(name, *seen, action, example, file, line, text, values or {}))

    def rows(self, name: str, bad_N: BoolArray, action: Action, text: str) -> None:
        """Add a finding about the single rows marked ``bad_N``, if there are any."""
        if bad_N.any():
            self.note(name, (int(bad_N.sum()), len(bad_N), "rows"), action, text, int(np.argmax(bad_N)))
            if action == "dropped":
                self.dropped_N |= bad_N

    def tell(self, row: int) -> str:
        """One judgement in a few words."""
        d = self.data
        user = shown(d.users.ids[int(d.user_N[row])], 30)
        first, second = (shown(d.responses.texts_R[int(code_N[row])], 40) for code_N in (d.chosen_N, d.rejected_N))
        if bar_N(d)[row]:
            how = "likes" if liked_N(d)[row] else "dislikes" if disliked_N(d)[row] else "neither likes nor dislikes"
            return f"user {user} {how} {shown(d.responses.texts_R[int(judged_N(d)[row])], 40)}"
        if d.tie_N is not None and d.tie_N[row]:
            return f"user {user} calls a tie: {first} and {second}"
        return f"user {user} prefers {first} over {second}"
