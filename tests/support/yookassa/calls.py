"""What the API's callers send, checked."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from .errors import ApiError, invalid
from .money import Money

MAX_DESCRIPTION = 128
MAX_URL = 2048
MAX_METADATA_KEYS = 16
MAX_METADATA_KEY = 32
MAX_METADATA_VALUE = 512


@dataclass(frozen=True)
class NewPayment:
    """A well-formed request to create a payment."""

    amount: Money
    capture: bool = False
    description: str | None = None
    metadata: dict[str, str] | None = None
    return_url: str | None = None
    payment_method_id: str | None = None
    save_payment_method: bool = False


def read_payment(body: dict[str, Any]) -> NewPayment:
    """Check the body of `POST /payments`."""
    method_id = _text(body, "payment_method_id", MAX_METADATA_VALUE)
    confirmation = body.get("confirmation")
    if confirmation is None and method_id is None:
        raise invalid("Specify a confirmation or a saved payment method", "confirmation")
    return NewPayment(
        amount=read_amount(body),
        capture=_flag(body, "capture"),
        description=_text(body, "description", MAX_DESCRIPTION),
        metadata=_metadata(body.get("metadata")),
        return_url=None if confirmation is None else _return_url(confirmation),
        payment_method_id=method_id,
        save_payment_method=_flag(body, "save_payment_method"),
    )


def read_amount(body: dict[str, Any]) -> Money:
    """Check a positive `amount`."""
    if "amount" not in body:
        raise invalid("The amount is missing", "amount")
    money = Money.read(body["amount"])
    if money is None:
        raise invalid("Incorrect amount: a string with two decimals is needed", "amount.value")
    if money.kopeks == 0:
        raise invalid("The amount must be greater than zero", "amount.value")
    return money


def _flag(body: dict[str, Any], name: str) -> bool:
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise invalid("Incorrect value: true or false is needed", name)
    return bool(value)


def _text(body: dict[str, Any], name: str, longest: int) -> str | None:
    value = body.get(name)
    if value is not None and not (isinstance(value, str) and len(value) <= longest):
        raise invalid(f"Incorrect value: a string of at most {longest} characters is needed", name)
    return value


def _return_url(confirmation: object) -> str:
    if not isinstance(confirmation, dict) or confirmation.get("type") != "redirect":
        raise invalid("Only confirmation by redirect is available", "confirmation.type")
    url = confirmation.get("return_url")
    if not isinstance(url, str) or len(url) > MAX_URL or not is_web_address(url):
        raise invalid("Incorrect return_url", "confirmation.return_url")
    return url


def is_web_address(url: str) -> bool:
    """Whether a browser may be sent there: the checkout page links to it."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.netloc)


def _metadata(metadata: object) -> dict[str, str] | None:
    if metadata is None:
        return None
    if not isinstance(metadata, dict) or len(metadata) > MAX_METADATA_KEYS:
        raise invalid(f"At most {MAX_METADATA_KEYS} keys are allowed", "metadata")
    texts = {key: _metadata_value(value) for key, value in metadata.items() if value is not None}
    if any(len(key) > MAX_METADATA_KEY for key in texts):
        raise invalid(f"A key may have {MAX_METADATA_KEY} characters", "metadata")
    return texts


def _metadata_value(value: object) -> str:
    if not isinstance(value, str | int | float):
        raise invalid("A value must be a string", "metadata")
    text = value if isinstance(value, str) else json.dumps(value)
    if len(text) > MAX_METADATA_VALUE:
        raise invalid(f"A value may have {MAX_METADATA_VALUE} characters", "metadata")
    return text


def read_json(raw: bytes) -> dict[str, Any]:
    """The body of a call; an empty one means no parameters."""
    try:
        body = json.loads(raw) if raw.strip() else {}
    except ValueError as error:
        raise ApiError(400, "The body is not JSON") from error
    if not isinstance(body, dict):
        raise ApiError(400, "The body is not a JSON object")
    return body
