"""Errors in the provider's shape."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

CODES = {
    400: "invalid_request",
    401: "invalid_credentials",
    403: "forbidden",
    404: "not_found",
    429: "too_many_requests",
    500: "internal_server_error",
}


def error_body(status: int, description: str | None = None, parameter: str | None = None) -> dict[str, Any]:
    """The body that goes with an HTTP status; the id names this one error."""
    body = {"type": "error", "id": str(uuid4()), "code": CODES.get(status, CODES[500])}
    if description is not None:
        body["description"] = description
    if parameter is not None:
        body["parameter"] = parameter
    return body


class ApiError(Exception):
    """An API call is refused."""

    def __init__(self, status: int, description: str, parameter: str | None = None) -> None:
        super().__init__(description)
        self.status = status
        self.body = error_body(status, description, parameter)


def invalid(description: str, parameter: str | None = None) -> ApiError:
    """What the caller sent cannot be done."""
    return ApiError(400, description, parameter)


def unknown_payment() -> ApiError:
    """The provider's own words for a payment it does not have."""
    return ApiError(
        404,
        "Incorrect payment_id. Payment doesn't exist or access denied. "
        "Specify the payment ID created in your store.",
        "payment_id",
    )


def unknown_refund() -> ApiError:
    """The same for a refund."""
    return ApiError(404, "Incorrect refund_id. Refund doesn't exist or access denied.", "refund_id")
