"""A judge of style that no policy is trained on: MiniLM's vectors of contrast texts, told apart by a ridge regression.

The contrast texts (``style_texts.toml``) were written by hand, in other words than the rewards count (``styles``). A
text's score for the first style of a pair is the regression's value, for the second its negative. ``accuracy`` is that
of the sign, each contrast text left out in turn. Not covered: whether people would agree with the judge.

Suffixes here: ``_X`` contrast texts.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources

import numpy as np

from polypref.comparisons import Responses
from polypref.features.minilm import MiniLM
from polypref.policy.history import Floats
from polypref.strict_toml import loads

PENALTY = 1.0


@dataclass(frozen=True, eq=False)
class StyleJudge:
    """``weight_D`` and the constant of the regression."""

    weight_D: Floats
    constant: float
    accuracy: float

    @classmethod
    def of(cls, styles: tuple[str, str]) -> StyleJudge:
        """Of two styles, fitted on their contrast texts. Raises EncoderError without MiniLM's weights."""
        text = (resources.files("polypref.studies.policy") / "style_texts.toml").read_text(encoding="utf-8")
        contrast = loads(text)
        texts = [contrast[style] for style in styles]
        sign_X = np.repeat([1.0, -1.0], [len(part) for part in texts])
        vector_XD = _vectors([one for part in texts for one in part])
        middle_D, level = vector_XD.mean(0), sign_X.mean()
        centred_XD = vector_XD - middle_D
        kernel_XX = centred_XD @ centred_XD.T
        hat_XX = np.linalg.solve(kernel_XX + PENALTY * np.eye(len(sign_X)), kernel_XX)
        hat_XX += 1 / len(sign_X)  # the constant
        left_out_X = (hat_XX @ sign_X - hat_XX.diagonal() * sign_X) / (1 - hat_XX.diagonal())
        weight_D = centred_XD.T @ np.linalg.solve(kernel_XX + PENALTY * np.eye(len(sign_X)), sign_X - level)
        return cls(weight_D, float(level - middle_D @ weight_D), float((left_out_X * sign_X > 0).mean()))

    def values(self, texts: list[str]) -> Floats:
        """How far each text has the first style; negative: the second."""
        return _vectors(texts) @ self.weight_D + self.constant


def _vectors(texts: list[str]) -> Floats:
    pool, at_B = Responses.of([""] * len(texts), [text.replace("\x00", " ") for text in texts])
    return MiniLM().encode(pool).astype(np.float64)[at_B]
