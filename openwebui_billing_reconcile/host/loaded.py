"""The running host as a ``HostView``: its modules, imported."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Set
from types import ModuleType
from typing import Any

from sqlalchemy import Index, Table, UniqueConstraint

from .requirements import TABLES, Signature

_ANY = inspect.Parameter.VAR_KEYWORD
_BY_NAME = frozenset({inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY})
_VARIADIC = frozenset({inspect.Parameter.VAR_POSITIONAL, _ANY})


class LoadedHost:
    """Looks at the host of this process. Asking for a module imports it."""

    def has_module(self, module: str) -> bool:
        """See ``HostView``."""
        return _module(module) is not None

    def has_name(self, module: str, name: str) -> bool:
        """See ``HostView``."""
        owner: object = _module(module)
        for part in name.split("."):
            if not hasattr(owner, part):
                return False
            owner = getattr(owner, part)
        return True

    def signature(self, module: str, name: str) -> Signature | None:
        """See ``HostView``."""
        owner: Any = _module(module)
        *path, last = name.split(".")
        for part in path:
            owner = getattr(owner, part)
        function = getattr(owner, last)
        try:
            parameters = [*inspect.signature(function).parameters.values()]
        except (TypeError, ValueError):
            return None
        if inspect.isclass(owner) and inspect.isfunction(inspect.getattr_static(owner, last)):
            parameters = parameters[1:]  # the service itself
        return Signature(
            parameters={p.name for p in parameters if p.kind in _BY_NAME},
            required={p.name for p in parameters if p.default is p.empty and p.kind not in _VARIADIC},
            is_async=_is_async(function) or _is_async(inspect.unwrap(function)),
            takes_any=any(p.kind is _ANY for p in parameters),
        )

    def columns(self, model: str) -> Set[str]:
        """See ``HostView``."""
        table = _table(model)
        return set() if table is None else set(table.columns.keys())

    def unique_keys(self, model: str) -> list[Set[str]]:
        """See ``HostView``."""
        table = _table(model)
        keys = () if table is None else (*table.constraints, *table.indexes)
        return [
            {column.name for column in key.columns}
            for key in keys
            if isinstance(key, UniqueConstraint) or (isinstance(key, Index) and _is_unique(key))
        ]


def _is_async(function: Any) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


def _module(name: str) -> ModuleType | None:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def _table(model: str) -> Table | None:
    return getattr(getattr(_module(TABLES), model, None), "__table__", None)


def _is_unique(index: Index) -> bool:
    """Whether the index is unique over all rows; a partial one is not."""
    return bool(index.unique) and not any(name.endswith("_where") for name in index.dialect_kwargs)
