"""How often a password may be guessed: after wrong ones, an address and a name have to wait."""

import time
from collections.abc import Callable
from dataclasses import dataclass

_FREE = 3  # wrong passwords in a row without a wait
_LONGEST_WAIT = 300.0  # seconds
_FORGOTTEN = 3600.0  # seconds after the last wrong password
_MOST = 1000  # addresses and names that are remembered; more are a flood


@dataclass(slots=True)
class _Failures:
    count: int
    last: float


class LogInLimit:
    """Wrong passwords, by address and by name. Used by the event loop only.

    An address waits from the fourth wrong password on, twice as long each time. A name waits likewise after ten times
    as many, so that guessing from many addresses is slow too, and one attacker does not lock a user out at once.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        """`now`: seconds."""
        self._now = now
        self._failures: dict[str, _Failures] = {}

    def wait(self, address: str, name: str) -> float:
        """Seconds until a password is looked at again; 0: now."""
        now = self._now()
        keys = ((f"address {address}", _FREE), (f"name {name}", 10 * _FREE))
        waits = [
            failures.last + min(2.0 ** (failures.count - free), _LONGEST_WAIT) - now
            for key, free in keys
            if (failures := self._failures.get(key)) and failures.count >= free
        ]
        if not waits and len(self._failures) >= _MOST:
            self._forget(now)
            waits = [1.0] if len(self._failures) >= _MOST else []
        return max([0.0, *waits])

    def failed(self, address: str, name: str) -> None:
        """Count a wrong password."""
        now = self._now()
        for key in (f"address {address}", f"name {name}"):
            before = self._failures.get(key)
            count = before.count if before and now - before.last < _FORGOTTEN else 0
            self._failures[key] = _Failures(count + 1, now)

    def succeeded(self, address: str, name: str) -> None:
        """Forget the wrong passwords of this address and name."""
        for key in (f"address {address}", f"name {name}"):
            self._failures.pop(key, None)

    def _forget(self, now: float) -> None:
        self._failures = {key: each for key, each in self._failures.items() if now - each.last < _FORGOTTEN}
