"""Scorers whose every reward is a mixture of a few basis rewards, which new users share.

Suffixes here: ``_C`` basis rewards.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from polypref.comparisons import Comparisons, Responses
from polypref.features.protocol import Encoder
from polypref.learners import linear
from polypref.learners.history import History, Rows
from polypref.learners.inputs import Inputs
from polypref.learners.linear import LAYOUT, LinearScorer
from polypref.learners.protocol import Serves
from polypref.learners.provenance import passed_on
from polypref.schema import Layout, floats


@dataclass(frozen=True, eq=False, repr=False)
class BasisScorer(LinearScorer):
    """A linear scorer with basis rewards for new users, and the differences of these in all judgements of each user."""

    basis_KC: NDArray[np.float64]
    history: History

    layout: ClassVar[Layout] = LAYOUT.with_more(linear.Fields, {"basis_KC": floats("K", "C"), **History.layout("C")})
    serves: ClassVar[Serves] = "any_user"

    def with_more_of(self, user_id: str, few: Comparisons) -> tuple[Self, Rows]:
        """The scorer that remembers ``few`` too, and all that it then has of the user."""
        rows = Rows.of(differences(self.inputs, self.basis_KC, few), few).after(self.history.of_user(user_id))
        return replace(self, history=self.history.with_newer(user_id, rows)), rows

    def basis_rewards(self, responses: Responses) -> NDArray[np.float64]:
        """See ``learners.protocol.Mixes``."""
        return self.inputs(responses) @ self.basis_KC

    @passed_on
    def forget(self, user_id: str) -> Self:
        """See ``learners.protocol.Forgets``."""
        return replace(super().forget(user_id), history=self.history.without(user_id))

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray]]:
        """See ``learners.protocol.Scorer``."""
        config, arrays = super().state()
        return config, arrays | {"basis_KC": self.basis_KC, **self.history.arrays(self.settled().users)}

    @classmethod
    def common(cls, config: Mapping[str, Any], arrays: Mapping[str, NDArray], encoder: Encoder) -> dict[str, Any]:
        """The fields of this class from a saved state."""
        fields = vars(LinearScorer.from_state(config, arrays, encoder))
        return fields | {"basis_KC": arrays["basis_KC"], "history": History.from_arrays(arrays, fields["users"])}


def differences(inputs: Inputs, basis_KC: NDArray[np.floating], rows: Comparisons) -> NDArray[np.float64]:
    """Basis rewards of the chosen minus those of the rejected responses, (N, C)."""
    x_RK, _, place_2N = inputs.used(rows.responses, np.concatenate([rows.chosen_N, rows.rejected_N]))
    basis_RC = x_RK @ basis_KC
    return basis_RC[place_2N[: len(rows)]] - basis_RC[place_2N[len(rows) :]]
