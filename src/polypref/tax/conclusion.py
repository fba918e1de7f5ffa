"""Pass, fail, or not measurable: what a measured tax comes to, in one sentence with what to do next.

fail            in some section the mean over users is a tax, or a user's tax is significant (Holm over users and
                sections).
not measurable  otherwise, where over all sections the pooled scorer is not surely better than chance, or where the
                interval of the mean reaches the margin.
pass            otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from polypref.wording import counted, estimate, points, visible

STRONGER = (
    "Use a scorer that can answer this suite: another encoder (`--encoder hf:MODEL`), judgements of such questions, or "
    "saved scorers (`--scorer`, `--pooled`)"
)


def conclusion(found: Mapping[str, Any]) -> dict[str, str]:
    """``{"result": "pass" | "fail" | "not measurable", "text"}`` from the content of ``tax.json``."""
    means = {row["section"]: row for row in found["tax"] if row["part"] == "personalization"}
    overall = means[found["sections"][-1]]
    taxed = {row["user"] for row in found["users"] if row["verdict"] == "tax"}
    sections = [name for name, row in means.items() if row["verdict"] == "tax"]
    margin, mean = points(found["settings"]["margin"]).lstrip("+"), estimate(overall, points)
    if sections or taxed:
        where = f"the mean over users in {', '.join(map(visible, sections))}" if sections else ""
        who = f"{len(taxed)} of {counted(len({r['user'] for r in found['users']}), 'users')}"
        what = " and ".join(filter(None, [where, who if taxed else ""]))
        return {"result": "fail", "text": f"fail: there is a tax for {what} (overall {mean} points)."}
    if overall["verdict"] == "nothing to lose":
        text = f"not measurable here, because the scorer is at chance on this suite. {STRONGER}."
        return {"result": "not measurable", "text": text}
    if overall["verdict"] == "unclear":
        text = (
            f"not measurable here, because a mean tax of {margin} points is not excluded (overall {mean} points). Give "
            "a suite with more items."
        )
        return {"result": "not measurable", "text": text}
    text = f"pass: the mean tax is surely below {margin} points (overall {mean} points), and no user's is significant."
    return {"result": "pass", "text": text}
