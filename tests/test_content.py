"""What a text and an id may be, and names made of content: no two contents share one, whatever they hold."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from hashlib import blake2b
from itertools import chain

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from polypref import content
from polypref.align.rewards import ScorerReward
from polypref.bounds.bounds_file import read_bounds
from polypref.bounds.explain import explained
from polypref.bounds.gate import Bounded, Gate, Limits
from polypref.bounds.safety import SafetyFailed, shared
from polypref.bounds.safety_cache import Safety
from polypref.bounds.windowed import READS
from polypref.cli.score import ROLES, answers_of, rows_of
from polypref.comparisons import Responses, Users, from_columns
from polypref.data.files.limits import Limits as FileLimits
from polypref.data.files.sources import open_source
from polypref.data.rows.layouts import find_columns
from polypref.errors import ArtifactError, InputError
from polypref.features.cache import Store
from polypref.learners.protocol import PERSONAL, POPULATION, Scores, resolved

TEXTS = st.one_of(
    st.text('\0"[{a\u0301', max_size=4), st.sampled_from(['[{"content":"a","role":"user"}]', "", "caf\u00e9"])
)
TRIPLES = st.tuples(st.booleans(), TEXTS, TEXTS)


def _half(text: str) -> bool:
    return any("\ud800" <= c <= "\udfff" for c in text)


def unchecked(triples) -> Responses:
    """A pool of (is it a chat?, prompt, response), made without looking at what the texts hold."""
    chat, prompts, texts = zip(*triples, strict=True)
    responses = object.__new__(Responses)
    number = np.arange(len(triples), dtype=np.int32)
    columns = {"prompts": pl.Series(prompts, dtype=pl.String), "texts_R": pl.Series(texts, dtype=pl.String)}
    responses.__dict__.update(columns, prompt_R=number, chat_P=np.array(chat))
    return responses


# --- identities


@settings(max_examples=100, deadline=None)
@given(st.lists(TRIPLES, min_size=2, max_size=6, unique=True))
@example([(False, "P\0U", ""), (False, "P", "U\0"), (False, "P", "\0U"), (True, "P", "U"), (False, "P", "U")])
def test_different_texts_have_different_identities(triples):
    assert len(np.unique(unchecked(triples).identity_R)) == len(triples)


PARTS = st.one_of(st.none(), st.text("a\0", max_size=3), st.binary(max_size=3), st.integers(0, 3))


@settings(max_examples=60, deadline=None)
@given(st.lists(PARTS, max_size=4), st.lists(PARTS, max_size=4))
@example(["ab", "c"], ["a", "bc"])
@example([None], [""])
def test_different_parts_have_different_digests(one, other):
    same = [(type(part), part) for part in one] == [(type(part), part) for part in other]
    assert (content.digest(*one) == content.digest(*other)) == same


def test_arrays_of_other_shapes_or_types_are_other_parts():
    parts = [np.zeros(4, "<i4"), np.zeros((2, 2), "<i4"), np.zeros(2, "<i8"), np.zeros(16, "u1"), bytes(16)]
    assert len({content.digest(part) for part in parts}) == len(parts)
    assert len({content.of_texts(pl.Series(one)) for one in (["a", "b"], ["ab", ""], ["", "ab"], [None, "ab"])}) == 4


IDENTITIES = st.binary(min_size=2, max_size=2).map(lambda two: b"same half"[:8] + bytes([two[0] % 3]) * 7 + two[1:])


@settings(max_examples=60, deadline=None)
@given(st.sets(IDENTITIES, max_size=20), st.lists(IDENTITIES, max_size=20))
def test_places_are_found_where_first_halves_are_alike(known, wanted):
    """Ends in NUL bytes too, which numpy's byte strings do not show."""
    sorted_K = np.unique(content.identities(b"".join(known)))
    order = sorted(known)
    expected = [order.index(one) if one in known else -1 for one in wanted]
    assert content.places(sorted_K, content.identities(b"".join(wanted))).tolist() == expected
    assert (content.unpacked(content.packed(sorted_K)) == sorted_K).all()
    assert content.hexes(sorted_K) == [one.hex() for one in order]


def test_names_of_an_older_version_are_refused():
    with pytest.raises(ArtifactError, match="make it again"):
        content.unpacked(np.zeros(3, np.uint64))


def test_the_identity_of_a_text_is_pinned():
    """Stored features, scorers and calibrations name texts so: another value makes all of them worthless."""
    responses, _ = Responses.of(["p", [{"role": "user", "content": "p"}]], ["r", "r"])
    expected = []
    for kind, prompt in ((b"text", b"p"), (b"chat", b'[{"content":"p","role":"user"}]')):
        framed = b"".join(b"t" + len(part).to_bytes(8, "little") + part for part in (kind, prompt))
        expected.append(blake2b(framed + b"r", digest_size=16).hexdigest())
    assert content.hexes(responses.identity_R) == expected
    assert expected[0] == "d39a3e3819dfa0fa43a3f5cb6daff077"
    splits = [
        blake2b(b"text\0p\0r", digest_size=8).digest(),
        blake2b(b"chat\0" + prompt + b"\0r", digest_size=8).digest(),
    ]
    assert responses.keys_R.tobytes() == b"".join(splits), "by these numbers splits are drawn"


# --- what decides a figure is in the name of the data


def judged(**changed):
    columns = {"user_ids": ["u", "v"], "prompts": ["p", "p"], "chosen": ["a", "b"], "rejected": ["b", "c"]}
    return from_columns(**columns | changed)


def test_the_hash_of_judgements_covers_all_columns():
    times, ones = np.array([1.0, 2.0]), np.array([1.0, 1.0])
    different = [
        judged(),
        judged(user_ids=["u", "u"]),
        judged(user_ids=["uv", "v"]),
        judged(chosen=["a", "d"]),
        judged(prompts=["p", "q"]),
        judged(tie_N=np.array([False, True])),
        judged(weight_N=times),
        judged(time_N=times),
        judged(pair_N=np.array([0, 0], np.int32)),
        judged(pair_N=np.array([0, 1], np.int32)),
        judged(prompts=[[{"role": "user", "content": "p"}]] * 2),
    ]
    names = [one.content_hash for one in different]
    assert len(set(names)) == len(names) and all(len(name) == 32 for name in names)
    assert judged(weight_N=ones).content_hash == judged().content_hash, "no weight is weight 1"
    assert judged(pair_N=np.array([7, 3])).content_hash == judged(pair_N=np.array([0, 1])).content_hash


def test_the_hash_of_judgements_covers_what_is_known_of_people_and_not_their_numbers():
    rows = judged()
    about = [pl.DataFrame({"group": groups}) for groups in (["x", "y"], ["y", "x"], ["x", None])]
    known = [Users(rows.users.ids, one) for one in about]
    assert len({rows.content_hash, *(_with(rows, users).content_hash for users in known)}) == 4
    turned = Users(pl.Series("id", ["v", "u"]))
    again = _with(rows, turned, user_N=np.array([1, 0], np.int32))
    assert again.content_hash == rows.content_hash


def test_each_value_known_of_people_has_a_hash_and_equal_data_have_one():
    rows = judged()
    odd = [None, math.nan, math.inf, -math.inf, 0.0, 1.0, 1e300]
    about = [pl.DataFrame({"age": pl.Series([value, 2.0], dtype=pl.Float64)}) for value in odd]
    about += [pl.DataFrame({"age": [text, "2"]}) for text in (None, "nan", "float nan", "inf", "1.0", "")]
    about += [pl.DataFrame({"age": [[1.0, value], [2.0]]}) for value in odd[:4]]
    names = [_with(rows, Users(rows.users.ids, one)).content_hash for one in about]
    assert len(set(names)) == len(names)
    assert _with(rows, Users(rows.users.ids, pl.DataFrame())).content_hash == rows.content_hash
    two = pl.DataFrame({"age": [0.0, 2.0], "place": ["x", "y"]})
    other = pl.DataFrame({"place": ["x", "y"], "age": [-0.0, 2.0]})
    assert (
        _with(rows, Users(rows.users.ids, two)).content_hash == _with(rows, Users(rows.users.ids, other)).content_hash
    )
    for name in ("weight_N", "time_N"):
        zeros = [judged(**{name: np.array([zero, 1.0])}).content_hash for zero in (0.0, -0.0)]
        assert zeros[0] == zeros[1]
    unknown = np.array([0x7FF8000000000000, 0xFFF8000000000001], np.uint64).view(np.float64)
    assert judged(time_N=unknown).content_hash == judged(time_N=np.full(2, np.nan)).content_hash


def _with(rows, users, **changed):
    return replace(rows, users=users, **changed)


# --- chat


def test_chats_that_agree_but_for_key_order_and_absent_keys_are_one_prompt():
    turns = [{"role": "user", "content": "hi"}, {"content": "hi", "role": "user"}]
    turns.append({"content": "hi", "role": "user", "name": None})
    responses, response_Q = Responses.of([[turn] for turn in turns], ["x"] * 3)
    assert response_Q.tolist() == [0, 0, 0]
    assert responses.messages(0) == [{"role": "user", "content": "hi"}]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text('\\u0a"{\n\u0301', max_size=8), min_size=1, max_size=3))
@example(["\\u0000", '\\\\u0000"', "e\u0301", "\u00e9", "\r\n"])
def test_texts_stay_as_they_are_and_a_chat_is_no_text(texts):
    chat = [{"role": "user", "content": text} for text in texts]
    as_text = content.canonical_chat(chat)
    responses, response_Q = Responses.of([chat, as_text, *texts], ["r"] * (len(texts) + 2))
    assert len(np.unique(responses.identity_R)) == len(responses) == len({as_text, *texts}) + 1
    assert responses.messages(0) == chat
    assert [responses.prompts[int(responses.prompt_R[q])] for q in response_Q[1:]] == [as_text, *texts]
    marked, again_Q = Responses.of([as_text, as_text], ["r", "r"], [True, False])
    assert marked.identity_R[again_Q].tolist() == responses.identity_R[response_Q[:2]].tolist()


# --- refusals


NO_TEXT = ["a\0", "\0", "\ud800", "a\udfff", None, 3, b"a", ["a"]]
NO_ID = ["", 3.5, *[bad for bad in NO_TEXT[:-1] if bad != 3]]  # a whole number is an id


@pytest.mark.parametrize("bad", NO_TEXT, ids=repr)
def test_what_is_no_text_is_refused_with_its_place(bad):
    good = ["fine", "also fine"]
    for build in (
        lambda texts: Responses.of(good, texts),
        lambda texts: from_columns(["u", "v"], good, texts, good),
        lambda texts: from_columns(["u", "v"], good, good, texts),
    ):
        with pytest.raises(InputError, match="response number 2 of 2") as caught:
            build(["fine", bad])
        assert "\n" not in str(caught.value) and "\0" not in str(caught.value)
    for prompts in (["fine", bad], ["fine", [{"role": "user", "content": bad}]]):
        if bad not in (None, 3, ["a"]):
            with pytest.raises(InputError, match="prompt"):
                Responses.of(prompts, good)


@pytest.mark.parametrize("bad", NO_ID, ids=repr)
def test_what_nobody_can_be_called_is_refused(bad):
    for build in (
        lambda: from_columns(["u", bad], ["p", "p"], ["a", "b"], ["b", "a"]),
        lambda: content.ids(["u", bad]),
    ):
        with pytest.raises(InputError, match="user id number 2 of 2"):
            build()
    with pytest.raises(InputError):
        content.one_id(bad)
    if isinstance(bad, str) and not _half(bad):
        with pytest.raises(InputError):
            Users(pl.Series(["u", bad]))


def test_pools_refuse_what_their_columns_hold():
    one = np.zeros(1, np.int32)
    for prompts, texts in ((["p\0"], ["r"]), (["p"], ["r\0"]), (["p"], [None]), ([None], ["r"])):
        with pytest.raises(InputError):
            Responses(pl.Series(prompts, dtype=pl.String), one, pl.Series(texts, dtype=pl.String))
    hidden = pl.Series([json.dumps([{"role": "user", "content": "\0"}])])
    Responses(hidden, one, pl.Series(["r"]))  # as a text it only spells the escape
    with pytest.raises(InputError, match="NUL"):
        Responses(hidden, one, pl.Series(["r"]), np.array([True]))


@pytest.mark.parametrize(
    "build, told",
    [
        (lambda: Responses.of(["p"], ["a", "b"]), "1 prompts and 2 responses"),
        (lambda: Responses.of([], ["a"]), "0 prompts and 1 responses"),
        (lambda: from_columns(["u"], ["p", "p"], ["a", "b"], ["b", "a"]), "1, 2, 2, 2"),
        (lambda: Responses.of([["hi"]], ["a"]), "chat messages"),
        (lambda: Responses.of([[{"role": {1}}]], ["a"]), "chat messages"),
        (lambda: Responses.of([[{"role": float("nan")}]], ["a"]), "chat messages"),
        (lambda: content.ids(pl.Series([1.5])), "Float64"),
    ],
)
def test_columns_that_do_not_fit_are_one_line(build, told):
    with pytest.raises(InputError, match=told):
        build()
    assert len(Responses.of([], [])[0]) == 0


# --- none gets another text's score

CHAT = [{"role": "user", "content": "P"}]
ATTACKS = [  # (prompt, response): what is safe, and what wants its score
    (("P", "I cannot help."), ("P I cannot", "help.")),
    (("P", ""), ("", "P")),
    (("P", "Say no."), ("PSay no.", "")),
    ((CHAT, "r"), (content.canonical_chat(CHAT), "r")),
    ((CHAT, "r"), (json.dumps(CHAT), "r")),
    ((CHAT, "r"), ("user: P", "r")),
    ((CHAT, "r"), ("P", "r")),
    (("P", "caf\u00e9"), ("P", "cafe\u0301")),
    (("P", "r"), ("P", "r ")),
    (("P", "r"), ("P", "r\u200b")),
    (("P", "r"), ("p", "r")),
    (("chat", "r"), ("text", "r")),
    (("5:P", "r"), ("P", "5:r")),
]


class Exact:
    """Safe is the one response to the one prompt that it knows, as its caller reads them, which is whole."""

    reads = READS

    def __init__(self, prompt, text):
        self.prompt, self.text = (content.canonical_chat(prompt) if isinstance(prompt, list) else prompt), text
        self.chat = isinstance(prompt, list)

    def score(self, responses, user_ids, response_Q=None):
        _, response_Q = resolved(responses, user_ids, response_Q)
        safe_R = [
            responses.prompts[p] == self.prompt
            and text == self.text
            and bool(responses.chat_P is not None and responses.chat_P[p]) == self.chat
            for p, text in zip(responses.prompt_R.tolist(), responses.texts_R, strict=True)
        ]
        value_Q = np.array(safe_R, float)[response_Q]
        return Scores(value_Q, np.full(len(value_Q), POPULATION, np.int8))


@pytest.mark.parametrize("safe, unsafe", ATTACKS)
def test_the_gate_lets_no_text_through_on_another_ones_score(safe, unsafe):
    bounded = Bounded(Exact(*safe), Safety(Exact(*safe)), Gate({"": 0.5}), Limits(cap=1.0))
    first, second = ([Responses.of([prompt], [text])[0] for prompt, text in order] for order in ((safe,), (unsafe,)))
    assert bounded.rank_slate(first[0], "u").best == 0, "the memory now holds the safe one's score"
    assert bounded.rank_slate(second[0], "u").abstains
    both, response_Q = Responses.of([safe[0], unsafe[0]], [safe[1], unsafe[1]])
    assert np.isfinite(bounded.score(both, ["u", "u"], response_Q)).tolist() == [True, False]


def test_explain_and_score_read_a_chat_as_a_chat(tmp_path):
    """Both commands read rows by one function; a scorer that knows the chat alone has to recognise it."""
    path = tmp_path / "asked.jsonl"
    turned = [{"content": "P", "role": "user"}]
    rows = [{"user_id": "u", "prompt": prompt, "response": "r"} for prompt in (CHAT, turned, "P", "user: P")]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    source = open_source(str(path), FileLimits())
    frame = pl.concat(rows_of(source, find_columns(str(path), source.types, ROLES, {}), FileLimits()))
    bounds = tmp_path / "bounds.toml"
    bounds.write_text("[immutable]\nsafety = 'safety'\nalpha = 0.1\n")
    bounded = Bounded(Exact(CHAT, "r"), Safety(Exact(CHAT, "r")), Gate({"": 0.5}))
    told = list(explained(read_bounds(bounds), bounded, frame))
    assert [row["returned"] for row in told] == [True, True, False, False]
    assert answers_of(Exact(CHAT, "r"), frame)["score"].to_list() == [1, 1, 0, 0]


def test_the_reward_of_a_trainer_reads_a_chat_as_a_chat():
    reward = ScorerReward(Exact(CHAT, "r"), user_column=None)
    prompts, texts = [CHAT, content.canonical_chat(CHAT), "P", CHAT], ["r", "r", "r", "r "]
    assert reward(prompts=prompts, completions=texts) == [1.0, 0.0, 0.0, 0.0]
    for user in ("", "a\0", None):
        with pytest.raises(InputError):
            ScorerReward(Exact(CHAT, "r"))(prompts=[CHAT], completions=["r"], user_id=[user])
    with pytest.raises(InputError, match="NUL"):
        reward(prompts=["P"], completions=["r\0"])


class Personal(Exact):
    """Answers in somebody's name, whoever asks."""

    def score(self, responses, user_ids, response_Q=None):
        found = super().score(responses, user_ids, response_Q)
        return Scores(found.value_Q, np.full(len(found.value_Q), PERSONAL, np.int8))


def test_a_shared_reward_in_a_persons_name_lets_nothing_through():
    known, (responses, _) = ("P", "r"), Responses.of(["P"], ["r"])
    with pytest.raises(SafetyFailed, match="person"):
        Safety(Personal(*known))(responses)
    bounded = Bounded(Personal(*known), Safety(Exact(*known)), Gate({"": 0.5}), Limits(cap=1.0))
    with pytest.raises(SafetyFailed, match="person"):
        bounded.rank_slate(responses, "u")
    with pytest.raises(SafetyFailed, match="person"):
        shared(Personal(*known), responses)
    assert shared(Exact(*known), responses).tolist() == [1.0]


@pytest.mark.parametrize("user", ["", "\0nobody", "\ud800"])
def test_the_gate_refuses_ids_that_nobody_can_have(user):
    known, (responses, _) = ("P", "r"), Responses.of(["P"], ["r"])
    bounded = Bounded(Exact(*known), Safety(Exact(*known)), Gate({"": 0.5}))
    with pytest.raises(InputError, match="user id"):
        bounded.rank_slate(responses, user)
    with pytest.raises(InputError, match="user id"):
        bounded.score(responses, [user])
    with pytest.raises(InputError, match="user id"):
        Bounded(Exact(*known), Safety(Exact(*known)), Gate({"": 0.5}), user_limits={user: Limits(cap=1.0)})
    assert bounded.rank_slate(responses, None).best == 0


def test_the_cache_on_disk_gives_no_text_another_ones_features(tmp_path):
    pairs = list(chain.from_iterable(ATTACKS))
    responses, _ = Responses.of([prompt for prompt, _ in pairs], [text for _, text in pairs])
    store, number_R1 = Store("numbers", tmp_path), np.arange(len(responses), dtype=np.float32)[:, None]
    with store.filling() as writer:
        writer.append(responses.identity_R, number_R1)
    turned = responses.take(np.arange(len(responses), dtype=np.int32)[::-1])
    index = store.index()
    assert (store.read(index, turned.identity_R, index.rows(turned.identity_R)) == number_R1[::-1]).all()
    other, _ = Responses.of(["never stored"], ["r"])
    assert index.rows(other.identity_R).tolist() == [-1]
