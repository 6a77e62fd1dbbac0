"""A host's source text as a ``HostView``, read without importing it.

Importing a host runs its migrations and empties its static folder, so nobody may import it just to look.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Set
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Final

from .requirements import TABLES, Signature

PACKAGE: Final = "open_webui"


def find_package(search_path: list[str]) -> Path | None:
    """Return the folder of the host's package, where a server with this module search path would find it."""
    spec = PathFinder.find_spec(PACKAGE, search_path)
    locations = list(spec.submodule_search_locations or ()) if spec else []
    return Path(locations[0]) if locations else None


class SourceHost:
    """Looks at the files of one host as syntax trees."""

    def __init__(self, package: Path) -> None:
        self.package = package
        self._tree = cache(self._parse)

    def has_module(self, module: str) -> bool:
        """See ``HostView``."""
        return self._tree(module) is not None

    def has_name(self, module: str, name: str) -> bool:
        """See ``HostView``."""
        return self._find(module, name) is not None

    def signature(self, module: str, name: str) -> Signature | None:
        """See ``HostView``."""
        function = self._find(module, name) if "." in name else self._definition(module, name)[1]
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            return None
        arguments = function.args
        by_position = [arg.arg for arg in (*arguments.posonlyargs, *arguments.args)]
        optional = {*by_position[len(by_position) - len(arguments.defaults) :]}
        by_keyword = dict(zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True))
        optional |= {arg.arg for arg, default in by_keyword.items() if default is not None}
        if "." in name and not any(getattr(d, "id", "") == "staticmethod" for d in function.decorator_list):
            by_position = by_position[1:]  # the object itself
        parameters = {*by_position, *(arg.arg for arg in by_keyword)}
        return Signature(
            parameters=parameters - {arg.arg for arg in arguments.posonlyargs},
            required=parameters - optional,
            is_async=isinstance(function, ast.AsyncFunctionDef),
            takes_any=arguments.kwarg is not None,
        )

    def columns(self, model: str) -> Set[str]:
        """See ``HostView``."""
        return set(self._members(TABLES, model))

    def unique_keys(self, model: str) -> list[Set[str]]:
        """See ``HostView``."""
        members = self._members(TABLES, model)
        nodes = (node for member in members.values() for node in ast.walk(member))
        calls = (node for node in nodes if isinstance(node, ast.Call))
        keys: list[Set[str]] = [key for call in calls if (key := _unique_key(call))]
        return keys + [{name} for name, member in members.items() if _is_unique_column(member)]

    def posts(self, module: str) -> set[str]:
        """Return the paths of the module's ``@router.post("…")``."""
        tree = self._tree(module)
        decorators = (
            decorator
            for node in (ast.walk(tree) if tree else ())
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            for decorator in node.decorator_list
        )
        return {
            str(call.args[0].value)
            for call in decorators
            if isinstance(call, ast.Call)
            and isinstance(call.func, ast.Attribute)
            and call.func.attr == "post"
            and call.args
            and isinstance(call.args[0], ast.Constant)
        }

    def _find(self, module: str, name: str) -> ast.AST | None:
        """What binds the dotted name, followed through imports inside the host."""
        first, _, member = name.partition(".")
        if member:
            return self._members(module, first).get(member)
        return self._names(module).get(first)

    def _names(self, module: str) -> dict[str, ast.AST]:
        tree = self._tree(module)
        return dict(_bindings(tree.body)) if tree else {}

    def _members(self, module: str, name: str) -> dict[str, ast.AST]:
        """What the body of a class binds; for an instance ``name = Class()``, of its class."""
        module, definition = self._definition(module, name)
        if isinstance(definition, ast.Assign | ast.AnnAssign) and isinstance(definition.value, ast.Call):
            module, definition = self._definition(module, getattr(definition.value.func, "id", ""))
        return dict(_bindings(definition.body)) if isinstance(definition, ast.ClassDef) else {}

    def _definition(self, module: str, name: str) -> tuple[str, ast.AST | None]:
        """The module in which ``name`` is defined, and what binds it there."""
        for _ in range(10):  # a longer chain of re-exports is a circle
            node = self._names(module).get(name)
            if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith(PACKAGE):
                return module, node
            origin = next((a.name for a in node.names if (a.asname or a.name) == name), name)
            module, name = str(node.module), origin
        return module, None

    def _parse(self, module: str) -> ast.Module | None:
        inside = module.split(".")[1:]
        file = self.package.joinpath(*inside)
        for candidate in (file.with_suffix(".py"), file / "__init__.py"):
            try:
                return ast.parse(candidate.read_bytes())
            except (OSError, SyntaxError, ValueError):
                continue
        return None


def _unique_key(call: ast.Call) -> set[str]:
    """The columns of a ``UniqueConstraint`` or of an ``Index`` that is unique; empty for other calls."""
    texts = [str(arg.value) for arg in call.args if isinstance(arg, ast.Constant)]
    match getattr(call.func, "attr", None) or getattr(call.func, "id", None):
        case "UniqueConstraint":
            return set(texts)
        case "Index" if _is_unique(call):
            return set(texts[1:])  # the first is the index's name
    return set()


def _is_unique_column(member: ast.AST) -> bool:
    """Whether it is ``name = Column(…, unique=True)``, or with ``mapped_column``."""
    call = getattr(member, "value", None)
    return (
        isinstance(call, ast.Call)
        and getattr(call.func, "id", "") in {"Column", "mapped_column"}
        and _is_unique(call)
    )


def _is_unique(call: ast.Call) -> bool:
    return any(k.arg == "unique" and getattr(k.value, "value", False) for k in call.keywords)


def _bindings(body: list[ast.stmt]) -> Iterator[tuple[str, ast.AST]]:
    for node in body:
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name, node
            case ast.Assign(targets=targets):
                yield from ((t.id, node) for t in targets if isinstance(t, ast.Name))
            case ast.AnnAssign(target=ast.Name(id=name)):
                yield name, node
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                yield from ((a.asname or a.name.split(".")[0], node) for a in names)
            case ast.If(body=inner, orelse=other):
                yield from _bindings(inner + other)
            case ast.Try(body=inner, orelse=other, finalbody=last, handlers=handlers):
                # The last one counts, and handlers bind what stands in for what is missing.
                yield from _bindings([s for h in handlers for s in h.body] + inner + other + last)
            case ast.With(body=inner):
                yield from _bindings(inner)
