"""Figures as data: paths in a stretchable SVG plane, ticks as percentages. The template turns them into markup.

The plane is drawn with ``preserveAspectRatio="none"`` and strokes that do not scale; the tick labels are ordinary HTML
beside it. So a figure fills any width, from a phone to a print-out, with text at its natural size. It follows light and
dark mode through CSS, needs no JavaScript, and takes about 25 bytes per user. A dot is a zero-length stroke with round
caps.

Nothing is measured here. The only summary drawn is the mean line through the users of ``amounts``, over groups of about
equally many users.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from polypref import wording

HEIGHT = 1000  # of the plane, in its own units
MEANS_FROM = 20  # users; with fewer, a mean line would join single people
VERDICTS = ("untested", "unclear", "worse", "better")  # drawn in this order, so that the few that matter are on top


@dataclass(frozen=True)
class Tick:
    """A label at ``at`` percent of an axis, from its lower or left end."""

    at: float
    text: str


@dataclass(frozen=True)
class Layer:
    """One SVG path and the CSS class that paints it."""

    kind: str
    path: str


@dataclass(frozen=True)
class Axis:
    """Maps [lo, hi] to [0, 100] percent; logarithmic where ``log``."""

    lo: float
    hi: float
    log: bool = False

    def percent(self, value: float) -> float:
        lo, hi, at = (math.log(v) for v in (self.lo, self.hi, value)) if self.log else (self.lo, self.hi, value)
        return round(100 * (at - lo) / (hi - lo), 2)

    def plane(self, values: Sequence[float] | NDArray, size: int) -> NDArray[np.int64]:
        """Values as whole plane units, clipped to the plane."""
        at, lo, hi = np.asarray(values, float), self.lo, self.hi
        if self.log:
            at, lo, hi = np.log(at), math.log(lo), math.log(hi)
        return np.rint(np.clip((at - lo) / (hi - lo), 0, 1) * size).astype(np.int64)

    def height(self, values: Sequence[float] | NDArray) -> NDArray[np.int64]:
        """Values as heights from the top, which is how SVG counts."""
        return HEIGHT - self.plane(values, HEIGHT)

    def ticks(self, signed: bool = False, scale: float = 1) -> tuple[Tick, ...]:
        """Round values inside the axis, about five of them, printed ``scale`` times as large."""
        if self.log:
            return tuple(Tick(self.percent(v), f"{v:,}") for v in log_steps(self.lo, self.hi))
        step = nice_step((self.hi - self.lo) / 5)
        digits = next(d for d in range(9) if abs(round(step * scale, d) - step * scale) < 1e-9)
        values = np.arange(math.ceil(self.lo / step - 1e-9), math.floor(self.hi / step + 1e-9) + 1) * step
        write = wording.signed if signed else wording.number
        labels = ["0" if abs(v) < step / 2 else write(float(v * scale), digits) for v in values]
        return tuple(Tick(self.percent(v), label) for v, label in zip(values, labels, strict=True))


class Point(NamedTuple):
    """A value measured at a training size, with its interval where that is known."""

    size: int
    value: float
    lo: float | None
    hi: float | None


@dataclass(frozen=True)
class Figure:
    """A plane ``width`` x HEIGHT with its layers, its axes and a text alternative."""

    alt: str
    layers: tuple[Layer, ...]
    x_ticks: tuple[Tick, ...] = ()
    y_ticks: tuple[Tick, ...] = ()
    x_title: str = ""
    y_title: str = ""
    width: int = HEIGHT
    axes: tuple[Axis, Axis] | None = None  # x and y, if the pointer needs them
    zero: float | None = None  # height of the line that divides gains from losses, in percent
    dense: bool = False  # whether there are so many users that dots and whiskers must be thin
    means: bool = False  # whether mean lines are drawn


def nice_step(rough: float) -> float:
    """The smallest of 1, 2, 2.5, 5 x a power of ten that is at least ``rough``."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(s * power for s in (1, 2, 2.5, 5, 10) if s * power >= rough * (1 - 1e-9))


def log_steps(lo: float, hi: float) -> list[int]:
    """Whole numbers 1, 2, 5 x powers of ten in [lo, hi], or the powers alone where that gives too many.

    If fewer than three remain, whole numbers at equal distances.
    """
    powers = range(math.floor(math.log10(lo)), math.ceil(math.log10(hi)) + 1)
    steps = [m * 10**p for p in powers if p >= 0 for m in (1, 2, 5) if lo <= m * 10**p <= hi]
    if len(steps) < 3:
        step = max(1, round(nice_step((hi - lo) / 5)))
        return list(range(step * math.ceil(lo / step), math.floor(hi) + 1, step))
    return steps if len(steps) <= 7 else [s for s in steps if str(s)[0] == "1"]


def span(values: Sequence[float] | NDArray, include: Sequence[float] = (), pad: float = 0.04) -> Axis:
    """An axis around the finite ``values`` and ``include``, with some padding."""
    at = np.concatenate([np.asarray(values, float).ravel(), np.asarray(include, float)])
    at = at[np.isfinite(at)]
    lo, hi = (float(at.min()), float(at.max())) if len(at) else (0.0, 1.0)
    air = pad * (hi - lo) or 0.05
    return Axis(lo - air, hi + air)


def dots(x: NDArray, y: NDArray) -> str:
    """Path of zero-length strokes."""
    return "".join(f"M{a} {b}h0" for a, b in zip(x.tolist(), y.tolist(), strict=True))


def whiskers(x: NDArray, low: NDArray, high: NDArray) -> str:
    """Path of vertical strokes."""
    return "".join(f"M{a} {b}V{c}" for a, b, c in zip(x.tolist(), low.tolist(), high.tolist(), strict=True))


def line(x: NDArray, y: NDArray) -> str:
    """Path through points; empty without any."""
    return "M" + "L".join(f"{a} {b}" for a, b in zip(x.tolist(), y.tolist(), strict=True)) if len(x) else ""


def apart(ticks: Sequence[Tick], least: float) -> tuple[Tick, ...]:
    """The last tick, and each earlier tick at least ``least`` percent from the next one kept."""
    kept: list[Tick] = []
    for tick in reversed(ticks):
        if not kept or kept[0].at - tick.at >= least:
            kept.insert(0, tick)
    return tuple(kept)


def gains(people: pl.DataFrame, axis: Axis, learner: str, baseline: str) -> Figure:
    """Each user's gain with its interval; ``people`` are the tested users of one learner, sorted by gain."""
    n = len(people)
    width = max(HEIGHT, 2 * n)
    x_U = np.rint((np.arange(n) + 0.5) * width / max(n, 1)).astype(np.int64)
    gain_U, lo_U, hi_U = (people[c].to_numpy() for c in ("gain", "gain_lo", "gain_hi"))
    verdict_U, minority_U = people["verdict"].to_numpy(), people["minority"].to_numpy().astype(bool)
    bounded_U = np.isfinite(lo_U) & np.isfinite(hi_U)
    y_U = axis.height(gain_U)
    layers = []
    for verdict in VERDICTS:
        rows = (verdict_U == verdict) & bounded_U
        layers.append(
            Layer(f"whisker {verdict}", whiskers(x_U[rows], axis.height(lo_U[rows]), axis.height(hi_U[rows])))
        )
    if minority_U.any():
        layers.append(Layer("ring", dots(x_U[minority_U], y_U[minority_U])))
        layers.append(Layer("ring-gap", dots(x_U[minority_U], y_U[minority_U])))
    for verdict in VERDICTS:
        rows = verdict_U == verdict
        layers.append(Layer(f"dot {verdict}", dots(x_U[rows], y_U[rows])))
    counts = {v: int((verdict_U == v).sum()) for v in VERDICTS}
    alt = (
        f"Gain of {learner} over {baseline} for {n} users, sorted: {counts['better']} significantly better, "
        f"{counts['worse']} significantly worse, {counts['unclear']} unclear, {counts['untested']} not tested; "
        f"{int(minority_U.sum())} minority users."
    )
    ends = (Tick(0, "1"), Tick(100, f"{n:,}")) if n > 1 else ()
    return Figure(
        alt=alt,
        layers=tuple(layer for layer in layers if layer.path),
        x_ticks=ends,
        y_ticks=axis.ticks(signed=True, scale=100),
        x_title="users, from the largest loss to the largest gain",
        y_title=f"gain over {baseline}, in points of accuracy",
        width=width,
        zero=axis.percent(0.0),
        dense=n > 400,
    )


def amount_axis(n_train: NDArray) -> Axis:
    """Logarithmic axis of judgements per user; users without any are drawn at one."""
    at = np.maximum(np.asarray(n_train, float), 1)
    return Axis(float(at.min()) / 1.15, float(at.max()) * 1.15, log=True)


def group_means(amount_U: NDArray, values: Sequence[NDArray], groups: int) -> tuple[NDArray, list[NDArray]]:
    """Mean amount and means of ``values`` over up to ``groups`` groups of about equal numbers of users."""
    edges = np.unique(np.quantile(amount_U, np.linspace(0, 1, groups + 1)))[1:-1]
    group_U = np.searchsorted(edges, amount_U, side="right")
    count = np.bincount(group_U)
    full = count > 0
    means = [np.bincount(group_U, weights=v)[full] / count[full] for v in (amount_U, *values)]
    return means[0], means[1:]


def amounts(people: pl.DataFrame, x_axis: Axis, y_axis: Axis, learner: str, baseline: str) -> Figure:
    """Each user's accuracy against their number of training judgements, with mean lines."""
    n = len(people)
    amount_U = np.maximum(people["n_train"].to_numpy().astype(float), 1)
    accuracy_U, baseline_U = people["accuracy"].to_numpy(), people["baseline_accuracy"].to_numpy()
    minority_U = people["minority"].to_numpy().astype(bool)
    x_U, y_U = x_axis.plane(amount_U, HEIGHT), y_axis.height(accuracy_U)
    layers = [
        Layer("dot user", dots(x_U[~minority_U], y_U[~minority_U])),
        Layer("dot user few", dots(x_U[minority_U], y_U[minority_U])),
    ]
    means = n >= MEANS_FROM
    if means:
        at, (mean, floor) = group_means(amount_U, (accuracy_U, baseline_U), min(12, n // 10))
        layers.append(Layer("line floor", line(x_axis.plane(at, HEIGHT), y_axis.height(floor))))
        layers.append(Layer("line", line(x_axis.plane(at, HEIGHT), y_axis.height(mean))))
    return Figure(
        alt=f"Accuracy of {learner} for each of {n} users against their number of training judgements"
        + (f", with mean lines of {learner} and {baseline}." if means else "."),
        layers=tuple(layer for layer in layers if layer.path),
        x_ticks=x_axis.ticks(),
        y_ticks=y_axis.ticks(scale=100),
        x_title="training judgements of the user",
        y_title="accuracy on their test judgements, %",
        axes=(x_axis, y_axis),
        dense=n > 400,
        means=means,
    )


def curve(points: Sequence[Point], floor: Sequence[Point], axes: tuple[Axis, Axis], learner: str) -> Figure:
    """Accuracy against training size: ``points`` of one learner over those of the baseline, ``floor``."""
    x_axis, y_axis = axes
    layers = []
    for kind, rows in (("line floor", floor), ("line", points)):
        x = x_axis.plane([r.size for r in rows], HEIGHT)
        if kind == "line":
            kept = [i for i, r in enumerate(rows) if r.lo is not None and r.hi is not None]
            low, high = (y_axis.height([getattr(rows[i], side) for i in kept]) for side in ("lo", "hi"))
            layers.append(Layer("whisker better", whiskers(x[kept], low, high)))
            layers.append(Layer("dot better", dots(x, y_axis.height([r.value for r in rows]))))
        layers.append(Layer(kind, line(x, y_axis.height([r.value for r in rows]))))
    values = ", ".join(f"{wording.share(r.value, 1)} at {r.size:,}" for r in points)
    return Figure(
        alt=f"Accuracy of {learner} against training size: {values}.",
        layers=tuple(layer for layer in layers if layer.path),
        x_ticks=apart([Tick(x_axis.percent(r.size), f"{r.size:,}") for r in points], 30),
        y_ticks=y_axis.ticks(scale=100),
    )
