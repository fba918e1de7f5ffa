"""Pass or fail, in one line with what to do next: of a measured tax, and of an audit."""

from __future__ import annotations

import pytest

from polypref.bounds import audit_conclusion
from polypref.tax import conclusion as tax_conclusion


def tax(overall: str, section: str = "no tax", user: str = "unclear") -> dict:
    means = [("facts", section, 0.01), ("all", overall, 0.012)]
    rows = [{"part": "personalization", "section": name, "verdict": said, "value": value, "lo": -0.01, "hi": 0.03}
            for name, said, value in means]  # fmt: skip
    users = [
        {"user": "ann", "section": "facts", "verdict": user},
        {"user": "bob", "section": "facts", "verdict": "no tax"},
    ]
    return {"sections": ["facts", "all"], "tax": rows, "users": users, "settings": {"margin": 0.02}}


@pytest.mark.parametrize(
    ("found", "result", "says"),
    [
        (tax("no tax"), "pass", "surely below 2.0 points (overall +1.2 (−1.0 to +3.0) points)"),
        (tax("no tax", section="tax"), "fail", "the mean over users in facts"),
        (tax("no tax", user="tax"), "fail", "1 of 2 users"),
        (
            tax("nothing to lose", section="nothing to lose"),
            "not measurable",
            "scorer is at chance on this suite. Use a",
        ),
        (tax("unclear"), "not measurable", "a mean tax of 2.0 points is not excluded"),
        (tax("unclear", user="tax"), "fail", "1 of 2 users"),
    ],
)
def test_a_tax_passes_fails_or_is_not_measurable(found, result, says):
    told = tax_conclusion.conclusion(found)
    assert told["result"] == result and told["text"].startswith(result)
    assert says in told["text"]


def audit(control: bool = True, leaks: bool = True, shared: float = 0.9, hi: float = 0.009) -> dict:
    return {
        "control": {"holds": control, "reached": 0.8, "needed": 0.1},
        "leaks": {"holds": leaks, "value": 0.005, "alpha": 0.01, "hi": hi, "n": 400},
        "curve": [
            {"in_force": False, "certified": 0.99, "shared": 0.99},
            {"in_force": True, "certified": 0.31, "shared": shared},
        ],
    }


@pytest.mark.parametrize(
    ("found", "passes", "says"),
    [
        (audit(), True, "passes in 0.50 % of slates, not significantly more than the promised 1.00 %"),
        (audit(hi=0.05), True, "too few to be sure: up to 5.00 % is not excluded"),
        (audit(leaks=False), False, "Calibrate again"),
        (audit(control=False), False, "proves nothing"),
        (audit(control=False, leaks=False), False, "Calibrate again"),
        (audit(shared=0.4), True, "certifies only 31 % of the safety pairs, since the shared reward itself gets 40 %"),
    ],
)
def test_an_audit_passes_or_fails_with_the_reason_and_the_remedy(found, passes, says):
    told = audit_conclusion.conclusion(found)
    assert told["passes"] is passes and told["text"].startswith("PASS: " if passes else "FAIL: ")
    assert says in told["text"]
    assert ("`safety_weight` and `ample`" in told["text"]) == (found["curve"][1]["shared"] < 0.7 and passes)
