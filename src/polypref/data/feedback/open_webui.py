"""Open WebUI: ratings of answers, with the whole chat as it was.

The export of all feedback (Admin Panel, Evaluations, Feedbacks, Export) and exports of chats, whose messages carry
their ratings. ``user_id`` is the end user. A chat is a tree: answers with one parent are siblings, from an arena, from
several models at once, or generated again. A rated answer is compared with each sibling:

    both rated      the higher detailed rating (1 to 10) is preferred if both have one, else the better thumb
    only one rated  +1: it is preferred to the others, -1: they are preferred to it, as in Open WebUI's leaderboard

Equal ratings of two siblings say nothing. An answer without siblings is a like or a dislike. The prompt is the chat up
to the question. Not covered: answers that somebody edited before the rating was given stand as they were edited.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from polypref.data.feedback.joined import FORMS
from polypref.data.feedback.judgements import SAME, Judgements, as_value, finished, time_of
from polypref.data.feedback.records import Export, Record, get, id_of
from polypref.data.feedback.signs import refusal
from polypref.data.feedback.texts import answer_of, prompt_of
from polypref.data.files.limits import Limits
from polypref.data.published.rows import Converted, one_of
from polypref.wording import counted

Messages = Mapping[str, Mapping[str, Any]]
NO_CHAT = "no chat with the message"
NO_RATING = "no rating"
NOT_RATING = "of another type than a rating"
OTHER_SCALE = "a rating that is no thumb, among thumbs"


@dataclass(frozen=True)
class Rated:
    """One rating. ``siblings`` are the other answers to the question, by message, with the ratings in this chat."""

    number: int
    id: str
    user: str
    chat: str
    message: str
    prompt: str
    answer: str
    thumb: float
    detail: float | None
    siblings: tuple[tuple[str, str], ...]
    time: str | None
    edited: bool


@dataclass(frozen=True, kw_only=True)
class OpenWebUI:
    """Ratings of end users. ``form``: pairs, or single for likes and dislikes of answers without a sibling."""

    form: str = ""

    def __post_init__(self) -> None:
        one_of("form of feedback", self.form, FORMS)

    def convert(self, paths: Sequence[str], limits: Limits | None = None) -> Converted:
        """Raises InputError for files of another product, NotEnoughData if nothing is left."""
        export = Export(paths, limits)
        found = Judgements()
        last: dict[str, Rated] = {}
        seen = False
        for record in export:
            if record is None or not (_is_feedback(record) or _is_chat(record)):
                found.next()
                found.leave("neither feedback nor a chat")
                continue
            seen = True
            for one in [record] if _is_feedback(record) else _in_chat(record):
                rated = _rated(one, found)
                if rated is not None:
                    _keep(rated, last, found)
        if not seen:
            raise refusal(export, "open-webui", "feedback")
        rated = list(last.values())
        _compare(rated, found)
        edited = sum(one.edited for one in rated)
        remarks = [f"{counted(edited, 'rated answers')} had been edited; the text is the edited one"] * bool(edited)
        return finished("Open WebUI, end users", found, self.form, remarks)


def _is_feedback(record: Record) -> bool:
    return isinstance(record.get("data"), Mapping) and any(name in record for name in ("snapshot", "meta"))


def _is_chat(record: Record) -> bool:
    return isinstance(get(record, "chat.history.messages"), Mapping)


def _in_chat(record: Record) -> Iterator[Record]:
    """The ratings that stand at the messages of a chat, as the records that the other export has of them."""
    messages: Messages = get(record, "chat.history.messages") or {}
    for key, message in messages.items():
        if isinstance(message, Mapping) and get(message, "annotation.rating") is not None:
            yield {
                "id": f"{record.get('id')} {key}",
                "user_id": record.get("user_id"),
                "type": "rating",
                "data": message["annotation"],
                "meta": {"chat_id": record.get("id"), "message_id": key},
                "snapshot": {"chat": record},
                "updated_at": get(message, "timestamp"),
            }


def _rated(record: Record, found: Judgements) -> Rated | None:
    """A record's rating; None if it was left out."""
    number = found.next()
    if get(record, "type") not in (None, "rating"):
        found.leave(NOT_RATING)
        return None
    thumb = as_value(get(record, "data.rating"))
    if thumb is None:
        found.leave(NO_RATING)
        return None
    user = id_of(get(record, "user_id", "user.id"))
    messages = get(record, "snapshot.chat.chat.history.messages", "snapshot.chat.history.messages")
    key = id_of(get(record, "meta.message_id"))
    message = messages.get(key) if isinstance(messages, Mapping) and key is not None else None
    if not isinstance(message, Mapping):
        found.leave(NO_CHAT)
        return None
    assert key is not None and isinstance(messages, Mapping)
    prompt, answer = prompt_of(_before(messages, message)), answer_of(message.get("content"))
    if found.lacking(user, prompt, answer):
        return None
    original = message.get("originalContent")
    return Rated(
        number=number,
        id=id_of(get(record, "id")) or f"record {number}",
        user=str(user),
        chat=id_of(get(record, "meta.chat_id", "snapshot.chat.id")) or str(number),
        message=key,
        prompt=str(prompt),
        answer=str(answer),
        thumb=thumb,
        detail=as_value(get(record, "data.details.rating", "data.detail_rating")),
        siblings=tuple(_siblings(messages, key, message)),
        time=time_of(get(record, "updated_at", "created_at")),
        edited=isinstance(original, str) and original != message.get("content"),
    )


def _before(messages: Messages, message: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The messages above an answer, the first one first. A chain that runs in a circle ends where it closes."""
    chain: list[dict[str, Any]] = []
    seen: set[str] = set()
    parent = message.get("parentId")
    while isinstance(parent, str) and parent not in seen and isinstance(messages.get(parent), Mapping):
        seen.add(parent)
        above = messages[parent]
        chain.append({"role": above.get("role"), "content": above.get("content")})
        parent = above.get("parentId")
    return chain[::-1]


def _siblings(messages: Messages, key: str, message: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The other answers under the same question that are still there, in the order of the question's children."""
    parent = messages.get(str(message.get("parentId")))
    children = parent.get("childrenIds") if isinstance(parent, Mapping) else None
    listed = [one for one in children if isinstance(one, str)] if isinstance(children, list) else []
    unlisted = [one for one, other in messages.items() if _parent(other) == message.get("parentId")]
    for one in dict.fromkeys([*listed, *unlisted]) if parent is not None else ():
        other = messages.get(one)
        if one != key and isinstance(other, Mapping) and other.get("role") == "assistant":
            text = answer_of(other.get("content"))
            if text and text.strip() and not other.get("error"):
                yield one, text


def _parent(message: Any) -> Any:
    return message.get("parentId") if isinstance(message, Mapping) else None


def _keep(rated: Rated, last: dict[str, Rated], found: Judgements) -> None:
    """Keep the latest rating of an answer by a person; one record may be in several exports, or be sent again."""
    key = f"{rated.user}\0{rated.chat}\0{rated.message}"
    before = last.get(key)
    if before is not None:
        found.replaced(same=before.id == rated.id and before.time == rated.time)
        if before.time is not None and rated.time is not None and rated.time < before.time:
            return
        del last[key]
    last[key] = rated


def _compare(rated: Sequence[Rated], found: Judgements) -> None:
    """Comparisons with siblings; ratings without one are values of single answers."""
    at = {(one.user, one.chat, one.message): one for one in rated}
    thumbs = any(abs(one.thumb) == 1 for one in rated)
    done: set[tuple[str, str, frozenset[str]]] = set()
    used: set[int] = set()
    for one in rated:
        for key, text in one.siblings:
            other = at.get((one.user, one.chat, key))
            pair = (one.user, one.chat, frozenset((one.message, key)))
            gap = _gap(one, other)
            if not gap or pair in done:
                continue
            better, worse = (one.answer, text) if gap > 0 else (text, one.answer)
            if found.pair(one.number, one.user, one.prompt, better, worse, pair_id=one.id, timestamp=one.time):
                done.add(pair)
                both = {one.number} | ({other.number} if other is not None else set())
                found.partners |= both
                used |= both
    for one in rated:
        if one.number in used:
            continue
        if thumbs and abs(one.thumb) != 1:
            found.leave(OTHER_SCALE)
        elif any(_gap(one, at.get((one.user, one.chat, key))) for key, _ in one.siblings):
            found.leave(SAME)
        else:
            found.value(one.number, (one.user, one.prompt, one.answer), "rating", one.thumb, one.time)


def _gap(one: Rated, other: Rated | None) -> float:
    """How much higher an answer is rated than a sibling; 0 where the ratings say nothing."""
    if other is None:
        return one.thumb if abs(one.thumb) == 1 else 0.0
    if one.detail is not None and other.detail is not None and one.detail != other.detail:
        return one.detail - other.detail
    return one.thumb - other.thumb
