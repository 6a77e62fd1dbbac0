"""Adds the fork's routers to the application."""

from __future__ import annotations

from fastapi import FastAPI


def bootstrap_airis(app: FastAPI) -> None:
    """Import the billing routers, then include them: a hook may stand between the two."""
    from open_webui.routers import admin_billing, billing

    app.include_router(billing.router, prefix="/api/v1/billing", tags=["billing"])
    app.include_router(admin_billing.router, prefix="/api/v1/admin/billing", tags=["admin", "billing"])
