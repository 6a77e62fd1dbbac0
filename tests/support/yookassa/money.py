"""Money: an integer of kopeks inside, a string with two decimals on the wire."""

from __future__ import annotations

import re
from dataclasses import dataclass

_VALUE = re.compile(r"([0-9]{1,12})(?:\.([0-9]{1,2}))?")
_CURRENCY = re.compile(r"[A-Z]{3}")


@dataclass(frozen=True)
class Money:
    """So many hundredths of a currency."""

    kopeks: int
    currency: str

    @classmethod
    def read(cls, wire: object) -> Money | None:
        """The amount a client sent, or None where it is not one."""
        if not isinstance(wire, dict):
            return None
        currency = wire.get("currency")
        if not (isinstance(currency, str) and _CURRENCY.fullmatch(currency)):
            return None
        kopeks = read_kopeks(wire.get("value"))
        return None if kopeks is None else cls(kopeks, currency)

    def wire(self) -> dict[str, str]:
        """As the API writes it."""
        return {"value": format_kopeks(self.kopeks), "currency": self.currency}


def read_kopeks(value: object) -> int | None:
    """Kopeks from a string such as "1000.00"; None for anything else, numbers included."""
    match = _VALUE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return None
    whole, cents = match.groups(default="")
    return int(whole) * 100 + int(cents.ljust(2, "0"))


def format_kopeks(kopeks: int) -> str:
    """Such as "1000.00"."""
    return f"{kopeks // 100}.{kopeks % 100:02}"
