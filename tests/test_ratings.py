"""Ratings are read in one notation, or the file is refused."""

from __future__ import annotations

import csv
import re
import shlex

import pytest

from polypref.data.read import ReadOptions, read
from polypref.errors import InputError


def better(folder, low, high, others=(), **options):
    """The answer that wins where one is rated ``low`` and the other ``high``; ``others``: further ratings."""
    with (folder / "r.csv").open("w", newline="", encoding="utf-8") as handle:
        out = csv.writer(handle, delimiter=";")
        out.writerow(["user_id", "prompt", "response", "rating"])
        for user in range(3):
            out.writerows([(f"u{user}", "p", "low", low), (f"u{user}", "p", "high", high)])
            out.writerows((f"u{user}", f"q{at}", "x", other) for at, other in enumerate(others))
    reading = read([folder / "r.csv"], ReadOptions(**options))
    texts = reading.comparisons.responses.texts_R
    assert len(reading.comparisons) == 3
    return {texts[int(code)] for code in reading.comparisons.chosen_N}


@pytest.mark.parametrize(
    ("low", "high", "others"),
    [
        ("4", "4.5", []), ("4,5", "5", ["3"]), ("3,5", "4,5", ["4"]), ("-1,5", "0,5", []), ("1e1", "2e1", []),
        ("3/5", "4.5/5", []), ("3 out of 5", "4 out of 5", []), ("3 von 5", "4 von 5", []), ("60 %", "80 %", []),
        ("60%", "7.5e1%".replace("7.5e1", "75"), []), ("59,5 %", "60,5 %", []), ("4", "5 (excellent)", ["3"]),
        ("1 - bad", "5 - good", []), ("1 star", "5 stars", []), ("★☆☆☆☆", "★★★★☆", []), ("⭐", "⭐⭐⭐", []),
        ("800", "1,600", ["2,000"]), ("1,600", "1,234,567", []), ("1.600,5", "2.000,5", []), ("1,600.5", "2,600.5", []),
        ("0,875", "1,250", []), ("2", "3", ["N/A"]), ("2", "3", ["none", "skip"]), ("false", "true", []),
    ],
)  # fmt: skip
def test_read(tmp_path, low, high, others):
    assert better(tmp_path, low, high, others) == {"high"}


@pytest.mark.parametrize(
    ("low", "high"),
    [
        ("poor", "excellent"),
        ("1,600", "2,000"),
        ("4/5", "8/10"),
        ("4/5", "5"),
        ("F", "A"),
        ("4 or 5", "5"),
        ("60 %", "0.8"),
    ],
)
def test_refused(tmp_path, low, high):
    with pytest.raises(InputError, match=r'column "rating" holds ') as caught:
        better(tmp_path, low, high)
    assert "\n" not in str(caught.value) and "--labels" in str(caught.value)
    for offer in re.findall(r"""--labels (".*?"|\S+)""", str(caught.value)):
        (setting,) = shlex.split(offer.rstrip(".,"))
        better(tmp_path, low, high, labels=setting)


def test_values_that_are_told(tmp_path):
    assert better(tmp_path, "bad", "good", labels="bad=1,good=3") == {"high"}
    assert better(tmp_path, "1,600", "20,000", labels="thousands") == {"high"}
    assert better(tmp_path, "1,600", "2,000", labels="decimal-comma") == {"high"}
    with pytest.raises(InputError, match="may be thousands"):
        better(tmp_path, "800", "1.600")
