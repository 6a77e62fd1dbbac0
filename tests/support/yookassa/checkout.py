"""The page on which a person pays: plain forms, no script."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from pathlib import Path
from string import Template

from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from .money import Money, format_kopeks
from .payments import Payment, Shop

PAGE = Template(Path(__file__).with_name("checkout.html").read_text(encoding="utf-8"))
HEADERS = {
    "cache-control": "no-store",
    # No form-action: browsers would hold it against the redirect back to the shop as well.
    "content-security-policy": (
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'"
    ),
}
TEXTS = {
    "en": {
        "name": "English",
        "title": "Payment",
        "shop": "Shop {shop_id}",
        "pay": "Pay {amount}",
        "decline": "Decline",
        "back": "Back to the shop",
        "note": "This is a simulator: no money is moved.",
        "state_waiting_for_capture": "The money is held until the shop takes it.",
        "state_succeeded": "The payment went through.",
        "state_canceled": "The payment was declined. Nothing was charged.",
        "state_unknown": "The state of this payment is not known.",
    },
    "ru": {
        "name": "Русский",
        "title": "Оплата",
        "shop": "Магазин {shop_id}",
        "pay": "Оплатить {amount}",
        "decline": "Отклонить",
        "back": "Вернуться в магазин",
        "note": "Это имитация: деньги не списываются.",
        "state_waiting_for_capture": "Деньги удержаны, пока магазин их не примет.",
        "state_succeeded": "Платёж прошёл.",
        "state_canceled": "Платёж отклонён. Деньги не списаны.",
        "state_unknown": "Состояние платежа неизвестно.",
    },
}
SIGNS = {"RUB": "₽", "USD": "$", "EUR": "€"}
THIN_SPACE = "\N{NARROW NO-BREAK SPACE}"
SPACE = "\N{NO-BREAK SPACE}"


class Checkout:
    """The checkout of one shop."""

    def __init__(self, shop: Shop) -> None:
        self._shop = shop

    def routes(self) -> list[Route]:
        """What is served."""
        return [
            Route("/checkout/{payment_id}", self.show, methods=["GET"]),
            Route("/checkout/{payment_id}/pay", self.pay, methods=["POST"]),
            Route("/checkout/{payment_id}/decline", self.decline, methods=["POST"]),
        ]

    async def show(self, request: Request) -> Response:
        """The page."""
        payment_id = request.path_params["payment_id"]
        payment = self._shop.payments.get(payment_id)
        if payment is None:
            return PlainTextResponse("No such payment. / Нет такого платежа.", 404)
        page = _page(payment_id, payment, self._shop.shop_id, _language(request))
        return HTMLResponse(page, headers=HEADERS)

    async def pay(self, request: Request) -> Response:
        """The person pays."""
        return self._decide(request, self._shop.confirm)

    async def decline(self, request: Request) -> Response:
        """The person or the bank says no."""
        return self._decide(
            request,
            lambda payment: self._shop.cancel(payment, "payment_network", "general_decline"),
        )

    def _decide(self, request: Request, act: Callable[[Payment], None]) -> Response:
        """Act on a pending payment and go back; a second click finds nothing left to do."""
        payment_id = request.path_params["payment_id"]
        payment = self._shop.payment(payment_id)
        if payment.status == "pending":
            act(payment)
        return RedirectResponse(payment.return_url or f"/checkout/{payment_id}", 303, HEADERS)


def _language(request: Request) -> str:
    accepted = request.headers.get("accept-language", "").split(",")
    wanted = [request.query_params.get("lang", ""), *(entry.strip()[:2] for entry in accepted)]
    return next((language for language in wanted if language in TEXTS), "en")


def _page(payment_id: str, payment: Payment, shop_id: str, language: str) -> str:
    texts = TEXTS[language]
    other = "en" if language == "ru" else "ru"
    description = payment.document.get("description")
    return PAGE.substitute(
        lang=language,
        title=texts["title"],
        shop=escape(texts["shop"].format(shop_id=shop_id)),
        amount=escape(_amount(payment, language)),
        description=escape(description) if isinstance(description, str) else "",
        action=_action(payment_id, payment, language),
        payment_id=escape(payment_id),
        note=texts["note"],
        other=other,
        other_name=TEXTS[other]["name"],
    )


def _amount(payment: Payment, language: str) -> str:
    money = Money.read(payment.document.get("amount"))
    if money is None:
        return "—"
    sign = SIGNS.get(money.currency, money.currency)
    whole, _, cents = format_kopeks(money.kopeks).partition(".")
    grouped = f"{int(whole):,}"
    if language == "ru":
        return f"{grouped.replace(',', THIN_SPACE)},{cents}{SPACE}{sign}"
    return f"{sign}{grouped}.{cents}" if len(sign) == 1 else f"{grouped}.{cents}{SPACE}{sign}"


def _action(payment_id: str, payment: Payment, language: str) -> str:
    """Two buttons while there is something to decide, then what became of it."""
    texts = TEXTS[language]
    if payment.status == "pending":
        pay = texts["pay"].format(amount=_amount(payment, language))
        return _form(payment_id, "pay", pay, "main") + _form(payment_id, "decline", texts["decline"], "")
    state = texts.get(f"state_{payment.status}", texts["state_unknown"])
    back = payment.return_url and f'<a class="button" href="{escape(payment.return_url)}">'
    link = f"{back}{texts['back']}</a>" if back else ""
    return f'<p class="state" role="status">{state}</p>{link}'


def _form(payment_id: str, verb: str, label: str, style: str) -> str:
    action = f"/checkout/{escape(payment_id)}/{verb}"
    button = f'<button class="{style}">{escape(label)}</button>'
    return f'<form method="post" action="{action}">{button}</form>'
