"""The main story, over real HTTP: somebody pays, the webhook is lost, and the money arrives all the same.

Also for those who never come back; and what does not add up is held, found by the audit, and released.

``make demo`` tells it and exits 0; ``make demo ARGS=--serve`` keeps the host and the provider running for a
browser. Both are stand-ins that live in this folder: a host in Open WebUI's shape, and a YooKassa simulator.
"""

from __future__ import annotations

import argparse
import re
import signal
import sys
import threading
from datetime import UTC, datetime, timedelta
from functools import partial

import httpx

from .harness.host import PASSWORD, RECONCILE, Host, User, running_host
from .harness.waiting import wait_until
from .yookassa.process import running_simulator

SWEEPING = {
    "ENABLE_BILLING_TOPUP_RECONCILE_SWEEP": "true",
    "BILLING_TOPUP_RECONCILE_SWEEP_SECONDS": "2",
}


class StoryError(Exception):
    """The story did not go as it should."""


def tell(what: str, answer: httpx.Response, status: int) -> None:
    """Print one step; it must have this status."""
    print(f"{what:<58} {answer.status_code}  {answer.text}")
    if answer.status_code != status:
        raise StoryError(f"expected {status}")


def tell_balance(what: str, kopeks: int, expected: int) -> None:
    """Print a balance; it must be this much."""
    print(f"{what:<58}      {kopeks / 100:.2f} RUB")
    if kopeks != expected:
        raise StoryError(f"expected {expected} kopeks")


def tell_plugins(host: Host) -> None:
    """Print the host's lines about what is attached, plugins of other people too, and what is left out."""
    for line in re.findall(r"Plugin '.*|Billing top-up reconcile .* is attached: .*", host.log):
        print(line)


def story(host: Host) -> None:
    """Each step with what must come of it."""
    user = host.new_user()
    user_returns(host, user)
    user_never_returns(host, user)
    payment_is_held(host, user)


def user_returns(host: Host, user: User) -> None:
    """The host asks the provider when the user comes back."""
    provider, somebody = host.simulator, host.new_user()
    payment = user.topup(100_000)
    # Captured before the time that the sweep lists, so that it does not come first.
    provider.change(payment, status="succeeded", paid=True, captured_at=days_ago(3))
    tell_balance("A user tops up 1000.00 and pays. The webhook is lost:", user.balance(), 0)
    tell("Back on the balance page, the host asks the provider:", user.reconcile(payment), 200)
    tell_balance("The money is in the wallet:", user.balance(), 100_000)
    tell("Asked again:", user.reconcile(payment), 200)
    tell_balance("It is there once:", user.balance(), 100_000)
    tell("Somebody else asks for the same payment:", somebody.reconcile(payment), 403)


def user_never_returns(host: Host, user: User) -> None:
    """The sweep finds the payment in the provider's list."""
    payment = user.topup(150_000)
    tell_balance("The user tops up 1500.00, and leaves to pay:", user.balance(), 100_000)
    host.simulator.pay(payment)  # last: the sweep may come at any moment
    wait_until(lambda: user.balance() > 100_000, 60, "the sweep did not credit it")
    tell_balance("Paid, nobody comes back: the sweep finds it in the list:", user.balance(), 250_000)


def payment_is_held(host: Host, user: User) -> None:
    """What does not add up waits for an administrator, who releases what was really paid."""
    payment = user.topup(100_000)
    changed = {"amount": {"value": "250.50", "currency": "RUB"}, "captured_at": days_ago(1)}
    host.simulator.change(payment, status="succeeded", paid=True, **changed)
    tell("The user tops up 1000.00, and only 250.50 was paid:", user.reconcile(payment), 409)
    audit = host.admin.audit().raise_for_status().json()
    (found,) = [finding for finding in audit["findings"] if finding["payment_id"] == payment]
    print(f"{'The audit finds it:':<58}      {found['reason']}, {found['amount_kopeks']} kopeks")
    release = partial(host.admin.release, payment, "amount_mismatch")
    tell("An administrator releases what the provider holds:", release(), 200)
    tell("A second time:", release(), 409)
    tell_balance("It is there once:", user.balance(), 275_050)


def days_ago(days: int) -> str:
    """Return a moment as the provider writes it."""
    moment = datetime.now(UTC) - timedelta(days=days)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def serve(host: Host) -> None:
    """Keep running for a browser until Ctrl+C is pressed."""
    user = host.new_user()
    held = user.topup(100_000)
    changed = {"amount": {"value": "900.00", "currency": "RUB"}, "captured_at": days_ago(0)}
    host.simulator.change(held, status="succeeded", paid=True, **changed)
    print(f"\nSign in at {host.base_url}/billing/balance")
    print(f"  as {user.email} with {PASSWORD}")
    print(f"The administrators' console is {host.base_url}{RECONCILE}/console")
    print(f"  for {host.admin.email} with {PASSWORD}: sign in first. A held payment waits there.")
    print("Webhooks are off: whatever is credited is credited by the plugin. Ctrl+C ends it.")
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        print()


def main() -> int:
    """Tell the story; 0 if it went well."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--serve", action="store_true", help="keep running, for a browser")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that it takes its children along
    with running_simulator() as provider, running_host(simulator=provider, env=SWEEPING) as host:
        tell_plugins(host)
        try:
            story(host)
        except StoryError as error:
            print(f"The story went wrong: {error}", file=sys.stderr)
            return 1
        if arguments.serve:
            serve(host)
    return 0


if __name__ == "__main__":
    sys.exit(main())
