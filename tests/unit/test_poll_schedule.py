"""When a client should poll again."""

from __future__ import annotations

import pytest

from openwebui_billing_reconcile.provider.poll_schedule import next_poll


def test_the_intervals_grow_to_half_a_minute() -> None:
    elapsed, waits = 0.0, []
    for _ in range(8):
        waits.append(next_poll(elapsed))
        elapsed += waits[-1]
    assert waits == [3, 5, 8, 13, 21, 34, 34, 34]


def test_a_client_that_keeps_to_it_polls_six_times_in_the_first_minute() -> None:
    elapsed, polls = 0.0, 0
    while elapsed < 60:
        polls += 1
        elapsed += next_poll(elapsed) + 0.05  # the way there and back
    assert polls == 6


@pytest.mark.parametrize(
    ("elapsed", "seconds"), [(1.5, 2), (2.0, 1), (2.7, 6), (119.0, 34)], ids=["mid", "1 s", "early", "late"]
)
def test_a_poll_in_between_is_sent_to_the_next(elapsed: float, seconds: int) -> None:
    assert next_poll(elapsed) == seconds
