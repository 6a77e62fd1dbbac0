"""Tells whether it was our call of the host's crediting path, or a webhook beside it, that entered a credit.

The path returns nothing, and both write the same entry. So we listen for the insert: SQLAlchemy runs its
listeners on the thread that inserts.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import event


@dataclass(slots=True)
class Watched:
    """One call of the path. ``is_entered`` turns true when an entry for its payment is inserted by it."""

    payment_id: str
    is_entered: bool = False


class EntryWatch:
    """Listens for inserts of one host's ledger entries, for as long as the process lives."""

    def __init__(self, model: type[Any]) -> None:
        self._local = threading.local()
        event.listen(model, "after_insert", self._inserted)

    @contextmanager
    def watch(self, payment_id: str) -> Iterator[Watched]:
        """Watch what this thread inserts meanwhile."""
        watched = self._local.watched = Watched(payment_id)
        try:
            yield watched
        finally:
            self._local.watched = None

    def _inserted(self, _mapper: object, _connection: object, entry: Any) -> None:
        watched: Watched | None = getattr(self._local, "watched", None)
        if watched and entry.reference_id == watched.payment_id:
            watched.is_entered = True
