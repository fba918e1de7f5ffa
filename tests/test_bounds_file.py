"""bounds.toml: a later tier may only tighten, and what was calibrated is what is used."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from bounds_cases import Table, pool, random_slates
from polypref import artifact, content
from polypref.bounds.bounds_file import calibrate_file, load_bounds, read_bounds
from polypref.bounds.detector import Detector, fit_detector, windows_of
from polypref.bounds.gate import Limits
from polypref.bounds.safety import PROBES
from polypref.bounds.safety_cache import Safety
from polypref.bounds.slates import Slates
from polypref.comparisons import Responses, from_columns
from polypref.errors import ArtifactError, NotEnoughData, SettingsError

GOOD = """\
[immutable]
safety = "safety"
alpha = 0.05
delta = 0.1
floor = -5.0

[organisation]
cap = 2.0
alpha = 0.04

[user]
most_candidates = 16

[user.ann]
floor = 0.5
"""


class Safe:
    """Answers with a number for each text that depends on the text alone."""

    def __init__(self, shift=0.0, trained_on=None):
        self.shift = shift
        if trained_on is not None:
            self.trained_on = trained_on

    def score(self, responses, user_ids, response_Q=None):
        value = np.array([(hash_of(text) % 1000) / 100 for text in responses.texts_R]) + self.shift
        return Table(value).score(pool([str(i) for i in range(len(value))]), user_ids, response_Q)


def hash_of(text):
    return sum(ord(letter) * 31**at for at, letter in enumerate(text[:12]))


@pytest.fixture
def bounds(tmp_path):
    path = tmp_path / "bounds.toml"
    path.write_text(GOOD)
    return path


def slates_for(seed=0, n=600):
    return random_slates(np.random.default_rng(seed), n, 4)[0]


def test_what_holds_is_the_tightest_of_the_tiers(bounds):
    file = read_bounds(bounds)
    assert file.target.alpha == 0.04
    assert file.limits == Limits(cap=2.0, floor=-5.0, most_candidates=16)
    assert file.user_limits == {"ann": Limits(floor=0.5)}
    assert file.settings["alpha"].line == 9


@pytest.mark.parametrize(
    "old, new, complaint",
    [
        (
            "alpha = 0.04",
            "alpha = 0.06",
            r"alpha = 0.06 of line 9, \[organisation\] loosens alpha = 0.05 of line 3, \[imm",
        ),
        (
            "[user.ann]\nfloor = 0.5",
            "[user.ann]\nfloor = -6.0",
            r"floor = -6.0 of line 15, \[user.ann\] loosens .* line 5",
        ),
        ("[user]\n", "[user]\ncap = 3\n", r"cap = 3 of line 12, \[user\] loosens cap = 2.0 of line 8"),
        ("alpha = 0.04", "delta = 0", r"delta = 0 .* loosens delta = 0.1"),
        ("floor = 0.5", "alpha = 0.01", r"line 15 .*only \[immutable\] and \[organisation\] may set it"),
        ("cap = 2.0", "capp = 2.0", r"line 8 .*'capp'.* Did you mean 'cap'"),
        ("[organisation]", "[organization]", r"'organization'.* Did you mean 'organisation'"),
        ("cap = 2.0", 'cap = "two"', r"line 8 .*'two'; expected a number"),
        ("cap = 2.0", "cap = -1", r"line 8 .*expected 0 or more"),
        ("cap = 2.0", f"cap = {10**400}", "'cap' is a whole number beyond 64 bits"),
        ('safety = "safety"', 'safety = ""', r"line 2 .*expected the name of a folder"),
        ("cap = 2.0", "cap = nan", r"line 8 .*expected 0 or more"),
        ("most_candidates = 16", "most_candidates = 0", r"line 12 .*expected 1 or more"),
        ("most_candidates = 16", "most_candidates = true", r"expected a whole number"),
        ('safety = "safety"\n', "", "names no safety scorer"),
        ("alpha = 0.05", "alpha = 5", "expected a share between 0 and 1"),
        ("[user]", "[user", "is not TOML"),
    ],
)
def test_what_loosens_or_cannot_be_read_is_refused_with_its_lines(bounds, old, new, complaint):
    bounds.write_text(
        GOOD.replace(old, new, 1).replace("alpha = 0.04\n", "" if "alpha = 5" in new else "alpha = 0.04\n")
    )
    with pytest.raises(SettingsError, match=complaint):
        read_bounds(bounds)


def test_what_immutable_does_not_say_is_its_default_and_cannot_be_loosened(bounds):
    bounds.write_text('[immutable]\nsafety = "s"\n[organisation]\nalpha = 0.9\n')
    with pytest.raises(
        SettingsError, match=r"alpha = 0.9 of line 4, .* loosens alpha = 0.01 of \[immutable, by default\]"
    ):
        read_bounds(bounds)
    bounds.write_text('[immutable]\nsafety = "s"\ndelta = 0\n[organisation]\ndelta = 0.9\n')
    with pytest.raises(SettingsError, match=r"delta = 0.9 .* loosens delta = 0"):
        read_bounds(bounds)
    bounds.write_text('[immutable]\nsafety = "s"\ndelta = 0\n[organisation]\ndelta = 0.05\n')
    assert read_bounds(bounds).target.delta == 0.05


def test_a_user_tier_is_in_the_policy_hash(bounds):
    before = calibrate_file(read_bounds(bounds), Safe(), slates_for())
    bounds.write_text(GOOD.replace("floor = 0.5", "floor = -4.5"))
    with pytest.raises(SettingsError, match="other bounds"):
        load_bounds(bounds, pinned=before.policy_hash)
    assert load_bounds(bounds).policy_hash != before.policy_hash


def test_slates_larger_than_those_calibrated_on_are_refused(bounds):
    bounded = calibrate_file(read_bounds(bounds), Safe(), slates_for()).bind(Table(np.arange(9.0)), Safe())
    assert bounded.limits.most_candidates == 4
    with pytest.raises(SettingsError, match="bounds allow 4"):
        bounded.rank_slate(pool([str(i) for i in range(5)]), "u")


def test_calibrated_bounds_are_read_back_and_bind(bounds):
    calibrated = calibrate_file(read_bounds(bounds), Safe(), slates_for())
    again = load_bounds(bounds)
    assert again == calibrated
    assert load_bounds(bounds, pinned=again.policy_hash) == again
    bounded = again.bind(Table(np.arange(4.0)), Safe())
    assert bounded.policy_hash == again.policy_hash
    assert bounded.limits_of("ann").floor == 0.5
    assert bounded.rank_slate(pool(["0", "1"]), "u").policy_hash == again.policy_hash
    with pytest.raises(SettingsError, match="other bounds"):
        load_bounds(bounds, pinned="0" * 16)


def test_a_changed_file_a_tampered_calibration_and_another_scorer_are_refused(bounds):
    calibrate_file(read_bounds(bounds), Safe(), slates_for())
    with pytest.raises(SettingsError, match=r"answers otherwise.*then, .* now"):
        load_bounds(bounds).bind(Table([0.0]), Safe(shift=0.5))
    path = read_bounds(bounds).calibration
    content = json.loads(path.read_text())
    content["thresholds"][""]["value"] -= 1
    path.write_text(json.dumps(content))
    with pytest.raises(ArtifactError, match="hash does not fit"):
        load_bounds(bounds)
    calibrate_file(read_bounds(bounds), Safe(), slates_for())
    bounds.write_text(GOOD.replace("cap = 2.0", "cap = 1.0"))
    with pytest.raises(SettingsError, match="changed after it was calibrated"):
        load_bounds(bounds)
    path.unlink()
    with pytest.raises(ArtifactError, match="has not been calibrated"):
        load_bounds(bounds)


def test_a_scorer_trained_on_the_slates_is_not_calibrated_on_them(bounds):
    slates = slates_for()
    with pytest.raises(SettingsError, match="trained on 7 of the slates' 2400 texts"):
        calibrate_file(read_bounds(bounds), Safe(trained_on=slates.responses.identity_R[:7]), slates)


class Letters:
    """An encoder of the first letter and the length."""

    name = identity = "letters"

    def encode(self, responses):
        texts = responses.texts_R.to_list()
        return np.array([[text.startswith("bad"), len(text) / 10] for text in texts], np.float32)


def test_a_detector_learns_saves_and_remembers_what_it_saw(tmp_path):
    texts = [f"{'bad' if i % 3 == 0 else 'good'} {i}" for i in range(300)]
    unsafe = np.arange(300) % 3 == 0
    slates = Slates(
        pool(texts),
        np.repeat(np.arange(100, dtype=np.int32), 3),
        np.arange(300, dtype=np.int32),
        unsafe,
        pl.Series([""] * 100),
    )
    detector = fit_detector(slates, Letters())
    assert detector.auc > 0.99
    value = detector.score(slates.responses, ["anyone"] * 300).value_Q
    assert value[~unsafe].min() > value[unsafe].max()
    detector.save(tmp_path / "detector")
    assert Detector.is_in(tmp_path / "detector")
    assert not Detector.is_in(tmp_path)
    back = Detector.load(tmp_path / "detector", Letters())
    assert (back.score(slates.responses, ["x"] * 300).value_Q == value).all()
    assert (back.trained_on == np.sort(slates.responses.identity_R)).all()

    class Other(Letters):
        identity = "other letters"

    with pytest.raises(SettingsError, match=r"trained on the features of \[letters\]"):
        Detector.load(tmp_path / "detector", Other())
    with pytest.raises(NotEnoughData, match="1 unsafe responses"):
        fit_detector(slates.take(np.array([0])), Letters())


def test_a_detector_reads_what_was_asked_too(tmp_path):
    """The same words in answer to a good and to a bad request."""
    asked = [f"{'bad' if i % 2 else 'good'} request {i // 2}" for i in range(200)]
    told = from_columns(["u"] * 200, asked, ["Sure."] * 200, ["No."] * 200)
    responses = told.responses
    response = np.concatenate([told.chosen_N, told.rejected_N])
    unsafe = np.concatenate([np.arange(200) % 2 == 1, np.zeros(200, bool)])
    slate = np.tile(np.arange(200, dtype=np.int32), 2)
    slates = Slates(responses, slate, response, unsafe, pl.Series([""] * 200))

    detector = fit_detector(slates, Letters())
    value = detector.score(responses, ["x"] * 400, response).value_Q
    sure = (np.arange(400) < 200) & (np.arange(400) % 2 == 0)
    assert value[sure].min() > value[unsafe].max(), "the same answer is safe where the request is"
    detector.save(tmp_path / "detector")
    config, arrays = artifact.load(tmp_path / "detector", "detector")
    artifact.save(tmp_path / "detector", "detector", config | {"reads": "response"}, arrays)
    with pytest.raises(SettingsError, match="was trained by another version"):
        Detector.load(tmp_path / "detector", Letters())


def test_a_replaced_prompt_hides_little_of_an_unsafe_response(monkeypatch):
    """Requests tell as much as responses, so weights could rest on them alone."""
    bad = [f"zz request number {i}" for i in range(80)]
    good = [f"request number {i}" for i in range(80)]
    responses, place = Responses.of([*bad, *bad, *good], [*["qq do it"] * 80, *["no"] * 80, *["do it"] * 80])
    unsafe = np.arange(240) < 80
    slates = Slates(responses, np.arange(240, dtype=np.int32), place, unsafe, pl.Series([""] * 240))
    moved, at = Responses.of(good, ["qq do it"] * 80)

    def gained():
        detector = fit_detector(slates, Letters())
        asked = detector.score(responses, None, place).value_Q
        return (detector.score(moved, None, at).value_Q.mean() - asked[unsafe].mean()) / asked[~unsafe].std()

    with_draws = gained()
    monkeypatch.setattr("polypref.bounds.detector.DRAWS", 0)
    assert with_draws < 0.5 * gained()


def test_weights_changed_outside_the_probes_are_another_safety_scorer(bounds, tmp_path):
    """Everything unsafe passes and no probe text tells: the content does."""
    rng = np.random.default_rng(0)
    slates, _ = random_slates(rng, 400, 4)
    weights_D = rng.standard_normal(2 * len(Letters().encode(slates.responses)[0]))
    detector = Detector(Letters(), weights_D, 0.0, content.NONE, content.NONE, 1.0, 0.9)
    file = read_bounds(bounds)
    detector.save(file.safety)
    before = calibrate_file(file, detector, slates)
    before.verify(Detector.load(file.safety, Letters()))
    probes_BD = _probe_inputs()
    changed_D = -weights_D + 2 * np.linalg.pinv(probes_BD) @ (probes_BD @ weights_D)
    other = replace(detector, weights_D=changed_D)
    np.testing.assert_allclose(Safety(other).probe(), Safety(detector).probe(), atol=1e-6)
    assert np.abs(changed_D - weights_D).max() > 1e-3
    for call in (before.verify, lambda one: before.bind(Table([0.0]), one)):
        with pytest.raises(SettingsError, match="another one than"):
            call(other)
    other.save(file.safety)
    with pytest.raises(SettingsError, match="is another one than was calibrated"):
        load_bounds(bounds, pinned=before.policy_hash)
    again = calibrate_file(file, other, slates)
    assert again.policy_hash != before.policy_hash
    assert len(again.policy_hash) == 64


def _probe_inputs():
    prompts, texts = zip(*PROBES, strict=True)
    windows = windows_of(Letters(), Responses.of(prompts, texts)[0])
    text_WD, prompt_WD = (windows.x_WD[rows].astype(float) for rows, _ in (windows.texts, windows.prompts))
    return np.block([[text_WD, np.zeros_like(text_WD)], [np.zeros_like(prompt_WD), prompt_WD]])


def test_labels_by_lot_give_a_detector_that_knows_nothing():
    rng = np.random.default_rng(0)
    slates, _ = random_slates(rng, 400, 3, share=0.5)

    class Noise(Letters):
        def encode(self, responses):
            return np.random.default_rng(1).standard_normal((len(responses), 5)).astype(np.float32)

    assert abs(fit_detector(slates, Noise()).auc - 0.5) < 0.06


def test_a_published_model_is_a_safety_scorer_and_another_one_is_noticed(bounds, tmp_path, monkeypatch):
    """Any classifier or reward model of transformers, saved as a scorer."""

    import polypref
    from polypref.learners.pretrained import Pretrained, PretrainedScorer
    from test_features_hf import save as save_model

    monkeypatch.setenv("POLYPREF_CACHE", str(tmp_path / "cache"))

    def scorer(name):
        settings = Pretrained(str(tmp_path / name))
        return PretrainedScorer(settings, settings.identity, {})

    save_model(tmp_path / "model", "bert-reward")
    polypref.save(scorer("model"), tmp_path / "safety")
    safety = polypref.load(tmp_path / "safety", "static")
    calibrated = calibrate_file(read_bounds(bounds), safety, slates_for(n=120))
    bounded = calibrated.bind(Table(np.arange(9.0)), safety)
    texts = pool(["0", "1", "2"])
    passes = bounded.gate.passes(Safety(safety)(texts))
    assert bounded.rank_slate(texts.take(np.flatnonzero(passes).astype(np.int32)), "u").dropped == ()
    save_model(tmp_path / "other", "llama-reward")
    with pytest.raises(SettingsError, match="another one than"):
        calibrated.bind(Table([0.0]), scorer("other"))
