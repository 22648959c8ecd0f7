"""The memory through which frames travel from the process of a camera to its parent.

On Linux it is anonymous: it has no name that could stay in /dev/shm when both processes are killed, and no limit such
as the 64 MB of /dev/shm in Docker. Elsewhere it is shared memory with a name; Windows frees it with its last process.
"""

import mmap
import os
from multiprocessing import reduction
from multiprocessing.connection import Connection
from multiprocessing.shared_memory import SharedMemory
from typing import Self

import numpy as np

_HAS_ANONYMOUS = hasattr(os, "memfd_create")


class FrameMemory:
    """Memory of one frame that two processes share."""

    def __init__(self, memory: "mmap.mmap | SharedMemory", *, handle: int = -1, is_owner: bool) -> None:
        """Use `create` or `receive`."""
        self._memory = memory
        self._handle = handle
        self._is_owner = is_owner
        self.size: int = memory.size if isinstance(memory, SharedMemory) else memory.size()
        """Bytes."""

    @classmethod
    def create(cls, size: int) -> Self:
        """New memory of `size` bytes. It must be sent to the other process next."""
        if not _HAS_ANONYMOUS:
            return cls(SharedMemory(create=True, size=size), is_owner=True)
        handle = os.memfd_create("msc-edge frame")
        os.ftruncate(handle, size)
        return cls(mmap.mmap(handle, size), handle=handle, is_owner=True)

    def send(self, connection: Connection, pid: int) -> None:
        """Send it to the process `pid`, which must receive it now."""
        if isinstance(self._memory, SharedMemory):
            connection.send(self._memory.name)
            return
        connection.send(self.size)
        reduction.send_handle(connection, self._handle, pid)
        self._close_handle()

    @classmethod
    def receive(cls, connection: Connection) -> Self:
        """The memory that the other process has sent."""
        sent = connection.recv()
        if isinstance(sent, str):
            return cls(SharedMemory(sent), is_owner=False)
        handle = reduction.recv_handle(connection)
        try:
            return cls(mmap.mmap(handle, sent), is_owner=False)
        finally:
            os.close(handle)

    def frame(self, height: int, width: int) -> np.ndarray:
        """The memory as a frame, uint8 (height, width, 3)."""
        # Not np.ndarray(buffer=...): it does not keep the memory, and a frame that is used after `close` would crash.
        buffer = self._memory.buf if isinstance(self._memory, SharedMemory) else memoryview(self._memory)
        assert buffer is not None, "not closed"
        return np.asarray(buffer)[: height * width * 3].reshape(height, width, 3)

    def close(self) -> None:
        """Free the memory. A frame of it that is still in use keeps it until then."""
        self._close_handle()
        if isinstance(self._memory, SharedMemory):
            if self._is_owner:
                self._memory.unlink()
            try:
                self._memory.close()
            except BufferError:
                self._memory.close = lambda: None  # pyright: ignore[reportAttributeAccessIssue]
        # An anonymous mapping is freed with the last object that refers to it.

    def _close_handle(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1
