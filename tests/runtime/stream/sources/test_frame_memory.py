import gc
import multiprocessing
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from msc_edge.runtime.stream.sources import frame_memory
from msc_edge.runtime.stream.sources.frame_memory import FrameMemory


def write(connection) -> None:
    """Main function of another process: write into the memory that it receives."""
    memory = FrameMemory.receive(connection)
    memory.frame(2, 3)[:] = 7
    connection.send(memory.size)
    connection.recv()


@pytest.mark.parametrize("anonymous", [True, False])
def test_what_another_process_writes_is_there(monkeypatch: pytest.MonkeyPatch, anonymous: bool) -> None:
    if anonymous and not frame_memory._HAS_ANONYMOUS:
        pytest.skip("only Linux has memory without a name")
    monkeypatch.setattr(frame_memory, "_HAS_ANONYMOUS", anonymous)
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=write, args=(theirs,), daemon=True)
    process.start()
    memory = FrameMemory.create(18)
    memory.send(ours, process.pid or 0)
    assert ours.recv() >= 18
    frame = memory.frame(2, 3)
    assert np.array_equal(frame, np.full((2, 3, 3), 7, np.uint8))
    ours.send(None)
    process.join(30)
    memory.close()
    assert int(frame.sum()) == 18 * 7, "valid as long as it is used"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux lists open files")
def test_no_file_stays_open() -> None:
    def files() -> int:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208

    before, shared = files(), set(Path("/dev/shm").iterdir())
    for _ in range(20):
        memory = FrameMemory.create(1 << 20)
        frame = memory.frame(10, 10)
        memory.close()
        del memory, frame
    gc.collect()
    assert files() <= before
    assert {path for path in set(Path("/dev/shm").iterdir()) - shared if path.name.startswith("psm_")} == set()
