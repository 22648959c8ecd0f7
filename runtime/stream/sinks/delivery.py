"""What waits in the outbox, brought to a broker or a server by one thread for each: at least once, oldest first."""

import logging
import threading
import time
from collections.abc import Collection, Sequence
from typing import Protocol

from tenacity import Retrying, retry_if_exception_type, sleep_using_event, stop_when_event_set, wait_random_exponential

from msc_edge.errors import OutputError
from msc_edge.runtime.stream.state import State, Waiting

_LOG = logging.getLogger("msc_edge.stream")

# Seconds between two looks at the outbox without being woken: postponed events come due, connections are looked after.
_IDLE = 1.0
# Seconds until a refused event is tried again: doubled each time, up to a quarter of an hour.
_FIRST_DELAY = 2.0
_LONGEST_DELAY = 900.0


class ChannelError(Exception):
    """The other end cannot be reached. Never leaves Delivery, which tries again.

    `reason` is for logs: no credentials, and the same words for the same trouble. `acknowledged`: the numbers of the
    batch that had arrived before.
    """

    def __init__(self, reason: str, *, acknowledged: Sequence[int] = ()) -> None:
        super().__init__(reason)
        self.reason = reason
        self.acknowledged = tuple(acknowledged)


class Channel(Protocol):
    """A way to the outside. Used by one thread only."""

    @property
    def name(self) -> str:
        """The channel in the outbox, and in logs."""
        ...

    @property
    def refusal(self) -> str:
        """Why events of the last batch were refused; without credentials."""
        ...

    def deliver(self, batch: Sequence[Waiting]) -> list[int]:
        """Deliver in order; the numbers that were acknowledged. The others were refused by a side that is there.

        Called every second with an empty batch too: then it looks after its connection, if it keeps one. Raises
        ChannelError when the other end cannot be reached.
        """
        ...

    def close(self) -> None:
        """Say goodbye and let go. Never raises, and takes a second at most."""
        ...


class Delivery:
    """A thread that delivers what waits for one channel. Start it, wake it after each event, stop it.

    An unreachable side is tried again for ever, with growing random pauses up to `longest_pause` seconds. An event
    that is refused is put off and those behind it go on. An event is removed from the outbox once it was acknowledged:
    it can arrive twice (its id tells), and is not lost.
    """

    def __init__(self, channel: Channel, state: State, *, batch: int = 20, longest_pause: float = 10) -> None:
        self._channel = channel
        self._state = state
        self._batch = batch
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
        # Acknowledged, and still in the outbox because the disk did not take the removal: not to be sent again.
        self._arrived: set[int] = set()
        self._connected = False
        self._failure: str | None = None
        self._refusal: str | None = None
        # Refused and not accepted since: number -> when it must have been tried again, unless it was dropped meanwhile.
        self._refused: dict[int, float] = {}
        self._logged: set[str] = set()

    @property
    def connected(self) -> bool:
        """Whether the other end was reached when it was tried last."""
        return self._connected

    @property
    def trouble(self) -> str | None:
        """What is wrong, without credentials; None when nothing fails and no refused event waits."""
        if self._failure:
            return self._failure
        now = time.monotonic()
        return self._refusal if any(until > now for until in list(self._refused.values())) else None

    def start(self) -> None:
        """Begin. Once only."""
        self._thread.start()

    def wake(self) -> None:
        """There is a new event. Does not cut the pause short that an unreachable side is given."""
        self._wake.set()

    def stop(self, timeout: float) -> None:
        """Deliver what waits, for `timeout` seconds at most, and end. What is left is delivered after the next start.

        A side that cannot be reached is tried once more and not again. Never raises. When the thread hangs longer, as
        with a side that is connected and silent, it is left behind; it ends with the process.
        """
        self._deadline = time.monotonic() + timeout
        self._stop.set()
        self._wake.set()
        if self._thread.ident is None:
            self._channel.close()
            return
        self._thread.join(timeout)
        if self._thread.is_alive():
            _LOG.warning("%s: no answer while stopping; what waits is delivered after the next start", self._name)

    @property
    def _name(self) -> str:
        return self._channel.name

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
            # Only while stopping, and then _attempt has told already.
            pass
        finally:
            self._channel.close()

    def _attempt(self) -> bool:
        try:
            return self._deliver_batch()
        except ChannelError as error:
            self._connected = False
            self._tell(error.reason, "cannot be reached, events wait in the outbox")
            raise
        except OutputError as error:
            self._tell(str(error), "the outbox is in trouble")
            raise
        except Exception as error:
            # A defect of ours must not end the deliveries of a station for good. The text of a foreign error can
            # hold anything, a URL with a password too: only its kind and place are told.
            where = error.__traceback__
            while where and where.tb_next:
                where = where.tb_next
            place = f"{where.tb_frame.f_code.co_filename}:{where.tb_lineno}" if where else "?"
            self._tell(f"internal error {type(error).__name__} at {place}; please report it", "deliveries fail")
            raise

    def _deliver_batch(self) -> bool:
        """Deliver the oldest events; whether there were any."""
        # _arrived is empty unless the disk is full.
        waiting = self._state.waiting(self._name, most=self._batch + len(self._arrived))
        batch = [one for one in waiting if one.number not in self._arrived][: self._batch]
        try:
            acknowledged = self._channel.deliver(batch)
        except ChannelError as error:
            self._remove(error.acknowledged)
            raise
        self._connected = True
        self._remove(acknowledged)
        refused = [one for one in batch if one.number not in acknowledged]
        if refused:
            self._put_off(refused)
        self._recovered()
        return bool(batch)

    def _remove(self, numbers: Collection[int]) -> None:
        self._arrived.update(numbers)
        for number in numbers:
            self._refused.pop(number, None)
        if self._arrived:
            self._state.delivered(sorted(self._arrived))
            self._arrived.clear()

    def _put_off(self, refused: Sequence[Waiting]) -> None:
        self._refusal = self._channel.refusal
        now = time.monotonic()
        self._refused = {number: until for number, until in self._refused.items() if until > now}
        for one in refused:
            delay = delay_after(one.attempts)
            self._refused[one.number] = now + delay + 60
            self._state.postpone(one.number, seconds=delay)
        # Told when an event is refused for the first time; it may be refused a hundred times.
        if fresh := [one.id for one in refused if one.attempts == 0]:
            _LOG.warning(
                "%s: %d events refused, first %s: %s; tried again later",
                self._name,
                len(fresh),
                fresh[0],
                self._refusal,
            )

    def _recovered(self) -> None:
        if self._failure:
            _LOG.info("%s: delivers again", self._name)
        self._failure = None
        self._logged.clear()

    def _tell(self, reason: str, consequence: str) -> None:
        if time.monotonic() >= self._deadline:
            return  # Left behind by stop; the outbox may be closed by now.
        self._failure = reason
        if reason not in self._logged:
            self._logged.add(reason)
            _LOG.warning("%s: %s: %s", self._name, consequence, reason)


def delay_after(attempts: int) -> float:
    """Seconds until an event is tried again that was refused now, and `attempts` times before."""
    return min(_LONGEST_DELAY, _FIRST_DELAY * 2 ** min(attempts, 20))
