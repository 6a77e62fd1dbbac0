"""The host's application with the plugin attached, for those who want no start-up hook.

``uvicorn openwebui_billing_reconcile.asgi:app`` instead of ``uvicorn open_webui.main:app``.
"""

from . import _autoload

_autoload.install()

from open_webui.main import app  # noqa: E402 - the hook must be in place first

__all__ = ["app"]
