"""``hooks.md`` as the tests read it, and the hooks it documents."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

from openwebui_billing_reconcile import hookspecs
from openwebui_billing_reconcile.hookspecs import PROJECT

_ROOT = Path(__file__).parents[2]
TEXT = (_ROOT / "hooks.md").read_text()
HOOKS = {
    name: value
    for name, value in vars(hookspecs).items()
    if inspect.isfunction(value) and hasattr(value, f"{PROJECT}_spec")
}
EXAMPLES: dict[str, str] = {}
for block in re.findall(
    r"```python\n(.*?)```", TEXT + (_ROOT / "docs" / "own-pluggy-manager.md").read_text(), re.DOTALL
):
    if block.startswith("# "):
        EXAMPLES[block.split("\n", 1)[0].removeprefix("# ").removesuffix(".py")] = block
(TEMPLATE,) = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)


def section(heading: str) -> str:
    """What stands below a heading, up to the next one of its level or above."""
    level = len(heading.split(" ")[0])
    return re.split(rf"\n#{{2,{level}}} ", TEXT.split(f"\n{heading}\n")[1])[0]  # one "#" is a comment in code


def table(first: str, inside: str = TEXT) -> dict[str, list[str]]:
    """The rows of the table whose first column is headed ``first``, by the names in that column's code.

    A row that names two things counts for each.
    """
    (rows,) = re.findall(rf"^\| {re.escape(first)} \|.*\n\|[-|]+\n((?:\|.*\n)+)", inside, re.MULTILINE)
    cells = [[cell.strip() for cell in row.strip("|").split(" |")] for row in rows.splitlines()]
    return {name: rest for head, *rest in cells for name in re.findall(r"`([^`]+)`", head)}


def implemented(code: str) -> set[str]:
    """The hooks that an example implements."""
    return {
        node.name
        for node in ast.parse(code).body
        if isinstance(node, ast.FunctionDef)
        and any(isinstance(d, ast.Name) and d.id == "hookimpl" for d in node.decorator_list)
    }
