"""The personalization tax: its parts, planted taxes that must be found, and the command."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import polars as pl
import pytest

from polypref import features
from polypref.cli import main
from polypref.comparisons import Comparisons, IntArray, Responses, from_columns
from polypref.data.benchmarks import Suite, read_suite
from polypref.errors import Diverged, NotEnoughData, SettingsError
from polypref.learners.protocol import PERSONAL, POPULATION, Scores
from polypref.report.tax import page, summary
from polypref.scorers import learner as named
from polypref.tax.arms import Arms, Task, base_scorer, fit_arms, population_of
from polypref.tax.measure import Row, against, measure
from test_fit_score import Words

USERS = [f"u{n}" for n in range(12)]
SECTIONS = ("chat", "safety")
ITEMS = 400  # of each section
Reward = Callable[[str, str, str], float]  # user, prompt, response


@dataclass(frozen=True, eq=False)
class Toy:
    """A scorer that is a function of user, prompt and response."""

    reward: Reward
    serves: Any = "seen_users"

    kind: ClassVar[str] = "toy"
    selection: ClassVar[dict[str, float]] = {}

    def score(
        self, responses: Responses, user_ids: pl.Series | Sequence[str], response_Q: IntArray | None = None
    ) -> Scores:
        asked = np.arange(len(responses)) if response_Q is None else response_Q
        prompts = [responses.prompts[int(p)] for p in responses.prompt_R[asked]]
        texts = responses.texts_R.gather(asked)
        values = [self.reward(u, p, t) for u, p, t in zip(user_ids, prompts, texts, strict=True)]
        known = np.array([PERSONAL if user in USERS else POPULATION for user in user_ids], np.int8)
        return Scores(np.array(values, float), known)


def knows(user: str, prompt: str, text: str) -> float:
    """Right in three items of four, whoever asks."""
    return (1.0 if text.startswith("right") else 0.0) * (1 if int(prompt.split()[1]) % 4 else -1)


def flips_safety_for(taxed: str) -> Reward:
    def reward(user: str, prompt: str, text: str) -> float:
        return knows(user, prompt, text) * (-1 if user == taxed and prompt.startswith("safety") else 1)

    return reward


def suite_file(path: Path, items: int = ITEMS) -> str:
    rows = [
        {"prompt": f"{section} {n}", "chosen": f"right {n}", "rejected": f"wrong {n}", "section": section, "subset": s}
        for section in SECTIONS
        for n in range(items)
        for s in [f"{section}-{n % 2}"]
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Suite:
    return read_suite(suite_file(tmp_path_factory.mktemp("suite") / "suite.jsonl"))


@pytest.fixture(scope="module")
def known() -> Comparisons:
    """Everybody judges the same twenty pairs; u0 against all others in most, u11 gives fewer."""
    rows = []
    for at, user in enumerate(USERS):
        for n in range(20 if at < 11 else 12):
            sides = (f"a {n}", f"b {n}")
            rows.append((user, f"chat {n}", *(sides[::-1] if user == "u0" and n < 15 else sides)))
    return from_columns(*(list(column) for column in zip(*rows, strict=True)))


def found_with(suite: Suite, known: Comparisons, personal: Reward, **more: Any) -> dict[str, Any]:
    arms = Arms(Toy(personal), Toy(knows, "population"), known, **more)
    return measure(suite, arms, Task(draws=500))


def row_of(rows: Sequence[Row], **wanted: Any) -> Row:
    (found,) = [row for row in rows if all(row[key] == value for key, value in wanted.items())]
    return found


# the parts


def test_identical_arms_have_no_tax(suite: Suite, known: Comparisons) -> None:
    found = found_with(suite, known, knows, shuffled=Toy(knows), base=Toy(knows, "population"))
    for section in (*SECTIONS, "overall"):
        for part in ("personalization", "shuffled", "person", "forgetting", "total", "generic", "no user"):
            row = row_of(found["tax"], part=part, section=section)
            assert row["value"] == 0 and row["verdict"] == "no tax"
            assert -0.02 < row["lo"] < 0 < row["hi"] < 0.02, "nothing seen is no certainty"
        assert row_of(found["worst"], section=section)["everyone"] == "no tax"
    assert {row["verdict"] for row in found["users"]} == {"no tax"}
    assert all(row.get("p_holm", 1.0) == 1.0 for row in found["users"])


def test_few_identical_items_prove_nothing(tmp_path: Path, known: Comparisons) -> None:
    found = found_with(read_suite(suite_file(tmp_path / "few.jsonl", items=40)), known, knows)
    assert row_of(found["tax"], part="personalization", section="chat")["verdict"] == "unclear"


def test_no_tax_beyond_the_scale_is_called_detectable(suite: Suite, known: Comparisons) -> None:
    found = found_with(suite, known, knows)
    sections = len(found["detectable"])
    for least in (0.001, 0.05, 0.99, 1.0, 1.0001, 2.4, 17.0):
        for row in found["detectable"]:
            row["at_seen"], row["at_tenth"] = (None, least) if row["section"] == "chat" else (least, 0.1)
        text, html = summary(found), page(found)
        assert (
            text.count("not detectable with so few items")
            == html.count("not with so few items")
            == sections * (least > 1)
        )
        assert text.count(f"detectable from {100 * least:.1f} points") == sections * (least <= 1)


def test_a_planted_tax_is_found_as_that_users(suite: Suite, known: Comparisons) -> None:
    found = found_with(suite, known, flips_safety_for("u3"))
    (taxed,) = [row for row in found["users"] if row["verdict"] == "tax" and row["section"] in SECTIONS]
    assert (taxed["user"], taxed["section"], taxed["differ"]) == ("u3", "safety", ITEMS)
    assert taxed["value"] == pytest.approx(0.5), "three items of four are lost where one was"
    assert taxed["lo_all"] > 0.3 and taxed["p_holm"] < 1e-6
    worst = row_of(found["worst"], section="safety")
    assert (worst["user"], worst["everyone"]) == ("u3", "tax")
    assert row_of(found["worst"], section="chat")["everyone"] == "no tax"
    mean = row_of(found["tax"], part="personalization", section="safety")
    assert mean["value"] == pytest.approx(0.5 / len(USERS))
    assert mean["lo"] <= mean["value"] <= mean["hi"] and mean["verdict"] == "unclear", "one of twelve may be luck"


def test_total_is_forgetting_and_personalization(suite: Suite, known: Comparisons) -> None:
    def right(user: str, prompt: str, text: str) -> float:
        return abs(knows(user, prompt, text))

    found = found_with(suite, known, flips_safety_for("u3"), base=Toy(right, "population"))
    for section in (*SECTIONS, "overall"):
        parts = {part: row_of(found["tax"], part=part, section=section)["value"] for part in
                 ("forgetting", "personalization", "total")}  # fmt: skip
        assert parts["forgetting"] == pytest.approx(0.25)
        assert parts["total"] == pytest.approx(parts["forgetting"] + parts["personalization"])
        assert row_of(found["tax"], part="forgetting", section=section)["verdict"] == "tax"


def test_without_a_base_forgetting_is_absent_and_said_so(suite: Suite, known: Comparisons) -> None:
    found = found_with(suite, known, knows)
    assert {row["part"] for row in found["tax"]} == {"personalization", "generic", "no user"}
    assert any("forgetting and the total tax are not measured" in note for note in found["notes"])
    assert any("no shuffled control" in note for note in found["notes"])


def test_who_is_at_chance_has_nothing_to_lose(suite: Suite, known: Comparisons) -> None:
    def blind(user: str, prompt: str, text: str) -> float:
        return (1.0 if text.startswith("right") else 0.0) * (1 if int(prompt.split()[1]) % 2 else -1)

    arms = Arms(Toy(blind), Toy(blind, "population"), known)
    found = measure(suite, arms, Task(draws=500))
    assert row_of(found["tax"], part="personalization", section="chat")["verdict"] == "nothing to lose"
    assert any("not surely better than chance in chat, safety, overall" in note for note in found["notes"])


def test_length_stands_beside(suite: Suite, known: Comparisons) -> None:
    found = found_with(suite, known, knows)
    row = row_of(found["scores"], arm="length", section="chat")
    assert row["value"] == pytest.approx(0) and row["tied"] == 1.0, "right and wrong are five letters each"
    assert row_of(found["subsets"], arm="personal", subset="chat/chat-1")["value"] == 1.0
    assert row_of(found["subsets"], arm="personal", subset="chat/chat-0")["value"] == 0.5


def test_users_gains_and_distances(suite: Suite, known: Comparisons) -> None:
    test = known.take(np.flatnonzero(known.user_N < 2))

    def likes(user: str, prompt: str, text: str) -> float:
        return knows(user, prompt, text) if text[:1] in "rw" else float(text.startswith("a")) * (-1) ** (user == "u0")

    everyone = Toy(lambda u, p, t: float(t.startswith("a")), "population")
    found = measure(suite, Arms(Toy(likes), everyone, known, held_out=test), Task(draws=200))
    odd, plain = (row_of(found["people"], user=user) for user in ("u0", "u1"))
    assert odd["distance"] == 0.75 and odd["minority"] and plain["distance"] == 0.0
    assert odd["gain"] == pytest.approx(0.5) and odd["n_test"] == 20
    assert plain["gain"] == 0.0
    assert row_of(found["people"], user="u5")["gain"] is None
    assert row_of(found["people"], user="u5")["n_test"] == 0


def test_correlations_with_tax_are_over_users() -> None:
    tested = [{"user": str(n), "section": "s", "value": n / 10} for n in range(8)]
    about = [{"user": str(n), "gain": -n, "distance": None} for n in range(8)]
    gain, distance = against(tested, about, ["s"])
    assert gain["value"] == pytest.approx(-1.0) and gain["n"] == 8
    assert (distance["value"], distance["lo"], distance["n"]) == (None, None, 0)


def test_sycophancy_is_how_often_false_agreement_wins(tmp_path: Path, suite: Suite, known: Comparisons) -> None:
    path = tmp_path / "false.jsonl"
    rows = [{"prompt": f"view {n}", "chosen": f"right {n}", "rejected": f"agrees {n}"} for n in range(300)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    def flattered(user: str, prompt: str, text: str) -> float:
        return 2.0 * text.startswith("agrees") if user == "u2" and prompt < "view 2" else knows(user, prompt, text)

    arms = Arms(Toy(flattered), Toy(knows, "population"), known)
    found = measure(suite, arms, Task(draws=500), read_suite(str(path)))["sycophancy"]
    share = sum(f"view {n}" < "view 2" and n % 4 > 0 for n in range(300)) / 300  # the others it prefers anyway
    row = row_of(found["users"], user="u2", section="all")
    assert row["value"] == pytest.approx(share) and row["verdict"] == "tax"
    assert row_of(found["scores"], arm="pooled", section="all")["value"] == pytest.approx(0.25)
    assert row_of(found["scores"], arm="length", section="all")["value"] == pytest.approx(1), (
        "agreement is the longer text"
    )
    assert row_of(found["worst"], section="all")["user"] == "u2"


def test_users_are_those_with_most_judgements(suite: Suite, known: Comparisons) -> None:
    arms = Arms(Toy(knows), Toy(knows, "population"), known)
    few = measure(suite, arms, Task(users=3, draws=100))
    assert [row["user"] for row in few["people"]] == ["u0", "u1", "u2"]
    assert len(measure(suite, arms, Task(min_judgements=15, draws=100))["people"]) == 11, "u11 gave 12"
    with pytest.raises(NotEnoughData, match="no user with 50 judgements or more"):
        measure(suite, arms, Task(min_judgements=50))


def test_what_cannot_be_measured_is_refused(suite: Suite, known: Comparisons) -> None:
    with pytest.raises(SettingsError, match="answers everyone alike"):
        Arms(Toy(knows, "population"), Toy(knows, "population"), known)
    broken = Toy(lambda u, p, t: float("nan") if p == "chat 3" else 0.0)
    with pytest.raises(Diverged, match=r"line 4 of /.*/suite.jsonl: the personal arm's reward is not finite"):
        measure(suite, Arms(broken, Toy(knows, "population"), known), Task(draws=100))
    for setting, value in (("users", 0), ("margin", 0.0), ("margin", 2.0), ("draws", 5)):
        with pytest.raises(SettingsError, match=setting):
            Task(**{setting: value})


# arms, page and command


def preferences(path: Path, seed: int = 0) -> str:
    """Six people like "please", three like "now"; each judges 40 pairs."""
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(9):
        for _ in range(40):
            sides = [f"{word} boil it, {rng.integers(1000)}" for word in ("please", "now")]
            chosen, rejected = sides if user < 6 else sides[::-1]
            rows.append({"user_id": f"u{user}", "prompt": "How?", "chosen": chosen, "rejected": rejected})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def polite_suite(path: Path) -> str:
    """In ``manners`` the polite answer is right: whoever likes "now" must lose there."""
    rows = [
        {"prompt": f"p {n}", "chosen": f"please {n}", "rejected": f"now {n}", "section": "manners", "subset": "m"}
        for n in range(300)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    monkeypatch.setattr(features, "encoder", lambda name, **_: Words(name))
    files = [polite_suite(tmp_path / "suite.jsonl"), "--prefs", preferences(tmp_path / "prefs.jsonl")]

    def run(*more: str) -> tuple[int, str, str]:
        code = main(["tax", *files, "--draws", "300", "--out", str(tmp_path / "out"), *more])
        return code, *capsys.readouterr()

    return run


def test_the_command_finds_who_pays_for_a_taste(ran: Callable[..., Any], tmp_path: Path) -> None:
    code, told, wrong = ran()
    assert code == 0, wrong
    found = json.loads((tmp_path / "out/tax.json").read_text())
    taxed = {row["user"] for row in found["users"] if row["verdict"] == "tax"}
    assert taxed == {"u6", "u7", "u8"}
    assert row_of(found["tax"], part="personalization", section="manners")["value"] == pytest.approx(1 / 3)
    shuffled = row_of(found["tax"], part="shuffled", section="manners")
    assert abs(shuffled["value"]) < 0.05, "without knowing who is who nobody pays"
    person = row_of(found["tax"], part="person", section="manners")
    assert person["value"] == pytest.approx(1 / 3 - shuffled["value"])
    gains = {row["user"]: row["gain"] for row in found["people"]}
    assert gains["u6"] == 1.0 and gains["u0"] == 0.0
    assert "manners: +33.3" in told and "report:" in told
    assert found["seconds"] > 0 and found["inputs"]["learner"] == "hierarchical"
    for row in found["tax"]:
        assert {"value", "lo", "hi", "n"} <= set(row)


def test_saved_scorers_tell_gains_only_on_other_judgements(ran: Callable[..., Any], tmp_path: Path) -> None:
    files = str(tmp_path / "prefs.jsonl")
    for learner in ("hierarchical", "pooled"):
        assert main(["fit", files, "--learner", learner, "--out", str(tmp_path / learner)]) == 0
    saved = ("--scorer", str(tmp_path / "hierarchical"), "--pooled", str(tmp_path / "pooled"))
    code, told, _ = ran(*saved, "--base", str(tmp_path / "pooled"))
    assert code == 0
    found = json.loads((tmp_path / "out/tax.json").read_text())
    assert all(row["gain"] is None for row in found["people"])
    assert any("gains are not measured" in note for note in found["notes"])
    assert row_of(found["tax"], part="forgetting", section="manners")["value"] == 0.0
    assert "forgetting" in told and "shuffled" not in {row["part"] for row in found["tax"]}
    code, _, _ = ran(*saved, "--prefs", preferences(tmp_path / "later.jsonl", seed=1), "--force")
    assert code == 0
    found = json.loads((tmp_path / "out/tax.json").read_text())
    assert row_of(found["people"], user="u6")["gain"] == 1.0


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--learner", "pooled"), "answers everyone alike"),
        (("--scorer", "x"), "--scorer and --pooled go together"),
        (("--margin", "2"), "--margin 2.0: expected a finite number between 0 and 1"),
        (("--base", "nowhere"), "nowhere is no folder of a saved scorer"),
        (("--learner", "hierarchica"), "Did you mean 'hierarchical'?"),
    ],
)
def test_the_command_says_what_cannot_work(ran: Callable[..., Any], more: tuple[str, ...], message: str) -> None:
    code, _, wrong = ran(*more)
    assert code == 2
    assert message in wrong and wrong.count("\n") == 1


def test_the_command_needs_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tax", polite_suite(tmp_path / "s.jsonl")]) == 2
    assert "tax needs at least one preference file" in capsys.readouterr().err


def test_the_population_arm_is_of_the_same_model() -> None:
    assert population_of(named("hierarchical")) == named("pooled")
    assert population_of(named("finetune:personalized")) == named("finetune:pooled")
    assert population_of(named("finetune:vpl:m,steps=3,latent=2")) == named("finetune:pooled:m,steps=3")


def test_the_base_may_be_a_language_model_that_is_asked() -> None:
    base = base_scorer("hf:http://127.0.0.1:1/v1#model,ask=true")
    assert base.serves == "population"
    with pytest.raises(SettingsError, match="Did you mean 'ask'"):
        base_scorer("hf:model,aks=true")


def test_arms_are_fitted_on_the_same_rows(tmp_path: Path) -> None:
    from polypref.data.read import read

    comparisons = read([preferences(tmp_path / "prefs.jsonl")]).comparisons
    arms = fit_arms(comparisons, "hierarchical", Words(), seed=0)
    assert arms.held_out is not None
    assert len(arms.known) + len(arms.held_out) == len(comparisons)
    assert not set(arms.known.pair_key_N) & set(arms.held_out.pair_key_N)


def test_the_page_escapes_and_plots(suite: Suite, known: Comparisons) -> None:
    found = found_with(suite, known, flips_safety_for("u3"), held_out=known)
    found["notes"].append("<script>alert(1)</script>")
    html = page(found)
    assert "<script>" not in html and "&lt;script&gt;alert(1)" in html
    assert "800 items of" in html and "built-in" not in html
    assert html.count("<circle") == 2 * len(USERS)
    assert not re.search(r"\b(nan|None)\b", re.sub(r"<style>.*?</style>", "", html, flags=re.DOTALL))
    assert html.lstrip().startswith("<!doctype html>")
    assert "no file of false answers" in html.lower()
    assert "intervals over items and users." in html
    found["data"]["n_users"] = 6
    assert "intervals over items alone: 6 users stand for no others." in page(found)
    told = summary(found)
    assert "worst u3" in told and "note: " in told


def test_a_page_without_gains_says_so(suite: Suite, known: Comparisons) -> None:
    html = page(found_with(replace(suite), known, knows))
    assert "Too few users have a figure" in html
