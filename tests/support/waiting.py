"""Waiting for conditions, never for time."""

import os
import time

# How long a condition may take before a test gives up; TEST_PATIENCE scales it.
PATIENCE_S = 60.0 * float(os.environ.get("TEST_PATIENCE", "1"))


def wait_until(condition, what="the condition", patience_s=PATIENCE_S):
    """Poll `condition` until it holds and return its value."""
    deadline = time.monotonic() + patience_s
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not happen within {patience_s:.0f} s")
        time.sleep(0.002)
    return value
