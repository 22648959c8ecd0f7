"""A limit for the time that a whole exchange with a server takes, however slowly its bytes come."""

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


@contextmanager
def deadline(seconds: float, shut_down: Callable[[], None]) -> Iterator[None]:
    """Call `shut_down` after some seconds; what then fails, or seems complete, is a TimeoutError."""
    expired = threading.Event()

    def expire() -> None:
        expired.set()
        with suppress(OSError):  # it was closed meanwhile
            shut_down()

    timer = threading.Timer(seconds, expire)
    timer.daemon = True
    timer.start()
    try:
        yield
    except (OSError, http.client.HTTPException):
        if not expired.is_set():
            raise
    finally:
        timer.cancel()
        timer.join()  # nothing shuts down a connection that is used again later
    if expired.is_set():  # an end of data within the head counts as its end
        raise TimeoutError from None
