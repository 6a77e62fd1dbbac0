"""The main story, over real HTTP: somebody pays, the webhook is lost, and the money arrives all the same.

``make demo`` tells it and exits 0; ``make demo ARGS=--serve`` keeps the host and the provider running for a
browser. Both are stand-ins that live in this folder: a host in Open WebUI's shape, and a YooKassa simulator.
"""

from __future__ import annotations

import argparse
import sys
import threading

import httpx

from .harness.host import PASSWORD, Host, running_host
from .yookassa.process import running_simulator


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


def story(host: Host) -> None:
    """Six steps, each with what must come of it."""
    provider = host.simulator
    user, somebody = host.new_user(), host.new_user()

    payment = user.topup(100_000)
    provider.pay(payment)
    tell_balance("A user tops up 1000.00 and pays. The webhook is lost:", user.balance(), 0)
    tell("Back on the balance page, the host asks the provider:", user.reconcile(payment), 200)
    tell_balance("The money is in the wallet:", user.balance(), 100_000)
    tell("Asked again:", user.reconcile(payment), 200)
    tell_balance("It is there once:", user.balance(), 100_000)
    tell("Somebody else asks for the same payment:", somebody.reconcile(payment), 403)

    refunded = user.topup(150_000)
    provider.pay(refunded)
    provider.refund(refunded)
    tell("A payment that was refunded meanwhile:", user.reconcile(refunded), 409)
    tell_balance("Nothing was added:", user.balance(), 100_000)


def serve(host: Host) -> None:
    """Keep running for a browser until Ctrl+C is pressed."""
    user = host.new_user()
    print(f"\nSign in at {host.base_url}/billing/balance")
    print(f"  as {user.email} with {PASSWORD}")
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
    with running_simulator() as provider, running_host(simulator=provider) as host:
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
