"""Counts and times for Prometheus, by route and by who answered; never by user.

With several workers each writes its counts into a folder that is named in ``FOLDER`` before the process begins, and
whoever is asked adds them up.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from polypref.serve.core import Answer
from polypref.serve.dialects.rewards import Given
from polypref.serve.running.limits import Limits

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)  # seconds
SLOW = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)  # seconds that a model may write
FOLDER = "PROMETHEUS_MULTIPROC_DIR"


class Metrics:
    """Counters since the process began."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._answers = self._counter("answers", "Answers given.", ["route", "source"])
        self._blocked = self._counter("blocked_texts", "Texts that the bounds held back.", ["route"])
        self._abstained = self._counter("abstentions", "Answers of which every text was blocked.", ["route"])
        self._judged = self._counter("judgements", "Judgements acknowledged.", ["kind", "seen"])
        self._not_stored = self._counter("answers_not_stored", "Answers given that the store could not keep.", [])
        self._candidates = self._counter("upstream_candidates", "Candidates asked for, given and different.", ["what"])
        self._wrote = Histogram(
            "polypref_upstream_seconds", "Time of the upstream.", ["outcome"], buckets=SLOW, registry=self._registry
        )
        self._requests = self._counter("requests", "Requests, by the route as it is declared.", ["route", "status"])
        self._refused = self._counter("refused", "Requests beyond a limit.", ["limit"])
        self._lost = self._gauge("log_lines_lost", "Lines of the log that could not be written.", "livesum")
        self._in_hand = self._gauge("requests_in_hand", "Requests that wait for their answer.", "livesum")
        self._limits = self._gauge(
            "limit", "Limits in force (polypref serve --request-limits); 0: none.", "livemax", ["limit"]
        )
        self._took = Histogram(
            "polypref_answer_seconds", "Time to answer.", ["route"], buckets=BUCKETS, registry=self._registry
        )

    def _counter(self, name: str, what: str, labels: list[str]) -> Counter:
        return Counter(f"polypref_{name}", what, labels, registry=self._registry)

    def _gauge(
        self, name: str, what: str, mode: Literal["livesum", "livemax"], labels: list[str] | None = None
    ) -> Gauge:
        """``mode``: what becomes of the values of several workers."""
        return Gauge(f"polypref_{name}", what, labels or (), registry=self._registry, multiprocess_mode=mode)

    def bounded(self, limits: Limits) -> None:
        """The limits in force."""
        for name, value in asdict(limits).items():
            self._limits.labels(name).set(value)

    def requested(self, route: str, status: int) -> None:
        """A request that ended."""
        self._requests.labels(route, str(status)).inc()

    def refused(self, limit: str) -> None:
        """A request that is beyond a limit."""
        self._refused.labels(limit).inc()

    def in_hand(self, many: int) -> None:
        """So many requests wait for their answer."""
        self._in_hand.set(many)

    def lost_lines(self, many: int) -> None:
        """So many lines of the log were lost."""
        self._lost.set(many)

    def answered(self, route: str, answer: Answer, seconds: float) -> None:
        """An answer by this route, and how long it took."""
        self._answers.labels(route, answer.source).inc()
        self._blocked.labels(route).inc(len(answer.blocked))
        self._abstained.labels(route).inc(not answer.order)
        self._took.labels(route).observe(seconds)

    def rewarded(self, route: str, given: Sequence[Given], seconds: float) -> None:
        """Rewards of single texts by this route, and how long they took together."""
        for answer in {one.answer.request: one.answer for one in given}.values():
            self._answers.labels(route, answer.source).inc()
        self._blocked.labels(route).inc(sum(one.blocked for one in given))
        self._took.labels(route).observe(seconds)

    def judged(self, kind: str, new: bool) -> None:
        """A judgement that was acknowledged."""
        self._judged.labels(kind, "new" if new else "again").inc()

    def not_stored(self) -> None:
        """An answer whose id cannot be judged by."""
        self._not_stored.inc()

    def upstream(self, outcome: str, candidates: Mapping[str, int], seconds: float) -> None:
        """The upstream answered, failed, was slow, refused, or was abandoned by the client."""
        for what, count in candidates.items():  # asked, given, different
            self._candidates.labels(what).inc(count)
        self._wrote.labels(outcome).observe(seconds)

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        if FOLDER not in os.environ:
            return generate_latest(self._registry)
        every = CollectorRegistry()
        MultiProcessCollector(every)
        return generate_latest(every)


def ended(process: int) -> None:
    """A worker is gone: what it had in hand counts no more."""
    mark_process_dead(process)
