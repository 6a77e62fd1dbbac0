"""An error of the database as the error that callers are told."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import SQLAlchemyError

from openwebui_billing_reconcile.errors import TemporarilyUnavailableError

log = logging.getLogger(__name__)


@contextmanager
def database_errors(subject: str) -> Iterator[None]:
    """Raise ``TemporarilyUnavailableError`` for an error of the database; ``subject`` is for the log."""
    try:
        yield
    except SQLAlchemyError as error:
        log.warning("The billing database did not answer: %s error=%s", subject, type(error).__name__)
        raise TemporarilyUnavailableError(
            "Billing is temporarily unavailable", reason="database_unavailable"
        ) from error
