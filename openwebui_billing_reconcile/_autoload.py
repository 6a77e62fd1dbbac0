"""Armed at interpreter start by ``openwebui_billing_reconcile_autoload.pth``. Standard library only.

No ``from __future__`` and no ``typing``: each would be an import at every interpreter start. It puts one
finder on ``sys.meta_path`` and imports nothing. When the host has imported its billing router,
the plugin attaches: before the host includes that router into its application.
"""

import sys

TYPE_CHECKING = False  # typing itself would cost an import at every interpreter start
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

_BILLING_ROUTER = "open_webui.routers.billing"
_HOST_APP = "open_webui.main"
_LOGGER = "openwebui_billing_reconcile"


def install() -> None:
    """Wait for the host's billing router in this process. Installing again changes nothing."""
    if not is_installed():
        sys.meta_path.insert(0, _Finder())


def is_installed() -> bool:
    """Whether the import hook is in place."""
    return any(isinstance(finder, _Finder) for finder in sys.meta_path)


class _Finder:
    """Lets the other finders find the host's modules, and has something run after those two."""

    def find_spec(
        self,
        name: str,
        path: "Sequence[str] | None" = None,
        target: "ModuleType | None" = None,
    ) -> "ModuleSpec | None":
        after = _POST_IMPORT_HOOKS.get(name)
        if after is None:
            return None
        spec = self._found_by_others(name, path, target)
        if spec is not None and spec.loader is not None:
            _run_after(spec.loader, name, after)
        return spec

    def _found_by_others(
        self, name: str, path: "Sequence[str] | None", target: "ModuleType | None"
    ) -> "ModuleSpec | None":
        for finder in sys.meta_path:
            find_spec = None if finder is self else getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = find_spec(name, path, target) if find_spec else None
            if spec is not None:
                return spec
        return None


def _run_after(loader: object, name: str, after: "Callable[[], None]") -> None:
    """Have ``after`` run once the module has. The loader stays what it is: others look at its type."""
    exec_module = loader.exec_module  # type: ignore[attr-defined]  # loaders share no class

    def exec_module_then_attach(module: "ModuleType") -> None:
        exec_module(module)
        if module.__name__ == name:  # some loaders serve many modules
            _run_safely(after)

    try:
        loader.exec_module = exec_module_then_attach  # type: ignore[attr-defined]  # as above
    except (AttributeError, TypeError):
        _log_failure("this host's module loader cannot be followed; call attach() yourself")


def _run_safely(after: "Callable[[], None]") -> None:
    """The host always starts, so whatever goes wrong here is one log line."""
    try:
        after()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - also SystemExit from somebody's import
        _log_failure(f"{type(error).__name__}: {error}")


def _log_failure(why: str) -> None:
    import logging

    logging.getLogger(_LOGGER).error("Billing top-up reconcile is not attached: %s", why)


def _attach() -> None:
    from .attachment.attach import attach

    attach()


def _report_no_billing() -> None:
    if _BILLING_ROUTER not in sys.modules:
        from .attachment.attach import report_no_billing

        report_no_billing()


_POST_IMPORT_HOOKS = {_BILLING_ROUTER: _attach, _HOST_APP: _report_no_billing}
