"""The mixture of a discovered grouping: groups' rewards and sizes, which give the likelihood of a user's answers.

Suffixes here: ``_T`` texts that several users judged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self, TypedDict

import numpy as np
from numpy.typing import NDArray

from polypref import content
from polypref.comparisons import Comparisons
from polypref.content import Identities
from polypref.errors import SettingsError
from polypref.features import encoder as named_encoder
from polypref.features.protocol import Encoder
from polypref.groups.mixture import Floats, Ints, Votes, shares
from polypref.learners.inputs import Inputs
from polypref.schema import Array, Arrays, floats, identities


class Fields(TypedDict):
    """Settings of a saved mixture."""

    evidence: float
    derived: bool
    encoder: str
    identity: str


OWN = {
    "weights_KG": floats("K", "G"),
    "key_T": identities("T"),
    "text_TG": floats("T", "G"),
    "size_G": Array(("G",), positive=True),
}
ARRAYS = tuple(OWN)


def layout(prefix: str) -> Arrays:
    """The arrays of a mixture's ``state``, each named behind ``prefix``."""
    return {**{f"{prefix}{name}": one for name, one in OWN.items()}, **Inputs.layout(prefix)}


@dataclass(frozen=True, eq=False)
class Mixture:
    """G groups' rewards: ``x_r . weights_KG[:, p] + text_TG[r, p]``, the latter for texts ``key_T`` (ascending).

    ``size_G``    share of users in each group: the prior of a user without answers.
    ``evidence``  power of a user's likelihood, chosen on held-out answers; below 1 if answers are redundant.
    ``derived``   judgements were made from votes, ratings or rankings: each counts as less than one answer.
    ``encoder``, ``identity``  name and identity of the encoder of the features.
    """

    inputs: Inputs
    weights_KG: Floats
    key_T: Identities
    text_TG: Floats
    size_G: Floats
    evidence: float
    derived: bool
    encoder: str
    identity: str

    def shares(self, rows: Comparisons, user_N: Ints, users: int) -> Floats:
        """Posterior of each user's group from these judgements alone (U, G); without any, the groups' sizes."""
        if not len(rows):
            return np.tile(self.size_G, (users, 1))
        response_R = np.unique(np.concatenate([rows.chosen_N, rows.rejected_N]))
        pool = rows.responses.take(response_R)
        x_RK = self.inputs(pool)
        reward_RG = x_RK @ self.weights_KG
        if len(self.key_T):
            at_R = content.places(self.key_T, pool.identity_R)
            reward_RG += np.where((at_R >= 0)[:, None], self.text_TG[at_R], 0.0)
        votes = Votes.of(rows, user_N, users, (response_R, x_RK), self.derived)
        return shares(np.log(self.size_G) + self.evidence * votes.log_likelihood(reward_RG))

    def taken(self, order_G: Ints) -> Mixture:
        """The same groups in another order."""
        changed = {name: getattr(self, name)[..., order_G] for name in ("weights_KG", "text_TG", "size_G")}
        return Mixture(**{**vars(self), **changed})

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray]]:
        """Settings and arrays that ``from_state`` turns into an equal mixture."""
        config = {name: getattr(self, name) for name in ("evidence", "derived", "encoder", "identity")}
        arrays = {name: getattr(self, name) for name in ARRAYS} | {"key_T": content.packed(self.key_T)}
        return config, self.inputs.arrays() | arrays

    @classmethod
    def from_state(cls, config: Mapping[str, Any], arrays: Mapping[str, NDArray], encoder: Encoder | None) -> Self:
        """The inverse of ``state``; without an ``encoder``, the one named there.

        Raises SettingsError if an encoder gives other features, or its name is unknown.
        """
        encode = named_encoder(config["encoder"]) if encoder is None else encoder
        if encode.identity != config["identity"]:
            raise SettingsError(
                f"the groups were found in the features of [{config['identity']}], and {encode.name} gives those of "
                f"[{encode.identity}]; find them again or give the encoder they were found with."
            )
        inputs = Inputs.from_arrays(encode, arrays)
        own = {name: arrays[name] for name in ARRAYS} | {"key_T": content.unpacked(arrays["key_T"])}
        return cls(inputs, **own, **config)  # type: ignore[arg-type]
