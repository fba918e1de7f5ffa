"""Label Studio's ML backend: ``/predict``, ``/setup``, ``/webhook``; ``/health`` is an operator's route.

Projects compare two texts with ``<Pairwise>``. A task's prediction is the side that the person who is named (in the
backend's address, ``/u/USER``) prefers, of those that the bounds allow; everything blocked: no prediction.

A pairwise annotation is a judgement of the user ``completed_by`` (its number, as a text), named by the annotation's id:
sent again it is stored once, updated it replaces the earlier one, deleted or cancelled it is taken back. An older
version of an annotation (``updated_at``) than the stored one changes nothing. A request that is made for no user may
change the annotation's author. What was stored by a request that was made for one user, by their key, say, is theirs
alone: such a request neither sees nor changes annotations of others, nor is it in their way.

Which texts are compared is read from the labelling configuration: the two names in ``toName``, and as the prompt the
text called "prompt", or else the only other one.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import msgspec
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from polypref import content
from polypref.errors import InputError
from polypref.serve.core import MOST_TEXTS, Answer, Core
from polypref.serve.dialects import tei, turns
from polypref.serve.store.contract import Judgement, Person, reading
from polypref.serve.who.requests import person_of

SIDES = ("left", "right")
NAMED = "label-studio-{}"  # the judgement of an annotation
SOURCE = "label-studio"
ALONE = "for_one_user"  # in the context of what a request stored that was made for one user
CHANGED = ("ANNOTATION_CREATED", "ANNOTATIONS_CREATED", "ANNOTATION_UPDATED")
LONGEST = 100_000  # characters of a configuration
DELETED = ("ANNOTATION_DELETED", "ANNOTATIONS_DELETED")


class _Lenient(BaseModel):
    """Fields that are read are checked; others are ignored."""

    model_config = ConfigDict(extra="ignore")


class Task(_Lenient):
    """A task: its fields, such as the prompt and both texts."""

    id: int | None = None
    data: dict[str, Any]


class Predict(_Lenient):
    """The body of ``/predict``."""

    tasks: list[Task]
    label_config: str
    model_version: str | None = None


class Setup(_Lenient):
    """The body of ``/setup``; ``schema`` is the labelling configuration."""

    configuration: str = Field(alias="schema")


class Result(_Lenient):
    """One part of an annotation."""

    type: str | None = None
    value: dict[str, Any] = Field(default_factory=dict)


class Annotation(_Lenient):
    """An annotation, or only its id where it was deleted."""

    id: int
    completed_by: int | str | dict[str, Any] | None = None
    result: list[Result] = Field(default_factory=list)
    was_cancelled: bool | None = False
    lead_time: float | None = Field(None, ge=0, allow_inf_nan=False)
    updated_at: str | None = None
    task: Any = None


class Project(_Lenient):
    """The project of a webhook."""

    label_config: str | None = None


class Webhook(_Lenient):
    """The body of ``/webhook``: what happened, and to which annotations."""

    action: str
    annotation: Annotation | list[Annotation] | None = None
    annotations: list[Annotation] | None = None
    task: Task | list[Task] | None = None
    project: Project | None = None

    @property
    def changed(self) -> list[Annotation]:
        """All annotations that are named. Raises InputError where the webhook carries none."""
        given = [one for one in (self.annotation, self.annotations) if one is not None]
        if not given:
            raise InputError("the webhook carries no annotation; switch its payload on in Label Studio.")
        return [one for some in given for one in (some if isinstance(some, list) else [some])]


@dataclass(frozen=True)
class Compared:
    """The parts of a configuration: name of the control, names of both texts, and the fields of tasks they show."""

    control: str
    sides: tuple[str, str]
    fields: tuple[str, str]
    prompt: str | None

    @classmethod
    def of(cls, configuration: str) -> Compared:
        """What a labelling configuration compares. Raises InputError where it has no ``<Pairwise>`` of two texts."""
        if len(configuration) > LONGEST:
            raise InputError(f"the labelling configuration has more than {LONGEST:,} characters; expected fewer.")
        if "<!" in configuration.replace("<!--", ""):
            raise InputError("the labelling configuration has a declaration; expected tags alone.")
        try:
            tags = list(ElementTree.fromstring(configuration).iter())
        except ElementTree.ParseError as error:
            raise InputError(f"the labelling configuration is no XML: {error}.") from None
        control = next((tag for tag in tags if tag.tag == "Pairwise"), None)
        sides = (control.get("toName", "") if control is not None else "").split(",")
        shown = {
            tag.get("name") or f"#{at}": value[1:]
            for at, tag in enumerate(tags)
            if (value := tag.get("value", "")).startswith("$")
        }
        if control is None or len(sides) != 2 or not all(side in shown for side in sides):
            raise InputError('the labelling configuration has no <Pairwise toName="one,other"> of two texts.')
        others = {name: field for name, field in shown.items() if name not in sides}
        named = [field for name, field in others.items() if "prompt" in (name, field)]
        prompt = named[0] if named else next(iter(others.values())) if len(others) == 1 else None
        return cls(control.get("name", ""), (sides[0], sides[1]), (shown[sides[0]], shown[sides[1]]), prompt)

    def texts(self, task: Task) -> tuple[str, str, str]:
        """Prompt and both texts of a task; without a prompt in the configuration it is empty. Raises InputError."""
        found = {name: task.data.get(name) for name in (self.prompt, *self.fields) if name is not None}
        for name, text in found.items():
            if not isinstance(text, str):
                raise InputError(f"task {task.id} has no text {name!r}, which the labelling configuration shows.")
        prompt = "" if self.prompt is None else str(found[self.prompt])
        return prompt, str(found[self.fields[0]]), str(found[self.fields[1]])


async def predicted(core: Core, person: Person, body: Predict) -> tuple[Any, list[Answer]]:
    """The answer to ``/predict``, and the ranks that it was made of."""
    compared = Compared.of(body.label_config)
    if 2 * len(body.tasks) > MOST_TEXTS:
        raise InputError(f"{len(body.tasks)} tasks of two texts; expected at most {MOST_TEXTS} texts.")
    asked = [compared.texts(task) for task in body.tasks]
    turns.refuse_long([text for one in asked for text in one])
    answers = await asyncio.gather(*(core.rank(person, one[0], one[1:], "label-studio") for one in asked))
    return {"results": [_prediction(compared, one) for one in answers], "model_version": core.scorer_hash[:16]}, answers


def _prediction(compared: Compared, answer: Answer) -> dict[str, Any]:
    about = {"model_version": answer.scorer[:16]}
    if not answer.order:
        return {**about, "score": 0.0, "result": []}
    best = answer.order[0]
    value = {"selected": SIDES[best]}
    result = {"id": answer.request[:10], "type": "pairwise", "from_name": compared.control, "value": value}
    return {
        **about,
        "score": answer.relevance[best],
        "result": [{**result, "to_name": ",".join(compared.sides)}],
    }


def judgement_of(annotation: Annotation, task: Task, compared: Compared) -> Judgement | None:
    """The judgement that an annotation states; None where it states none: cancelled, or no side selected.

    Raises InputError.
    """
    if annotation.was_cancelled:
        return None
    chosen = [one.value.get("selected") for one in annotation.result if one.type == "pairwise"]
    if len(chosen) != 1 or chosen[0] not in SIDES:
        return None
    prompt, *texts = compared.texts(task)
    at = SIDES.index(chosen[0])
    if texts[0] == texts[1]:
        raise InputError(f"both texts of task {task.id} are the same.")
    content.texts([prompt, *texts], "text")
    context = {"seconds": annotation.lead_time, "updated_at": annotation.updated_at, "source": SOURCE}
    return Judgement(
        id=NAMED.format(annotation.id),
        kind="pair",
        prompt=prompt,
        chosen=texts[at],
        rejected=texts[1 - at],
        context={name: value for name, value in context.items() if value is not None},
    )


async def kept(core: Core, person: Person, annotation: Annotation, judgement: Judgement | None, own: bool) -> str:
    """Store, replace or take back the judgement of an annotation; what became of it.

    ``own``: the request was made for this person alone.
    """
    name = NAMED.format(annotation.id)
    known = await _known(core, person, name, own)
    stored_at = max((one.context.get("updated_at", "") for _, one in known), default="")
    if annotation.updated_at is not None and annotation.updated_at < stored_at:
        return "older than what is stored"
    if judgement is None:
        for whose, _ in known:
            await asyncio.wrap_future(core.store.undo(whose, name))
        return "taken back" if known else "nothing to keep"
    if own:
        judgement = msgspec.structs.replace(judgement, context={**judgement.context, ALONE: True})
    new = await asyncio.wrap_future(core.store.replace(person, judgement))
    for whose, _ in (await _known(core, person, name, own))[:-1]:  # also of those that were sent meanwhile
        await asyncio.wrap_future(core.store.undo(whose, name))
    return "stored" if new else "stored before"


async def _known(core: Core, person: Person, name: str, own: bool) -> list[tuple[Person, Judgement]]:
    """The judgements of an annotation that a request may change, oldest first: the person's, and where it is made for
    no user also those of other such requests."""
    found = [(whose, one.judgement) for whose, one in await reading(core.store, core.store.made, person.tenant, name)]
    return [(whose, one) for whose, one in found if whose == person or not (own or _is_alone(one))]


def _is_alone(judgement: Judgement) -> bool:
    """Whether only its person's requests may change it: it is no annotation, or was sent for this user."""
    return judgement.context.get("source") != SOURCE or ALONE in judgement.context


def _annotator(annotation: Annotation) -> str | None:
    """The id of who annotated, as a text."""
    who = annotation.completed_by
    if isinstance(who, dict):
        who = who.get("id")
    return None if who is None else str(who)


async def _webhook(request: Request, body: Webhook) -> list[str]:
    """What became of each annotation of a webhook."""
    core: Core = request.app.state.core
    asks = person_of(request)
    own = asks.user is not None
    if body.action in DELETED:
        return [await kept(core, asks, one, None, own) for one in body.changed]
    configuration = body.project.label_config if body.project is not None else None
    if configuration is None or body.task is None:
        raise InputError("expected a project with its label_config, and the task, beside the annotation.")
    compared = Compared.of(configuration)
    tasks = body.task if isinstance(body.task, list) else [body.task]
    by_id = {task.id: task for task in tasks}
    found = []
    for one in body.changed:
        task = tasks[0] if len(tasks) == 1 else by_id.get(one.task)
        person = person_of(request, also=[_annotator(one)])
        if task is None or person.user is None:
            raise InputError(f"annotation {one.id} has no task in the webhook, or no completed_by.")
        judgement = judgement_of(one, task, compared)
        found.append(await kept(core, person, one, judgement, own))
        if found[-1].startswith("stored"):
            request.app.state.metrics.judged("pair", found[-1] == "stored")
    return found


def routes(app: FastAPI) -> None:
    """Add the routes of an ML backend; ``/predict`` with ``inputs`` is TEI's."""

    @app.post("/predict")
    async def predict(request: Request, body: dict[str, Any]) -> Any:
        begun, core = time.perf_counter(), app.state.core
        request.state.tei = "inputs" in body
        if request.state.tei:
            asked = _read(tei.Predict, body)
            found, given = await tei.predicted(core, person_of(request, asked), asked)
            app.state.metrics.rewarded("predict", given, time.perf_counter() - begun)
            return JSONResponse(found)
        found, answers = await predicted(core, person_of(request), _read(Predict, body))
        for answer in answers:
            app.state.metrics.answered("predict", answer, time.perf_counter() - begun)
        return JSONResponse(found)

    @app.post("/setup")
    async def setup(request: Request, body: Setup) -> Any:
        person_of(request)
        Compared.of(body.configuration)
        return {"model_version": app.state.core.scorer_hash[:16]}

    @app.post("/webhook", status_code=201, responses={200: {"description": "Nothing was to be done."}})
    async def webhook(request: Request, body: Webhook) -> Any:
        if body.action not in CHANGED + DELETED:
            person_of(request)
            return JSONResponse({"status": "ok", "result": "nothing to do"}, 200)
        return {"status": "ok", "result": await _webhook(request, body)}


def _read(kind: type[Any], body: dict[str, Any]) -> Any:
    """A body of this kind. Raises InputError."""
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{where}: {first['msg']}") from None
