"""``hooks.md`` as the tests read it, and the hooks it documents."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

from openwebui_billing_reconcile import hookspecs
from openwebui_billing_reconcile.hookspecs import PROJECT

TEXT = (Path(__file__).parents[2] / "hooks.md").read_text()
HOOKS = {
    name: value
    for name, value in vars(hookspecs).items()
    if inspect.isfunction(value) and hasattr(value, f"{PROJECT}_spec")
}
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
EXAMPLES: dict[str, str] = {}
for block in BLOCKS:
    if block.startswith("# "):
        EXAMPLES[block.split("\n", 1)[0].removeprefix("# ").removesuffix(".py")] = block


def implemented(code: str) -> set[str]:
    """The hooks that an example implements."""
    return {
        node.name
        for node in ast.parse(code).body
        if isinstance(node, ast.FunctionDef)
        and any(isinstance(d, ast.Name) and d.id == "hookimpl" for d in node.decorator_list)
    }
