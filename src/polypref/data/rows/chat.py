"""TRL's preference formats: chat prompts stay chat, chat responses become text, implicit prompts are found.

https://huggingface.co/docs/trl/dataset_formats: prompt, chosen and rejected are texts ("standard") or lists of
messages ("conversational"); without a prompt column ("implicit") the prompt is what chosen and rejected share at the
start. Chats arrive as JSON text and are worked on in columns; only distinct prompts are parsed one by one.

What differs from TRL: a text prompt ends after the last ``Assistant:`` turn where there is one, else at a whole word,
so that one response is cut alike in all its pairs; TRL cuts at the first character that differs.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from polypref.comparisons import canonical_chat
from polypref.data.rows.rows import Rows

IMPLICIT_RULE = (
    "no prompt column (--columns prompt=NAME names one): what the two responses share at the start (turns, or words) "
    "is the prompt"
)
TURN = r"(?s)^(.*(?:^|\n)\s*(?:Assistant|ASSISTANT|assistant|<\|assistant\|>|\[/INST\])\s*:?)"


def is_chat(texts_N: pl.Series) -> pl.Series:
    """Which texts are JSON lists of chat messages, by their shape: a list of objects that have a role."""
    shaped = texts_N.str.contains(r"^\s*\[\s*\{").fill_null(False)
    if not shaped.any():
        return shaped
    return shaped & texts_N.str.contains(r'"role"\s*:').fill_null(False) & texts_N.str.contains(r"\}\s*\]\s*$")


def read_chats(rows: Rows, sides: Sequence[str]) -> None:
    """Set ``prompt`` (text or canonical chat JSON) and ``chat``; turn the response columns ``sides`` into text."""
    implicit = not rows.has("prompt")
    if implicit:
        rows.set(prompt=pl.Series([None] * rows.frame.height, dtype=pl.String))
    columns = ["prompt", *sides]
    for role in columns:
        marked = is_chat(rows.frame[role])
        rows.set(**{f"_{role}": marked})
        if marked.any():
            bad = pl.Series(np.zeros(rows.frame.height, bool))
            bad = bad.scatter(np.flatnonzero(marked.to_numpy()), ~are_messages(rows.frame[role].filter(marked)))
            rows.drop("broken chat", bad, role, "a JSON list of messages with a role and a text as content")
    rows.set(_prefix=pl.Series([None] * rows.frame.height, dtype=pl.String))
    any_chat = np.logical_or.reduce([rows.frame[f"_{role}"].to_numpy() for role in sides])
    if any_chat.any():
        _split_chats(rows, sides, any_chat)
    if implicit and len(sides) == 2 and not any_chat.all():
        _split_texts(rows, sides, ~any_chat)
    _join_prompts(rows)


def json_lists(texts_N: pl.Series) -> tuple[pl.Series, NDArray[np.bool_]]:
    """JSON lists as lists of texts (inner objects stay JSON), and which texts are JSON lists; the others give null."""
    flat = texts_N.str.replace_all(r"[\r\n]", " ")  # raw line ends can only stand between JSON tokens
    good = np.ones(len(flat), bool)
    lines = '{"v":' + flat + "}"
    try:
        return _list_column(lines), good
    except pl.exceptions.PolarsError:
        good = np.array([_is_json_list(text) for text in flat], bool)
    found = pl.Series("v", [None] * len(flat), dtype=pl.List(pl.String))
    if good.any():
        places = pl.DataFrame({"i": np.flatnonzero(good), "v": _list_column(lines.filter(pl.Series(good)))})
        found = pl.DataFrame({"i": np.arange(len(flat))}).join(places, on="i", how="left", maintain_order="left")["v"]
    return found, good


def _list_column(lines: pl.Series) -> pl.Series:
    block = "\n".join(lines).encode()
    return pl.read_ndjson(block, schema={"v": pl.List(pl.String)})["v"]


def _is_json_list(text: str | None) -> bool:
    try:
        return isinstance(json.loads(text or ""), list)
    except ValueError:
        return False


def are_messages(json_N: pl.Series) -> pl.Series:
    """Which JSON texts are lists of messages: objects with a role, whose content is a text, text parts or absent."""
    lists, good = json_lists(json_N)
    each = pl.DataFrame({"i": np.arange(len(lists)), "m": lists}).explode("m").drop_nulls("m")
    content = each["m"].str.json_path_match("$.content").fill_null("")
    nested = each["m"].str.contains(r'[^\\]"content":\s*[\[{]')  # parts: all of them must be texts
    fine = each["m"].str.starts_with("{") & each["m"].str.json_path_match("$.role").is_not_null()
    parts = ~nested | (content.str.starts_with("[") & ~content.str.contains(r'"type":\s*"(image|audio|video|file)'))
    broken = each["i"].filter(~(fine & parts)).unique().to_numpy()
    ok = good & (lists.list.len().fill_null(0) > 0).to_numpy()
    ok[broken] = False
    return pl.Series(ok)


def _split_chats(rows: Rows, sides: Sequence[str], any_chat: NDArray[np.bool_]) -> None:
    """The shared messages of chat responses to ``_prefix``, the rest of each to text."""
    at = np.flatnonzero(any_chat)
    part = rows.frame[at]
    both = np.logical_and.reduce([part[f"_{role}"].to_numpy() for role in sides])
    chats = part.select(pl.when(f"_{role}").then(role).otherwise(pl.lit("[]")).alias(role) for role in sides)
    lists = {role: json_lists(chats[role])[0] for role in sides}
    shared = _shared_messages([lists[role] for role in sides]) * both
    frame = pl.DataFrame({"k": shared, **lists})
    prefix = pl.lit("[") + pl.col(sides[0]).list.head(pl.col.k).list.join(",") + pl.lit("]")
    prefix = frame.select(pl.when(pl.col.k > 0).then(prefix)).to_series()
    rows.set(_prefix=rows.frame["_prefix"].scatter(at, prefix))
    for role in sides:
        text = message_text(frame.select(pl.col(role).list.slice(pl.col.k)).to_series())
        text = pl.select(pl.when(part[f"_{role}"]).then(text).otherwise(part[role])).to_series()
        rows.set(**{role: rows.frame[role].scatter(at, text)})


def _shared_messages(lists: Sequence[pl.Series]) -> NDArray[np.int64]:
    """How many first messages the lists of each row share, one message left to each; of a single list: all but one."""
    sizes = np.min([one.list.len().to_numpy() for one in lists], axis=0).astype(np.int64)
    most = np.maximum(sizes - 1, 0)
    if len(lists) == 1:
        return most
    whole = pl.DataFrame({"i": np.arange(len(most)), "most": most, "a": lists[0], "b": lists[1]})
    heads = whole.select("i", "most", pl.col("a", "b").list.head(pl.col.most))
    each = heads.filter(pl.col.most > 0).explode("a", "b").group_by("i")
    same = each.agg(n=(pl.col.a == pl.col.b).cast(pl.Int64).cum_prod().sum())
    return heads.join(same, on="i", how="left", maintain_order="left")["n"].fill_null(0).to_numpy()


def message_text(lists: pl.Series) -> pl.Series:
    """The text of each row's messages: the content of a single one, ``role: content`` lines of several."""
    each = pl.DataFrame({"i": np.arange(len(lists)), "n": lists.list.len(), "m": lists}).explode("m")
    content = each["m"].str.json_path_match("$.content").fill_null("")
    nested = each["m"].str.contains(r'[^\\]"content":\s*\[').fill_null(False)
    if nested.any():
        parts = content.filter(nested).unique()
        joined = content.replace_strict(parts, [_parts_text(text) for text in parts], default="")
        content = pl.select(pl.when(nested).then(joined).otherwise(content)).to_series()
    each = each.with_columns(
        text=pl.when(pl.col.n > 1).then(each["m"].str.json_path_match("$.role") + ": " + content).otherwise(content)
    )
    texts = each.group_by("i").agg(pl.col.text.str.join("\n"))
    whole = pl.DataFrame({"i": np.arange(len(lists))})
    return whole.join(texts, on="i", how="left", maintain_order="left")["text"].fill_null("")


def _parts_text(parts: str) -> str:
    return "".join(str(part.get("text", "")) for part in json.loads(parts))


def _split_texts(rows: Rows, sides: Sequence[str], plain: NDArray[np.bool_]) -> None:
    """Implicit prompts of texts: cut what both responses share at the start."""
    at = np.flatnonzero(plain)
    a, b = (rows.frame[role][at].fill_null("") for role in sides)
    shared = shared_start(a, b)
    frame = pl.DataFrame({"a": a, "b": b, "head": a.str.head(pl.Series(shared))}).with_columns(
        turn=pl.col.head.str.extract(TURN), words=pl.col.head.str.extract(r"(?s)^(.*\S)\s")
    )
    whole = pl.col.head.str.len_chars() == pl.min_horizontal(pl.col.a.str.len_chars(), pl.col.b.str.len_chars())
    next_is_space = pl.col.a.str.slice(pl.col.head.str.len_chars(), 1).str.contains(r"^\s")
    words = pl.when(next_is_space & ~whole).then("head").otherwise("words")
    prompt = pl.when(pl.col.a == pl.col.b).then(None).otherwise(pl.coalesce("turn", words)).fill_null("")
    frame = frame.with_columns(prompt=prompt)
    rows.set(prompt=rows.frame["prompt"].scatter(at, frame["prompt"]))
    for role, side in zip(sides, ("a", "b"), strict=True):
        rest = frame.select(pl.col(side).str.slice(pl.col.prompt.str.len_chars())).to_series()
        rows.set(**{role: rows.frame[role].scatter(at, rest)})


def shared_start(a: pl.Series, b: pl.Series) -> NDArray[np.int64]:
    """Number of characters that each two texts share at the start, by bisection over all rows at once."""
    low = np.zeros(len(a), np.int64)
    high = np.minimum(a.str.len_chars().to_numpy(), b.str.len_chars().to_numpy()).astype(np.int64)
    while (low < high).any():
        middle = (low + high + 1) // 2
        same = (a.str.head(pl.Series(middle)) == b.str.head(pl.Series(middle))).to_numpy()
        low, high = np.where(same, middle, low), np.where(same, high, middle - 1)
    return low


def _join_prompts(rows: Rows) -> None:
    """Explicit prompts and shared prefixes to one prompt; chats in canonical form."""
    keys = ["prompt", "_prompt", "_prefix"]
    wanted = rows.frame["_prompt"] | rows.frame["_prefix"].is_not_null()
    if not wanted.any():
        rows.set(chat=wanted)
        return
    distinct = rows.frame.filter(wanted).select(keys).unique()
    joined = [join_prompt(*row) for row in distinct.iter_rows()]
    distinct = distinct.with_columns(
        _joined=pl.Series([text for text, _ in joined], dtype=pl.String),
        chat=pl.Series([chat for _, chat in joined], dtype=pl.Boolean),
    )
    rows.frame = rows.frame.join(distinct, on=keys, how="left", nulls_equal=True, maintain_order="left").with_columns(
        prompt=pl.coalesce("_joined", "prompt"), chat=pl.col.chat.fill_null(False)
    )


def join_prompt(prompt: str | None, prompt_is_chat: bool, prefix: str | None) -> tuple[str, bool]:
    """One prompt from an explicit one and the messages that the responses share: ``(text, is it chat?)``.

    A prefix that repeats the explicit prompt, as in sets whose responses are whole conversations, is not added again.
    """
    before = _messages(prompt) if prompt_is_chat and prompt else []
    shared = _messages(prefix) if prefix else []
    if prompt and not prompt_is_chat:
        if not shared or (len(shared) == 1 and shared[0].get("content") == prompt):
            return prompt, False
        if all(message.get("content") != prompt for message in shared):
            before = [{"role": "user", "content": prompt}]
    if shared[: len(before)] == before:
        before = []
    return canonical_chat([*before, *shared] if shared else _messages(prompt)), True


def _messages(text: str | None) -> list[dict[str, Any]]:
    """Messages without keys whose value is null: Parquet fills absent keys with null, JSON does not."""
    return [{k: v for k, v in message.items() if v is not None} for message in json.loads(text or "[]")]
