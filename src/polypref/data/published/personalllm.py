"""PersonalLLM (Zollo et al. 2024): eight answers to each prompt, scored by ten reward models that represent people.

namkoong-lab/PersonalLLM: prompt, response_1 ... response_8, and response_{i}_{model} for ten reward models. Scores are
standardised with the authors' means and standard deviations. People are

    models     single reward models, as in the evaluation paper. It uses an unknown eight of the ten: choose yours with
               ``models``, else all ten take part.
    dirichlet  mixtures w ~ Dirichlet(alpha) of the models in alphabetical order: reward = sum of w_j z_j

and pairs are ``four`` of each prompt, drawn without replacement and the same for everyone (with eight people 10,402 x 4
x 8 = 332,864, the paper's 333k; its way of drawing is unknown), or ``best-worst``: the best and the worst answer by the
person's own reward. The labels are a function of scores, so everyone is perfectly consistent.

beaver_7b is a cost model; its published scores already have their sign flipped (mean +6.2). New scores from the model
are costs (mean below 0): ``beaver="cost"`` flips them, and a column with the opposite sign is refused.

RiverDong/Personal-LLM-DPO, the evaluation paper's own file, has uid, prompt, chosen and rejected, and is read as it is:
eight numbered people. Given together with the scored answers, it is told which reward model each uid is, by the share
of its choices that agree with the model's scores.

Columns: verified by public loaders of both files in several projects. What the mirror's uids stand for is not known.

Suffixes here: ``_A`` prompts that a user is asked, ``_M`` reward models.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from polypref.data.files.limits import Limits
from polypref.data.published.personalllm_uids import COLUMNS, of_uids
from polypref.data.published.rows import Converted, File, Selection, one_of, read_files, stack, typed
from polypref.errors import InputError, SettingsError

SCALES = {  # reward model -> mean and standard deviation of its scores, from the authors' constants
    "beaver_7b": (6.233516894340515, 3.012641148973965),
    "gemma_2b": (4.3304170169830325, 2.038611338958803),
    "gemma_7b": (1.6259730467796325, 2.6096741570264976),
    "llama3_sfairx": (1.0637639780044557, 2.953017385451928),
    "mistral_raft": (8.309211883544922, 3.0728436748484533),
    "mistral_ray": (3.0136284782886507, 1.6902981149232585),
    "mistral_weqweasdas": (7.071075622558594, 2.578636650248985),
    "oasst_deberta_v3": (2.8976835689097644, 1.7207868789061331),
    "oasst_pythia_1b": (4.293944010734558, 2.3018268820938133),
    "oasst_pythia_7b": (4.706351243972779, 1.3659142113789966),
}
RESPONSES = 8
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class PersonalLLM:
    """``people`` models or dirichlet; ``pairs`` four, best-worst or "" (four for models, best-worst for dirichlet).

    ``models`` that represent people or are mixed (none: all ten), ``count`` mixtures with ``alpha``, each judging
    ``prompts`` prompts (0: all; for models always all).
    """

    people: str = "models"
    pairs: str = ""
    models: tuple[str, ...] = ()
    count: int = 1000
    alpha: float = 0.1
    prompts: int = 50
    beaver: str = "reward"
    seed: int = 0

    def __post_init__(self) -> None:
        one_of("kind of people of personalllm", self.people, ("models", "dirichlet"))
        one_of("kind of pairs of personalllm", self.pairs, ("", "four", "best-worst"))
        one_of("sign of beaver", self.beaver, ("reward", "cost"))
        for model in self.models:
            one_of("reward model", model, tuple(SCALES))
        if len(set(self.models)) < len(self.models):
            raise SettingsError(f"--models names a model twice: {', '.join(self.models)}.")
        if self.count < 1 or self.alpha <= 0 or self.prompts < 0:
            raise SettingsError(
                f"--count {self.count}, --alpha {self.alpha:g} and --prompts {self.prompts} cannot be; expected 1 or "
                f"more people, an alpha above 0 and 0 (all) or more prompts."
            )

    def convert(self, paths: Sequence[str], limits: Limits | None = None) -> Converted:
        """Raises InputError for files of another form or with beaver's sign reversed."""
        names = sorted(self.models or SCALES)
        wanted = ["prompt", *(f"response_{i}" for i in range(1, RESPONSES + 1))]
        scores = [f"response_{i}_{name}" for i in range(1, RESPONSES + 1) for name in names]
        kinds = dict.fromkeys(wanted, "text") | dict.fromkeys(scores, "number")
        files = read_files(paths, limits)
        numbered = [file for file in files if file.has(*COLUMNS)]
        files = [file for file in files if file not in numbered]
        frames = [typed(file, file.need("PersonalLLM", *wanted, *scores), kinds) for file in files]
        if numbered:
            self._ensure_plain(numbered[0])
            return of_uids(numbered, stack(frames) if frames else None, names)
        whole = stack(frames)
        selection = Selection(whole)
        selection.drop("prompts with a text or a score missing", pl.any_horizontal(pl.all().is_null()))
        shape = (selection.frame.height, RESPONSES, len(names))
        z_PRM = self._on_one_scale(selection.frame.select(scores).cast(pl.Float64).to_numpy().reshape(shape), names)
        weight_UM, users, attributes = self._people(names)
        four = (self.pairs or {"models": "four", "dirichlet": "best-worst"}[self.people]) == "four"
        rng = np.random.default_rng([self.seed, 1])
        drawn_P8 = rng.permuted(np.tile(np.arange(RESPONSES), (shape[0], 1)), axis=1) if four else None
        parts = []
        for user, weight_M in enumerate(weight_UM):
            prompt_A = self._prompts(shape[0], user)
            value_AR = z_PRM[prompt_A] @ weight_M
            parts.append((user, *_judged(value_AR, prompt_A, None if drawn_P8 is None else drawn_P8[prompt_A])))
        texts = selection.frame
        selection.frame = _table(texts, parts, users, attributes)
        title = (
            f"PersonalLLM, {len(users):,} simulated people ({self.people}), {'four pairs' if four else 'best-worst'}"
        )
        return selection.finish(title, whole.height, self._remarks(names), ("tie", "attributes"))

    def _ensure_plain(self, file: File) -> None:
        """Raises SettingsError for a setting that finished judgements cannot follow."""
        if self != PersonalLLM():
            raise SettingsError(
                f"{file.path} holds finished judgements of numbered people (uid), which no setting of personalllm "
                "changes; give none, or the scored answers alone."
            )

    def _on_one_scale(self, score_PRM: Floats, names: Sequence[str]) -> Floats:
        mean_M, sd_M = np.array([SCALES[name] for name in names]).T
        if "beaver_7b" in names and len(score_PRM):
            at = names.index("beaver_7b")
            score_PRM = score_PRM.copy()
            if self.beaver == "cost":
                score_PRM[..., at] *= -1
            mean = float(score_PRM[..., at].mean())
            if mean < 0:
                other = "reward" if self.beaver == "cost" else "cost"
                raise InputError(
                    f"beaver_7b's rewards would average {mean:.2f}; the published ones average "
                    f"{SCALES['beaver_7b'][0]:.2f}: costs have the other sign. Use --beaver {other}."
                )
        return (score_PRM - mean_M) / sd_M

    def _people(self, names: Sequence[str]) -> tuple[Floats, list[str], list[str]]:
        """``(weight_UM, user ids, attributes as JSON)``."""
        if self.people == "models":
            return np.eye(len(names)), list(names), [json.dumps({"model": name}) for name in names]
        weight_UM = np.random.default_rng([self.seed, 0]).dirichlet(np.full(len(names), self.alpha), self.count)
        users = [f"d{number:0{len(str(self.count - 1))}d}" for number in range(self.count)]
        descriptions = [{"model": names[int(w_M.argmax())], "share": round(float(w_M.max()), 4)} for w_M in weight_UM]
        return weight_UM, users, [json.dumps(one) for one in descriptions]

    def _prompts(self, n_prompts: int, user: int) -> Ints:
        if self.people == "models" or not 0 < self.prompts < n_prompts:
            return np.arange(n_prompts)
        rng = np.random.default_rng([self.seed, 2, user])
        return np.sort(rng.choice(n_prompts, self.prompts, replace=False))

    def _remarks(self, names: Sequence[str]) -> list[str]:
        remarks = ["simulated people: the labels follow reward models' scores and never contradict themselves"]
        if self.people == "models" and len(names) != 8:
            remarks.append(f"the evaluation paper uses eight of the ten models (which is not known), here {len(names)}")
        return remarks


def _judged(value_AR: Floats, prompt_A: Ints, drawn_A8: Ints | None) -> tuple[Ints, Ints, Ints, NDArray[np.bool_]]:
    """``(prompt_N, better_N, worse_N, tie_N)`` of one person: the drawn pairs, or the best against the worst."""
    if drawn_A8 is None:
        first_N, second_N, row_N = value_AR.argmax(axis=1), value_AR.argmin(axis=1), np.arange(len(value_AR))
    else:
        first_N, second_N = drawn_A8[:, 0::2].ravel(), drawn_A8[:, 1::2].ravel()
        row_N = np.repeat(np.arange(len(value_AR)), RESPONSES // 2)
    gap_N = value_AR[row_N, first_N] - value_AR[row_N, second_N]
    better_N, worse_N = np.where(gap_N >= 0, first_N, second_N), np.where(gap_N >= 0, second_N, first_N)
    return prompt_A[row_N], better_N, worse_N, gap_N == 0


def _table(
    texts: pl.DataFrame,
    parts: Sequence[tuple[int, Ints, Ints, Ints, NDArray[np.bool_]]],
    users: Sequence[str],
    attributes: Sequence[str],
) -> pl.DataFrame:
    prompt_N, better_N, worse_N, tie_N = (np.concatenate([part[i] for part in parts]) for i in (1, 2, 3, 4))
    user_N = np.repeat([part[0] for part in parts], [len(part[1]) for part in parts])
    flat = pl.concat([texts[f"response_{i}"].alias("text") for i in range(1, RESPONSES + 1)])
    return pl.DataFrame(
        {
            "user_id": pl.Series(users, dtype=pl.String).gather(user_N),
            "prompt": texts["prompt"].gather(prompt_N),
            "chosen": flat.gather(better_N * texts.height + prompt_N),
            "rejected": flat.gather(worse_N * texts.height + prompt_N),
            "tie": tie_N,
            "attributes": pl.Series(attributes, dtype=pl.String).gather(user_N),
        }
    )
