"""Delivers the events of the outbox to a broker or a server: one thread per channel, at least once, oldest first."""

import logging
import threading
import time
from collections.abc import Sequence
from typing import Protocol

from tenacity import Retrying, retry_if_exception_type, sleep_using_event, stop_when_event_set, wait_random_exponential

from msc_edge.runtime.stream.events import Waiting
from msc_edge.runtime.stream.logs import LOG, FailureLog
from msc_edge.runtime.stream.outbox import Outbox

# Seconds between two attempts without a wake-up: postponed events become due, and channels check their connection.
_IDLE = 1.0
# Failures of one event in a row after which the event behind it is tried.
_SUSPICIOUS = 3
# Seconds until the first retry of a refused event; doubled each time up to a quarter of an hour.
_FIRST_DELAY = 2.0
_LONGEST_DELAY = 900.0


class ChannelError(Exception):
    """The other side cannot be reached. Delivery handles it and retries.

    `reason` is for logs: without credentials, and the same text for the same failure. `acknowledged`: the numbers of
    the batch that were acknowledged before the failure.
    """

    def __init__(self, reason: str, *, acknowledged: Sequence[int] = ()) -> None:
        super().__init__(reason)
        self.reason = reason
        self.acknowledged = tuple(acknowledged)


class Channel(Protocol):
    """A connection to a broker or a server. Used by one thread only."""

    @property
    def name(self) -> str:
        """The channel in the outbox and in logs."""
        ...

    @property
    def refusal(self) -> str:
        """Why events of the last batch were refused; without credentials."""
        ...

    def deliver(self, batch: Sequence[Waiting]) -> list[int]:
        """Deliver in order; returns the numbers that were acknowledged. The others were refused.

        Called every second with an empty batch too, so that a channel can check its connection. Raises ChannelError
        when the other side cannot be reached.
        """
        ...

    def close(self) -> None:
        """Disconnect. Never raises, and takes a second at most."""
        ...


class Delivery:
    """The thread of one channel. Start it, wake it after each event, stop it.

    An unreachable side is retried forever, with growing random pauses up to `longest_pause` seconds. A refused event is
    set aside: retried after growing pauses, while later ones are delivered. So is an event that fails again and again
    while the one behind it is acknowledged, for example because it makes the other side disconnect. An event is removed
    from the outbox after it was acknowledged: it is never lost, and may arrive twice with the same id.
    """

    def __init__(self, channel: Channel, outbox: Outbox, *, batch: int = 20, longest_pause: float = 10) -> None:
        self.name = channel.name
        self._channel = channel
        self._outbox = outbox
        self._longest_batch = self._batch = batch
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._deadline = float("inf")
        self._thread = threading.Thread(target=self._run, name=f"msc-edge-{channel.name}", daemon=True)
        self._retrying = Retrying(
            retry=retry_if_exception_type(Exception),
            wait=wait_random_exponential(multiplier=0.5, max=longest_pause),
            sleep=sleep_using_event(self._stop),
            stop=stop_when_event_set(self._stop),
            reraise=True,
        )
        self._suspect = ""  # id of the event that failed last, as the only one of its batch
        self._failures_of_suspect = 0
        self._connected = False
        self._failures = FailureLog(f"{channel.name}: delivers again", level=logging.WARNING)
        self._failure: str | None = None
        self._refusal: str | None = None
        # Events set aside: id -> time.monotonic() by which they are retried, unless they were dropped meanwhile.
        self._refused: dict[str, float] = {}

    @property
    def connected(self) -> bool:
        """Whether the other side was reached at the last attempt."""
        return self._connected

    @property
    def failure(self) -> str | None:
        """The current failure, without credentials; None when nothing fails and no refused event waits."""
        if self._failure:
            return self._failure
        return self._refusal if self.set_aside else None

    @property
    def set_aside(self) -> int:
        """Number of events that are set aside."""
        now = time.monotonic()
        return sum(until > now for until in list(self._refused.values()))

    def start(self) -> None:
        """Start the thread. Once only."""
        self._thread.start()

    def wake(self) -> None:
        """Deliver a new event at once. A pause after a failure is not shortened."""
        self._wake.set()

    def stop(self, timeout: float) -> None:
        """Deliver the backlog for `timeout` seconds at most, and end. The rest is delivered after the next start.

        An unreachable side is tried once more. Never raises. A thread that does not end in time, because the other side
        is connected and silent, ends with the process.
        """
        self._deadline = time.monotonic() + timeout
        self._stop.set()
        self._wake.set()
        if self._thread.ident is None:
            self._channel.close()
            return
        self._thread.join(timeout)
        if self._thread.is_alive():
            LOG.warning("%s: no answer while stopping; the backlog is delivered after the next start", self.name)

    def _run(self) -> None:
        try:
            while time.monotonic() < self._deadline:
                self._wake.clear()
                busy = self._retrying(self._attempt)
                if busy:
                    continue
                if self._stop.is_set():
                    break
                self._wake.wait(_IDLE)
        except Exception:
            # Only while stopping, and _attempt has reported it.
            pass
        finally:
            self._channel.close()

    def _attempt(self) -> bool:
        try:
            return self._deliver_batch()
        except ChannelError as error:
            self._connected = False
            self._report_failure("cannot be reached, events wait in the outbox", error.reason)
            raise
        except Exception as error:
            # An internal error must not end the deliveries of a station. Log its type and place only: the text of an
            # exception from a library can contain a URL with a password.
            where = error.__traceback__
            while where and where.tb_next:
                where = where.tb_next
            place = f"{where.tb_frame.f_code.co_filename}:{where.tb_lineno}" if where else "?"
            self._report_failure(
                "deliveries fail", f"internal error {type(error).__name__} at {place}; please report it"
            )
            raise

    def _deliver_batch(self) -> bool:
        """Deliver the oldest events; whether there were any."""
        batch = self._outbox.waiting(self.name, limit=self._batch)
        try:
            acknowledged = self._channel.deliver(batch)
        except ChannelError as error:
            self._remove(batch, error.acknowledged)
            self._suspect_first([event for event in batch if event.number not in error.acknowledged])
            raise
        self._connected = True
        self._batch = min(2 * self._batch, self._longest_batch)
        self._remove(batch, acknowledged)
        refused = [event for event in batch if event.number not in acknowledged]
        if refused:
            self._postpone(refused, self._channel.refusal)
        self._failure = None
        self._failures.recovered()
        return bool(batch)

    def _remove(self, batch: Sequence[Waiting], acknowledged: Sequence[int]) -> None:
        removed = [event for event in batch if event.number in acknowledged]
        for event in removed:
            self._refused.pop(event.id, None)
        self._outbox.remove(self.name, [event.id for event in removed])

    def _suspect_first(self, failed: Sequence[Waiting]) -> None:
        """Deliver one by one after a failure. When one event fails repeatedly, try the one behind it.

        If that one is acknowledged, the other side works, and the event is to blame; otherwise nobody knows.
        """
        if not failed:
            return
        self._batch = 1
        first, alone = failed[0], len(failed) == 1
        if first.id != self._suspect:
            self._suspect, self._failures_of_suspect = first.id, 0
        self._failures_of_suspect += alone
        if not alone or (first.attempts == 0 and self._failures_of_suspect % _SUSPICIOUS):
            return
        next_one = self._outbox.waiting(self.name, limit=2)[1:]
        if not next_one:
            return  # nothing is blocked
        if acknowledged := self._channel.deliver(next_one):  # ChannelError: the other side is away
            self._remove(next_one, acknowledged)
            self._postpone([first], f"{self._failure or 'its delivery fails'}, while later events arrive")

    def _postpone(self, refused: Sequence[Waiting], reason: str) -> None:
        self._refusal = reason
        now = time.monotonic()
        self._refused = {id: until for id, until in self._refused.items() if until > now}
        for event in refused:
            delay = retry_delay(event.attempts)
            self._refused[event.id] = now + delay + 60
            self._outbox.postpone(self.name, event.id, seconds=delay)
        # Logged at the first refusal only; an event can be refused a hundred times.
        if new := [event.id for event in refused if event.attempts == 0]:
            LOG.warning(
                "%s: %d events set aside, first %s: %s; retried later", self.name, len(new), new[0], self._refusal
            )

    def _report_failure(self, consequence: str, reason: str) -> None:
        if time.monotonic() >= self._deadline:
            return  # `stop` has given up on this thread; the outbox may be closed.
        self._failure = reason
        self._failures.report_failure(f"{self.name}: {consequence}: {reason}")


def retry_delay(attempts: int) -> float:
    """Seconds until the next attempt for an event that was refused `attempts` times before this time."""
    return min(_LONGEST_DELAY, _FIRST_DELAY * 2 ** min(attempts, 20))
