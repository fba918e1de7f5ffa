"""The linter: planted faults are found, counted and shown; clean data and the real sets are not slandered."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from polypref.cli import main
from polypref.comparisons import Comparisons, Users, from_columns
from polypref.data.linting.bias import rate
from polypref.data.linting.findings import Finding
from polypref.data.linting.lint import Lint, clean, lint
from polypref.data.read import Reading, ReadOptions, read
from polypref.data.zero_weight import counted

REAL = Path(__file__).parents[2] / "shared" / "data"
needs_real = pytest.mark.skipif(not REAL.exists(), reason="../shared/data is not here")


def reading(
    rows: list[tuple], *, first: list[int] | None = None, seconds: list[float] | None = None, **optional
) -> Reading:
    """Rows (user, prompt, chosen, rejected) as if read from lines 1, 2, ... of f.jsonl."""
    data = from_columns(*map(list, zip(*rows, strict=True)), **optional)
    n = len(data)
    return Reading(
        comparisons=data,
        line_N=np.arange(1, n + 1),
        file_N=np.zeros(n, np.int32),
        files=("f.jsonl",),
        shown_first_N=np.array(first if first is not None else [-1] * n, np.int8),
        seconds_N=np.array(seconds if seconds is not None else [np.nan] * n),
        rows_read=n,
    )


def found(lint_: Lint) -> dict[str, Finding]:
    names = [finding.name for finding in lint_.findings]
    assert len(set(names)) == len(names)
    return dict(zip(names, lint_.findings, strict=True))


def many(n: int = 60) -> list[tuple]:
    """Flawless rows: six users, texts of equal length, no repeats."""
    return [(f"u{k % 6}", f"prompt {k}", f"good{k:03}", f"evil{k:03}") for k in range(n)]


def test_flawless_rows_have_no_finding():
    assert lint(reading(many())).findings == ()


class TestTexts:
    def test_empty_responses_are_dropped(self):
        rows = [*many(), ("u0", "p", "x", " \n"), ("u1", "p", "", "y")]
        found_ = lint(reading(rows))
        finding = found(found_)["empty response"]
        assert (finding.count, finding.total, finding.action, finding.line) == (2, 62, "dropped", 61)
        assert finding.example == 'line 61 of f.jsonl: user "u0" prefers "x" over " \\n"'
        assert np.flatnonzero(found_.dropped_N).tolist() == [60, 61]

    def test_same_response_twice_is_dropped(self):
        found_ = lint(reading([*many(), ("u0", "p", "x", "x")]))
        assert found(found_)["same response twice"].line == 61 and found_.dropped_N.sum() == 1

    def test_empty_prompts_are_kept(self):
        found_ = lint(reading([*many(), ("u0", " ", "x", "y")]))
        assert found(found_)["empty prompt"].action == "kept" and not found_.dropped_N.any()


class TestRepeats:
    ROWS = (("u0", "p", "x", "y"), ("u0", "p", "x", "y"), ("u0", "p", "y", "x"), ("u1", "p", "x", "y"))

    def test_repeats_are_kept_and_contradictions_told(self):
        found_ = lint(reading([*many(), *self.ROWS]))
        repeated, against = found(found_)["repeated judgement"], found(found_)["contradictory repeat"]
        assert (repeated.count, repeated.total, repeated.line) == (1, 62, 62)
        assert (against.count, against.total, against.action) == (1, 1, "kept")
        assert not found_.dropped_N.any()

    def test_copies_with_one_pair_id_are_dropped(self):
        pairs = np.array([*range(60), 60, 60, 61, 60], np.int32)
        found_ = lint(reading([*many(), *self.ROWS], pair_N=pairs))
        assert found(found_)["duplicate judgement"].line == 62
        assert np.flatnonzero(found_.dropped_N).tolist() == [61]
        assert found(found_)["contradictory repeat"].count == 1

    def test_answers_that_differ_under_one_pair_id_are_no_copies(self):
        pairs = np.array([*range(60), 60, 60, 60, 60], np.int32)
        found_ = lint(reading([*many(), *self.ROWS], pair_N=pairs))
        assert "duplicate judgement" not in found(found_) and not found_.dropped_N.any()

    def test_another_time_is_another_answer(self):
        times = np.array([*range(60), 70.0, 71.0, 72.0, 73.0]) * 1e4
        assert "duplicate judgement" not in found(lint(reading([*many(), *self.ROWS], time_N=times)))
        times[61] = times[60]
        assert found(lint(reading([*many(), *self.ROWS], time_N=times)))["duplicate judgement"].count == 1

    def test_a_tie_and_a_preference_do_not_contradict(self):
        ties = np.zeros(64, bool)
        ties[62] = True
        assert "contradictory repeat" not in found(lint(reading([*many(), *self.ROWS], tie_N=ties)))

    def test_pair_id_of_other_texts(self):
        pairs = np.array([*range(60), 3, 61, -1, -1], np.int32)
        finding = found(lint(reading([*many(), *self.ROWS], pair_N=pairs)))["pair_id of other texts"]
        assert (finding.count, finding.total, finding.line, finding.action) == (1, 61, 61, "kept")


class TestUsers:
    def test_few_judgements_are_told_and_dropped_on_request(self):
        rows = [*many(), ("rare", "p", "x", "y"), ("rare", "q", "x", "y")]
        told = lint(reading(rows))
        finding = found(told)["few judgements"]
        assert (finding.count, finding.total, finding.action) == (1, 7, "kept")
        assert finding.example == 'line 61 of f.jsonl: user "rare" has 2' and not told.dropped_N.any()
        assert lint(reading(rows), min_judgements=2).dropped_N.sum() == 0
        assert np.flatnonzero(lint(reading(rows), min_judgements=3).dropped_N).tolist() == [60, 61]

    def test_rows_dropped_for_another_reason_do_not_count(self):
        rows = [*many(), *[("u9", f"p{k}", "x", "y" if k < 2 else "") for k in range(9)]]
        assert lint(reading(rows), min_judgements=3).dropped_N.sum() == 9


class TestBias:
    def test_rate_is_the_t_interval_of_equal_users(self):
        from scipy import stats

        rng = np.random.default_rng(0)
        share_U = rng.uniform(0.2, 0.9, 12)
        hit = rng.random((12, 50)) < share_U[:, None]
        share, low, high = rate(hit.ravel(), np.repeat(np.arange(12), 50).astype(np.int32))
        oracle = stats.t.interval(0.95, 11, loc=hit.mean(), scale=stats.sem(hit.mean(1)))
        assert share == pytest.approx(hit.mean()) and (low, high) == pytest.approx(oracle)

    def test_interval_covers(self):
        rng = np.random.default_rng(1)
        covered = 0
        for _ in range(300):
            p_U = rng.beta(6, 4, 20)
            user = np.repeat(np.arange(20), 30).astype(np.int32)
            _, low, high = rate(rng.random(600) < p_U[user], user)
            covered += low <= 0.6 <= high
        assert 0.90 <= covered / 300 <= 0.99

    def test_rows_that_all_agree_are_no_certainty(self):
        """Two rows of nobody but one user: Clopper and Pearson's 0 to 84 %; many rows of two users say as little."""
        share, low, high = rate(np.zeros(2, bool), np.zeros(2, np.int32))
        assert (share, low) == (0.0, 0.0) and high == pytest.approx(0.842, abs=0.001)
        share, low, high = rate(np.ones(200, bool), np.arange(200, dtype=np.int32) % 2)
        assert (share, high) == (1.0, 1.0) and low == pytest.approx(0.158, abs=0.001)
        _, low, high = rate(np.arange(40) % 2 == 0, np.arange(40, dtype=np.int32) // 4)  # all users at one half
        assert high - low > 0.3

    def test_a_wide_interval_does_not_deny_a_bias(self):
        rng = np.random.default_rng(3)
        few = [(f"u{k % 4}", f"prompt {k}", f"good{k:04}", f"evil{k:04}") for k in range(24)]
        text = found(lint(reading(few, first=list(rng.integers(0, 2, 24)))))["position bias"].text
        assert text.endswith("too few to tell whether there is a bias")

    def test_position(self):
        rng = np.random.default_rng(2)
        rows = [(f"u{k % 20}", f"prompt {k}", f"good{k:04}", f"evil{k:04}") for k in range(1000)]
        fair = found(lint(reading(rows, first=list(rng.integers(0, 2, 1000)))))["position bias"]
        assert fair.text.endswith("no sign of bias") and fair.action == "counted"
        biased = found(lint(reading(rows, first=list((rng.random(1000) < 0.7).astype(int)))))["position bias"]
        assert biased.values["low"] > 0.6 and "no sign" not in biased.text
        assert "position bias" not in found(lint(reading(rows)))

    def test_position_that_cannot_be_told_from_the_texts(self):
        rows = [(f"u{k % 20}", f"prompt {k % 50}", "good", "evil") for k in range(1000)]
        text = found(lint(reading(rows, first=[1] * 1000)))["position bias"].text
        assert "pairs have one order only" in text
        rows = [(u, p, *(("good", "evil") if k % 3 else ("evil", "good"))) for k, (u, p, _, _) in enumerate(rows)]
        text = found(lint(reading(rows, first=[1] * 1000)))["position bias"].text
        assert "one order only" not in text

    def test_length(self):
        rows = [(f"u{k % 6}", f"prompt {k}", "long response", "short") for k in range(90)]
        rows += [(f"u{k % 6}", f"prompt {k}", "short", "long response") for k in range(90, 120)]
        finding = found(lint(reading(rows)))["length bias"]
        assert (finding.count, finding.total) == (90, 120) and finding.values["share"] == 0.75

    def test_seconds_faster_than_reading(self):
        words = " ".join(["word"] * 100)
        rows = [(f"u{k % 6}", f"prompt {k}", f"good{k:03} {words}", f"evil{k:03} {words}") for k in range(60)]
        seconds = [60.0] * 58 + [5.0, np.nan]  # 202 words: 17 s at 714 words a minute
        finding = found(lint(reading(rows, seconds=seconds)))["faster than reading"]
        assert (finding.count, finding.total, finding.line, finding.action) == (1, 59, 59, "kept")
        assert finding.example.startswith("line 59 of f.jsonl: 202 words, time taken: 5.0 s each.")

    def test_gaps_between_times_faster_than_reading(self):
        words = " ".join(["word"] * 100)
        rows = [("u", f"prompt {k}", f"good{k:03} {words}", f"evil{k:03} {words}") for k in range(6)]
        rows += [("v", f"prompt {k}", f"good{k:03} {words}", f"evil{k:03} {words}") for k in range(3)]
        times = np.array([0, 100, 200, 205, 400, 400, 0, 1, np.nan])  # 400: two answers sent in one form
        finding = found(lint(reading(rows, time_N=times)))["faster than reading"]
        assert (finding.count, finding.total, finding.line) == (2, 6, 4)


ORDERS = (
    "Generate a response that can be easily understood by an elementary school student.",
    "Generate a response that only a PhD student in that field could understand.",
    "Generate a response that is friendly, witty and humorous.",
)


class TestPrompts:
    QUESTIONS = tuple(f"Why is topic {k} the way it is, and what follows from it?" for k in range(20))

    def rows(self, prompt_of):
        return [
            (f"u{u}", prompt_of(q, u), f"good{k:03} {u}", f"evil{k:03} {u}")
            for u in range(6)
            for k, q in enumerate(self.QUESTIONS)
        ]

    def leak(self, rows) -> Finding | None:
        return found(lint(reading(rows))).get("preference in the prompt")

    def test_one_instruction_per_user(self):
        finding = self.leak(self.rows(lambda q, u: f"{q} {ORDERS[u // 2]}"))
        assert finding is not None and finding.action == "counted"
        assert (finding.count, finding.total, finding.unit) == (60, 60, "prompts")
        assert "elementary school student" in finding.example
        assert "each user's prompts have one instruction" in finding.text

    def test_instruction_first(self):
        finding = self.leak(self.rows(lambda q, u: f"{ORDERS[u // 2]}\n{q}"))
        assert finding is not None and finding.count == 60

    def test_in_chat_prompts(self):
        def chat(q, u):
            return [{"role": "system", "content": ORDERS[u // 2]}, {"role": "user", "content": q}]

        finding = self.leak(self.rows(chat))
        assert finding is not None and finding.count == 60

    def test_instructions_that_do_not_go_with_users(self):
        mixed = self.rows(lambda q, u: f"{q} {ORDERS[(u + self.QUESTIONS.index(q)) % 3]}")
        finding = self.leak(mixed)
        assert finding is not None and "the same question has different instructions" in finding.text

    def test_plain_questions_do_not_leak(self):
        assert self.leak(self.rows(lambda q, u: q)) is None

    def test_one_instruction_for_everyone_does_not_leak(self):
        assert self.leak(self.rows(lambda q, u: f"{q} {ORDERS[0]}")) is None

    def test_questions_about_shared_stories_do_not_leak(self):
        asked = ("What is the plot?", "Describe the setting of it.", "Who is the hero there?")
        stories = [f"Once upon a time there was a story number {k}." for k in range(20)]
        rows = [
            (f"u{u}", f"{story} {question}", f"good {u} {story}", f"evil {u} {story}")
            for u in range(4)
            for story in stories
            for question in asked
        ]
        assert self.leak(rows) is None


class TestClean:
    def test_nothing_is_left_of_what_was_dropped(self):
        rows = [("gone", "p", "only here", ""), *many(), ("u0", "p", "x", "")]
        source = reading(rows)
        users = pl.DataFrame({"group": [str(k) for k in range(7)]})
        object.__setattr__(source.comparisons.users, "attributes", users)
        data = clean(source, lint(source))
        assert len(data) == 60 and data.users.ids.to_list() == [f"u{k}" for k in range(6)]
        assert data.users.attributes is not None
        assert data.users.attributes["group"].to_list() == ["1", "2", "3", "4", "5", "6"]
        assert set(data.responses.texts_R) == {t for row in many() for t in row[2:]}
        strangers = replace(data, users=Users(data.users.ids))
        assert strangers.content_hash == counted(from_columns(*map(list, zip(*many(), strict=True)))).content_hash

    def test_the_reading_is_not_changed(self):
        source = reading([*many(), ("u0", "p", "x", "")])
        before = source.comparisons.content_hash
        clean(source, lint(source, min_judgements=3))
        assert isinstance(source.comparisons, Comparisons) and source.comparisons.content_hash == before


@needs_real
class TestRealData:
    def check(self, name: str, *ties: str) -> tuple[Reading, dict[str, Finding], Lint]:
        source = read([REAL / f"{name}.parquet"], ReadOptions(ties=tuple(str(REAL / tie) for tie in ties)))
        lint_ = lint(source)
        return source, found(lint_), lint_

    def test_llmfao(self):
        source, named, lint_ = self.check("llmfao")
        assert (named["empty response"].count, named["empty response"].line) == (531, 7)
        assert named["repeated judgement"].count == 94 and named["contradictory repeat"].count == 8
        assert "duplicate judgement" not in named and "preference in the prompt" not in named
        assert len(clean(source, lint_)) == 5460 - 531

    def test_ukpconvarg1_fast(self):
        start = time.perf_counter()
        _, named, lint_ = self.check("ukpconvarg1", "ukpconvarg1.ties.parquet")
        assert not lint_.dropped_N[:65335].any()
        assert named["same response twice"].count == 70
        assert named["position bias"].values["low"] < 0.5 < named["position bias"].values["high"]
        assert "preference in the prompt" not in named
        assert time.perf_counter() - start < 20

    @pytest.mark.parametrize("name", ["squality_humaneval", "pandalm", "polis_opendata"])
    def test_prompts_of_real_sets_do_not_leak(self, name):
        assert "preference in the prompt" not in self.check(name)[1]

    def test_position_in_a_canonical_order_is_not_called_a_bias_of_people(self):
        assert "one order only" in self.check("squality_humaneval")[1]["position bias"].text


class TestCommand:
    @pytest.fixture
    def path(self, tmp_path):
        rows = [dict(zip(("user_id", "prompt", "chosen", "rejected"), row, strict=True)) for row in many()]
        rows += [{"user_id": "u0", "prompt": "p", "chosen": "[bold]x", "rejected": ""}]
        pl.DataFrame(rows).write_parquet(tmp_path / "p.parquet")
        return tmp_path / "p.parquet"

    def test_lines(self, path, capsys):
        assert main(["check", str(path)]) == 0
        out = capsys.readouterr().out
        assert "61 rows; 61 judgements, 6 users" in out and "60 of 61 rows are used." in out
        row = next(line for line in out.splitlines() if line.startswith("empty response"))
        assert row.split("\t")[1:3] == ["1 of 61 rows", "dropped"]
        assert "[bold]x" in row and f"line 61 of {path}" in row

    def test_json(self, path, capsys):
        assert main(["check", str(path), "--json", "--min-judgements", "100"]) == 2
        summary = json.loads(capsys.readouterr().out)
        assert summary["schema"] == 1 and summary["judgements"] == 61 and summary["kept"] == 0
        assert {f["name"]: (f["count"], f["action"]) for f in summary["findings"]}["few judgements"] == (6, "dropped")

    def test_ties_beside_are_mentioned_and_not_read(self, path, capsys):
        beside = path.with_name("p.ties.parquet")
        ties = {"user_id": ["u1"], "prompt": ["p"], "response_a": ["x"], "response_b": ["y"]}
        pl.DataFrame(ties).write_parquet(beside)
        assert main(["check", str(path)]) == 0
        out = capsys.readouterr().out
        assert f"--ties {beside}" in out and ", 0 ties" in out
        assert main(["check", str(path), "--ties", str(beside)]) == 0
        out = capsys.readouterr().out
        assert "not read:" not in out and ", 1 tie\n" in out

    def test_columns(self, path, capsys):
        pl.read_parquet(path).rename({"user_id": "who"}).write_parquet(path)
        assert main(["check", str(path)]) == 2
        assert "--columns user_id=who" in capsys.readouterr().err
        assert main(["check", str(path), "--columns", "user_id=who"]) == 0

    def test_rules_are_printed(self, tmp_path, capsys):
        rated = {"user_id": ["u", "u"], "prompt": ["p", "p"], "response": ["x", "y"], "rating": [1, 2]}
        pl.DataFrame(rated).write_csv(tmp_path / "p.csv")
        assert main(["check", str(tmp_path / "p.csv"), "--rating-gap", "2"]) == 0
        assert "read as: ratings:" in capsys.readouterr().out

    def test_columns_that_are_used_guessed_and_left_are_told(self, tmp_path, capsys):
        rows = {"wer": ["u", "v"], "frage": ["p", "q"], "gut": ["x", "y"], "schlecht": ["y", "z"]}
        path = tmp_path / "deutsch.csv"
        pl.DataFrame(rows).write_csv(path)
        mapped = ["--columns", "user_id=wer", "chosen=gut", "rejected=schlecht"]
        assert main(["check", str(path), *mapped]) == 0
        out = capsys.readouterr().out
        assert "columns: user_id=wer, chosen=gut, rejected=schlecht, no prompt; not used: frage\n" in out
        assert "add --columns prompt=NAME" in out
        assert main(["check", str(path), *mapped, "prompt=frage"]) == 0
        out = capsys.readouterr().out
        assert "2 prompts" in out and "prompt=frage" in out and "not used: none" in out and "no prompt" not in out
        pl.DataFrame(rows).rename({"wer": "user_id", "frage": "question"}).write_csv(path)
        assert main(["check", str(path), "--columns", "chosen=gut", "rejected=schlecht", "--json"]) == 0
        (columns,) = json.loads(capsys.readouterr().out)["columns"]
        assert columns == {
            "shape": "pairs",
            "roles": {"user_id": "user_id", "prompt": "question", "chosen": "gut", "rejected": "schlecht"},
            "guessed": ["prompt"],
            "unused": [],
        }

    @pytest.mark.parametrize("broken", ['{"user_id": "u", "pro', '{"chosen": "a", "rejected": "b"}'])
    def test_rows_that_cannot_be_read_are_among_all_rows(self, tmp_path, capsys, broken):
        row = {"user_id": "u", "prompt": "p", "chosen": "x", "rejected": "y"}
        lines = [json.dumps(row | {"chosen": f"x{k}"}) for k in range(299)]
        (tmp_path / "p.jsonl").write_text("\n".join([*lines, broken]) + "\n")
        assert main(["check", str(tmp_path / "p.jsonl")]) == 0
        out = capsys.readouterr().out
        assert out.endswith("299 of 300 rows are used.\n")
        assert "300 rows; 299 judgements, 1 user, 1 prompt" in out

    def test_rows_of_lists_are_told_beside_their_judgements(self, tmp_path, capsys):
        row = {"user_id": "u", "prompt": "p", "responses": ["x", "y", "z"], "ranking": [1, 2, 3]}
        (tmp_path / "p.jsonl").write_text(json.dumps(row) + "\n" + json.dumps(row | {"ranking": [1]}) + "\n")
        assert main(["check", str(tmp_path / "p.jsonl")]) == 0
        assert capsys.readouterr().out.endswith("3 of 3 judgements, made from 1 of 2 rows, are used.\n")
