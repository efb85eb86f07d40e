"""Something done now and then beside other work."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread

from tdcompress.errors import LostError, StoreError

_log = logging.getLogger(__name__)


@contextmanager
def every(seconds: float, do: Callable[[], None]) -> Iterator[None]:
    """Do something every few seconds, in a thread, while the block runs.

    Args:
        seconds: between two times; never at once.
        do: when the store cannot be reached, it is done again; when what it is for is another process's, never again.
    """
    ended = Event()

    def work() -> None:
        while not ended.wait(seconds):
            try:
                do()
            except LostError:
                return
            except StoreError as error:
                _log.warning("%s; tried again in %g s", error, seconds)

    thread = Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
