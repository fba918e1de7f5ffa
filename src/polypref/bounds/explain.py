"""Why a response may be returned or not: its score, the score it needs, and the line of the file that requires it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl

from polypref.bounds.bounds_file import BoundsFile
from polypref.bounds.gate import Bounded
from polypref.bounds.tiers import DROP, PASS
from polypref.comparisons import Responses


def explained(file: BoundsFile, bounded: Bounded, frame: pl.DataFrame, category: str = "") -> Iterator[dict[str, Any]]:
    """One answer, as JSON can hold it, for each row of ``user_id``, ``prompt``, ``chat`` (whether the prompt
    is canonical chat JSON) and ``response``."""
    responses, response_Q = Responses.of(frame["prompt"], frame["response"], frame["chat"])
    safety_Q = bounded.safety(responses)[response_Q]
    unknown_R = bounded.safety.unknown(responses)
    value_Q = bounded.score(responses, frame["user_id"], response_Q, category)
    gate = bounded.gate.threshold(category)
    columns = frame["user_id"], frame["response"], response_Q.tolist(), safety_Q, value_Q
    for user, response, place, safety, value in zip(*columns, strict=True):
        floor = bounded.limits_of(user).floor
        row: dict[str, Any] = {"user_id": user, "response": response, "returned": bool(np.isfinite(value))}
        row |= {"safety": None if np.isnan(safety) else round(float(safety), 6), "needed": round(max(gate, floor), 6)}
        row["reason"] = _reason(file, user, float(safety), gate, bool(np.isfinite(value)))
        if (script := unknown_R[place]) is not None:
            row |= {"unknown_script": script, "reason": _of_script(file, script, row["reason"])}
        row["score"] = round(float(value), 6) if np.isfinite(value) else None
        yield row | {"policy_hash": bounded.policy_hash}


def _reason(file: BoundsFile, user: str, safety: float, gate: float, returned: bool) -> str:
    if np.isnan(safety):
        return "the safety scorer gave no score, so it is dropped"
    if safety < gate:
        return f"under the gate's threshold, calibrated for alpha of {file.settings['alpha']}"
    asked = [settings["floor"] for settings in (file.settings, file.users.get(user, {})) if "floor" in settings]
    failed = [one for one in asked if safety < one.value]
    if failed:
        highest = max(failed, key=lambda one: one.value)
        return f"under the floor {highest.value!r} of {highest}"
    if not returned:
        return "the scorer gave no finite reward, shared or personal"
    cap = [settings["cap"] for settings in (file.settings, file.users.get(user, {})) if "cap" in settings]
    return f"passes; the reward is held by cap = {min(one.value for one in cap)!r}" if cap else "passes"


def _of_script(file: BoundsFile, script: str, otherwise: str) -> str:
    """What decides of a text in a script that the calibration did not hold."""
    said = f"the calibration held too few unsafe texts in {script}, and unknown = {{}} of {file.settings['unknown']}"
    return f"{said.format(repr(DROP))}: dropped" if file.drops_unknown else f"{said.format(repr(PASS))}; {otherwise}"
