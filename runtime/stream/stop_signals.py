"""Signals that end a long task in order."""

import signal
from collections.abc import Callable
from contextlib import ExitStack


def stop_on_signals(stop: Callable[[], None], stack: ExitStack) -> None:
    """Ctrl-C, SIGTERM and a closed terminal call `stop`, until the stack is closed; a second Ctrl-C stops at once."""

    def handle(signum: int, frame: object) -> None:  # noqa: ARG001
        signal.signal(signal.SIGINT, signal.default_int_handler)
        stop()

    for name in ("SIGINT", "SIGTERM", "SIGBREAK", "SIGHUP"):
        if hasattr(signal, name):
            number = getattr(signal, name)
            stack.callback(signal.signal, number, signal.signal(number, handle))
