"""Tells the person whose top-up was credited late so by email, in English and Russian."""

from __future__ import annotations

import logging
import os
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from smtplib import SMTP
from typing import Final

from openwebui_billing_reconcile import TopupEvent, hookimpl

log = logging.getLogger(__name__)

LATE_WAYS: Final = frozenset({"visit", "sweep", "release"})
"""Whoever comes back from the provider's page ("return") sees the credit there."""

TIMEOUT: Final = 10.0

SUBJECT: Final = "Your top-up was credited / Пополнение зачислено"
TEXT: Final = """\
Hello,

your top-up of {amount} has been credited to your balance. The payment provider's notice was late or lost;
we are sorry for the wait. There is nothing that you have to do.

Payment: {payment_id}

---

Здравствуйте!

Ваше пополнение на {amount} зачислено на баланс. Уведомление платёжной системы задержалось или потерялось;
извините за ожидание. Делать ничего не нужно.

Платёж: {payment_id}
"""


@hookimpl
def topup_outcome(event: TopupEvent) -> None:
    """Send the notice of a late credit; a failure is one log line."""
    if event.outcome != "credited" or event.way not in LATE_WAYS:
        return
    try:
        message = notice(event, os.environ["LATE_CREDIT_NOTICE_FROM"], address_of(event.user_id))
        host = os.environ["LATE_CREDIT_NOTICE_SMTP_HOST"]
        with SMTP(host, int(os.environ.get("LATE_CREDIT_NOTICE_SMTP_PORT", "25")), timeout=TIMEOUT) as smtp:
            smtp.send_message(message)
    except Exception as error:  # noqa: BLE001 - whatever a mail server or a wrong setting leads to
        # The name only: the text of some errors holds the address.
        log.warning("No notice of the late credit %s was sent: %s", event.payment_id, type(error).__name__)


def address_of(user_id: str) -> str:
    """Look an account's address up in the host's own table; raises where there is no such account.

    Synchronous, as listeners are: on newer hosts ``Users.get_user_by_id`` is a coroutine of their event loop.
    """
    # Not at the top: the host is still being imported then, and `status` never imports it.
    from open_webui.internal.db import get_db
    from open_webui.models.users import User

    with get_db() as db:
        return str(db.query(User.email).filter(User.id == user_id).one().email)


def notice(event: TopupEvent, sender: str, address: str) -> EmailMessage:
    """Return the notice of a credit to the person at ``address``."""
    message = EmailMessage()
    message["From"] = sender
    message["To"] = Address(addr_spec=address)  # one address, whatever is in it
    message["Subject"] = SUBJECT
    message["Date"] = formatdate()
    message["Message-ID"] = make_msgid(domain=message["From"].addresses[0].domain)
    message["Auto-Submitted"] = "auto-generated"  # so that no mailbox answers "out of office"
    message.set_content(TEXT.format(amount=_amount(event), payment_id=event.payment_id))
    return message


def _amount(event: TopupEvent) -> str:
    rubles, kopeks = divmod(event.amount_kopeks or 0, 100)  # a credit has an amount
    return f"{rubles}.{kopeks:02} {event.currency}"
