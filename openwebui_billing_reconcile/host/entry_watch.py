"""Tells whether it was our call of the host's crediting path, or a webhook beside it, that entered a credit.

The path returns nothing, and both write the same entry. So we listen for the insert: SQLAlchemy runs its
listeners on the thread that inserts.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from cachetools import LRUCache
from sqlalchemy import event

_MAX_ENTRIES: Final = 4096  # entered and not yet reported

_inserting = threading.local()


class EntryWatch:
    """Remembers the ledger entries that calls of ours inserted, until each one is reported."""

    def __init__(self, model: type[Any]) -> None:
        """``model`` is the host's ``LedgerEntry``."""
        self._entry_ids: LRUCache[str, bool] = LRUCache(_MAX_ENTRIES)
        self._lock = threading.Lock()
        if not event.contains(model, "after_insert", _note_insert):  # attached anew, to the same host
            event.listen(model, "after_insert", _note_insert)

    @contextmanager
    def watch(self, payment_id: str) -> Iterator[None]:
        """Remember the entries for this payment that this thread inserts, also where it fails later."""
        entry_ids: list[str] = []
        _inserting.payment_id, _inserting.entry_ids = payment_id, entry_ids
        try:
            yield
        finally:
            _inserting.payment_id = None
            with self._lock:
                self._entry_ids.update((entry_id, True) for entry_id in entry_ids)

    def take(self, entry_id: str) -> bool:
        """Return whether a call of ours inserted this entry; true once for each entry."""
        with self._lock:
            return self._entry_ids.pop(entry_id, False)


def _note_insert(_mapper: object, _connection: object, entry: Any) -> None:
    payment_id: str | None = getattr(_inserting, "payment_id", None)
    if payment_id is not None and entry.reference_id == payment_id:
        _inserting.entry_ids.append(entry.id)
