"""When a client should poll again for an undecided payment.

The provider asks its clients to poll "at growing intervals, for example Fibonacci". Six polls fall into the
first minute.
"""

from __future__ import annotations

import math
from itertools import accumulate
from typing import Final

_INTERVALS: Final = (3, 5, 8, 13, 21, 34)
_POLLS: Final = tuple(accumulate(_INTERVALS))
_EARLY: Final = 1.0
"""Seconds. A client that comes less than this early has kept its appointment and gets the next one."""


def next_poll(elapsed: float) -> int:
    """Return the whole seconds until the next poll is due, ``elapsed`` seconds after the first one."""
    due = next((poll for poll in _POLLS if poll - elapsed >= _EARLY), elapsed + _INTERVALS[-1])
    return math.ceil(due - elapsed)
