"""What a host's source text says, read without importing it.

Importing a host runs its migrations and wipes its static folder, so nobody may import it just to look.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path

PACKAGE = "open_webui"


def find_package(search_path: list[str]) -> Path | None:
    """The folder of the host's package, where a server with this module search path would find it."""
    spec = PathFinder.find_spec(PACKAGE, search_path)
    places = list(spec.submodule_search_locations or ()) if spec else []
    return Path(places[0]) if places else None


class Source:
    """The modules of one host as syntax trees, by their dotted names."""

    def __init__(self, package: Path) -> None:
        self.package = package
        self._tree = cache(self._parse)

    def has_module(self, module: str) -> bool:
        """Whether the module is there and can be parsed."""
        return self._tree(module) is not None

    def names(self, module: str) -> dict[str, ast.AST]:
        """The names at the module's top level and what binds each; imports bind theirs too."""
        tree = self._tree(module)
        return dict(_bindings(tree.body)) if tree else {}

    def members(self, module: str, name: str) -> dict[str, ast.AST]:
        """What the body of a class binds; the class may be imported from another of the host's modules."""
        definition = self.definition(module, name)
        return dict(_bindings(definition.body)) if isinstance(definition, ast.ClassDef) else {}

    def definition(self, module: str, name: str) -> ast.AST | None:
        """What binds ``name``, followed through imports inside the host."""
        for _ in range(10):  # a chain of re-exports longer than that is a circle
            node = self.names(module).get(name)
            if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith(PACKAGE):
                return node
            origin = next((a.name for a in node.names if (a.asname or a.name) == name), name)
            module, name = str(node.module), origin
        return None

    def posts(self, module: str) -> set[str]:
        """The paths of the module's ``@router.post("…")``."""
        tree = self._tree(module)
        calls = (
            decorator
            for node in (ast.walk(tree) if tree else ())
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            for decorator in node.decorator_list
        )
        return {
            str(call.args[0].value)
            for call in calls
            if isinstance(call, ast.Call)
            and isinstance(call.func, ast.Attribute)
            and call.func.attr == "post"
            and call.args
            and isinstance(call.args[0], ast.Constant)
        }

    def _parse(self, module: str) -> ast.Module | None:
        inside = module.split(".")[1:]
        file = self.package.joinpath(*inside)
        for candidate in (file.with_suffix(".py"), file / "__init__.py"):
            try:
                return ast.parse(candidate.read_bytes())
            except (OSError, SyntaxError, ValueError):
                continue
        return None


def unique_keys(table_class: dict[str, ast.AST]) -> list[set[str]]:
    """The column sets of the ``UniqueConstraint("a", "b", …)`` among a class's members."""
    calls = (
        node
        for member in table_class.values()
        for node in ast.walk(member)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "UniqueConstraint"
    )
    return [{str(arg.value) for arg in call.args if isinstance(arg, ast.Constant)} for call in calls]


def arguments(function: ast.AST | None) -> set[str]:
    """The names of a function's parameters."""
    if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
        return set()
    return {arg.arg for arg in (*function.args.args, *function.args.kwonlyargs)}


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
                yield from _bindings(inner + other + last + [s for h in handlers for s in h.body])
            case ast.With(body=inner):
                yield from _bindings(inner)
