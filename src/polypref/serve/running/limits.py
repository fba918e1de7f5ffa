"""What one request, one person and one process may use; what goes beyond is refused at once, not queued.

The size of a slate is a limit of the bounds (``Bounded.refuse_more``) and of ``core.MOST_TEXTS``. Rates are counted in
one process: with several workers each counts its own requests.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, fields
from math import ceil

from polypref.errors import PolyprefError, SettingsError, unknown_name
from polypref.serve.store.contract import Person

BURST_S = 2.0  # a rate's allowance that may be used at once
MOST_COUNTED = 100_000  # people and tenants whose rate is remembered


class TooMany(PolyprefError):
    """More requests than allowed; ``after``: whole seconds until the next one will be."""

    def __init__(self, message: str, after: int = 1) -> None:
        super().__init__(message, after)
        self.message, self.after = message, after

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True)
class Limits:
    """Limits of the server, each with the status of what is beyond it.

    ``body``          bytes of a body: 413.
    ``url``           bytes of an address with its query: 414.
    ``headers``       bytes of all headers: 431.
    ``read_seconds``  until a request has arrived whole: 408.
    ``concurrent``    requests in hand: 429.
    ``person_rate``   requests a second of one person, twice as many at once; 0: any number. 429.
    ``tenant_rate``   the same of one tenant.
    """

    body: int = 8_000_000
    url: int = 8_192
    headers: int = 16_384
    read_seconds: int = 30
    concurrent: int = 512
    person_rate: int = 0
    tenant_rate: int = 0


NAMES = tuple(field.name for field in fields(Limits))
RATES = ("person_rate", "tenant_rate")


def parse_limits(pairs: Sequence[str]) -> Limits:
    """``NAME=NUMBER`` words to limits. Raises SettingsError for another name or an impossible value."""
    found: dict[str, int] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise SettingsError(
                f"--request-limits {pair}: expected NAME=NUMBER, as in --request-limits concurrent=100."
            )
        if name not in NAMES:
            raise unknown_name("limit in --request-limits", name, NAMES)
        least = 0 if name in RATES else 1
        if not (value.isascii() and value.isdigit() and len(value) <= 12 and int(value) >= least):
            raise SettingsError(f"--request-limits {pair}: expected a whole number from {least}.")
        found[name] = int(value)
    return Limits(**found)


class Rates:
    """How much each person and tenant may still ask: an allowance that grows with time, up to ``BURST_S`` of it."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._left: OrderedDict[Person | str, tuple[float, float]] = OrderedDict()  # allowance, and when it was that

    def take(self, person: Person) -> None:
        """Count a request. Raises TooMany."""
        if person.user is not None:
            self._take(person, self.limits.person_rate, "this person")
        self._take(person.tenant, self.limits.tenant_rate, "this tenant")

    def _take(self, whose: Person | str, rate: int, said: str) -> None:
        if not rate:
            return
        now, most = time.monotonic(), rate * BURST_S
        left, at = self._left.get(whose, (most, now))
        left = min(most, left + (now - at) * rate)
        self._left[whose] = (left - (left >= 1), now)
        self._left.move_to_end(whose)
        if len(self._left) > MOST_COUNTED:
            self._left.popitem(last=False)
        if left < 1:
            raise TooMany(f"{said} asks more than {rate} times a second; ask again later.", ceil((1 - left) / rate))
