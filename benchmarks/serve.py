"""`msc-edge serve`: images per second beside a folder, and 10,000 mixed requests of 16 clients.

    python benchmarks/serve.py KIT PHOTOGRAPHS.zip [--requests 10000] [--clients 16] [--files 300] [--rounds 5]

First, each round scores the same files as a folder (`score_images`, in this process) and over HTTP, one after the
other, with the same number of threads; the result is the median ratio of images per second. The clients run on the same
PC and take time from the server, so the script also prints the ratio of processor time per image.

Then the clients send the requests: the files, and among them truncated, empty, huge and mislabelled bodies, while other
clients send one byte a second. Each response must have the expected status, and each result must be that of the
library. The script prints the memory of the server after the first tenth of the requests and at the end, and exits with
1 where a response was wrong.
"""

import http.client
import json
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from common import msc_edge, parser_of
from folder import write_files

from msc_edge.runtime import Detector
from msc_edge.runtime.batch import score_images
from msc_edge.runtime.processor import usable_cores

LARGEST = 20_000_000  # bytes of a body
SLOW = 8  # clients that send one byte a second
TIMEOUT = 600


@dataclass(frozen=True)
class Case:
    """A request, and what its response must be."""

    body: bytes
    status: int
    kind: str = "application/octet-stream"
    expected: dict[str, Any] | None = None


@contextmanager
def server_of(kit: Path) -> Iterator[int]:
    """The port of a running server."""
    process = subprocess.Popen(
        msc_edge("serve", kit, "--port", 0, "--max-bytes", LARGEST, "--timeout", 60, "--queue", 64),
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr
    found = re.search(r"http://[\d.]+:(\d+)", process.stderr.readline())
    if not found:
        sys.exit(process.stderr.read())
    try:
        yield int(found[1])
    finally:
        process.terminate()
        process.wait()


def metric(port: int, name: str) -> float:
    """One metric of the server."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    found = re.search(rf"^{name} (\S+)$", text, flags=re.MULTILINE)
    assert found, name
    return float(found[1])


def send_all(port: int, cases: Sequence[Case], clients: int, done: Callable[[], None] = lambda: None) -> Counter[str]:
    """Send requests from several clients, each on its connection; count the wrong responses, by what is wrong."""
    left, wrong = deque(cases), Counter[str]()

    def client() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
        while True:
            try:
                case = left.popleft()
            except IndexError:
                break
            try:
                connection.request("POST", "/score", case.body, {"Content-Type": case.kind})
                response = connection.getresponse()
                content = response.read()
            except OSError as error:
                wrong[f"{case.status}: {type(error).__name__}"] += 1
                connection.close()
                continue
            if response.status != case.status:
                wrong[f"{response.status} instead of {case.status}"] += 1
            elif case.expected and not case.expected.items() <= json.loads(content).items():
                wrong["another result"] += 1
            done()
        connection.close()

    with ThreadPoolExecutor(clients) as pool:
        for each in [pool.submit(client) for _ in range(clients)]:
            each.result()
    return wrong


def drip(port: int, stop: threading.Event) -> None:
    """A client that sends one byte a second, again and again."""
    while not stop.is_set():
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
        connection.putrequest("POST", "/score")
        connection.putheader("Content-Type", "image/png")
        connection.putheader("Content-Length", "1000000")
        connection.endheaders()
        try:
            while not stop.wait(1):
                connection.send(b"\0")
        except OSError:  # the server has closed it
            pass
        connection.close()


def mixed(files: Sequence[Case], count: int) -> Iterator[Case]:
    """Requests with the files, and one of five broken ones in each twenty."""
    for number in range(count):
        good = files[number % len(files)]
        broken = [
            Case(good.body[: len(good.body) // 2], 422),
            Case(b"", 422),
            Case(good.body, 415, kind="text/plain"),
            Case(b"--x\r\nbroken", 400, kind="multipart/form-data; boundary=x"),
            Case(bytes(LARGEST + 1), 413) if number % 400 == 399 else Case(bytes(100_000), 422),
        ]
        yield broken[number // 20 % 5] if number % 20 == 19 else good


def main() -> None:
    """Measure and print."""
    parser = parser_of(__doc__)
    parser.add_argument("kit", type=Path, metavar="KIT")
    parser.add_argument("photographs", type=Path, metavar="PHOTOGRAPHS.zip", help="a zip of colour photographs")
    parser.add_argument("--requests", type=int, default=10_000, help="default: %(default)s")
    parser.add_argument("--clients", type=int, default=16, help="default: %(default)s")
    parser.add_argument("--files", type=int, default=300, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        paths = write_files(options.photographs, scratch, options.files)
        detector = Detector.load(options.kit, threads=1)
        files = [Case(path.read_bytes(), 200, expected=detector.score_file(path).to_dict()) for path in paths]
        port = stack.enter_context(server_of(options.kit))
        print(f"{len(files)} files, {sum(len(each.body) for each in files) / 1e6:.0f} MB; {usable_cores()} cores")
        measure(port, detector, paths, files, rounds=options.rounds, clients=options.clients)
        wrong = endure(port, list(mixed(files, options.requests)), clients=options.clients)
    if wrong:
        sys.exit(f"wrong responses: {dict(wrong)}")


def measure(
    port: int, detector: Detector, paths: Sequence[Path], files: Sequence[Case], *, rounds: int, clients: int
) -> None:
    """Print the images per second of the folder and of the server, in turns."""
    rates, times = [], []
    for _ in range(rounds):
        start, used = time.perf_counter(), time.process_time()
        deque(score_images(detector, paths), maxlen=0)
        folder, folder_used = time.perf_counter() - start, time.process_time() - used
        start, used = time.perf_counter(), metric(port, "process_cpu_seconds_total")
        if wrong := send_all(port, files, clients):
            sys.exit(f"wrong responses: {dict(wrong)}")
        served, served_used = time.perf_counter() - start, metric(port, "process_cpu_seconds_total") - used
        rates.append(folder / served)
        times.append(served_used / folder_used)
        print(
            f"folder {len(files) / folder:.1f} images/s, server {len(files) / served:.1f}; ratio {rates[-1]:.3f}; "
            f"processor time per image {times[-1]:.3f} times that of the folder",
            flush=True,
        )
    print(f"median ratio of images/s {np.median(rates):.3f}; of processor time per image {np.median(times):.3f}")


def endure(port: int, cases: Sequence[Case], *, clients: int) -> Counter[str]:
    """Send all requests, with slow clients beside them; print memory and statuses. The wrong responses."""
    stop, done, memory = threading.Event(), Counter[str](), []
    slow = [threading.Thread(target=drip, args=(port, stop), daemon=True) for _ in range(SLOW)]
    for each in slow:
        each.start()

    def count() -> None:
        done["responses"] += 1
        if done["responses"] == len(cases) // 10:
            memory.append(metric(port, "process_resident_memory_bytes"))

    start = time.perf_counter()
    wrong = send_all(port, cases, clients, count)
    seconds = time.perf_counter() - start
    memory.append(metric(port, "process_resident_memory_bytes"))
    stop.set()
    for each in slow:
        each.join()
    print(
        f"{len(cases)} requests in {seconds:.0f} s from {clients} clients beside {SLOW} slow ones: "
        f"{dict(Counter(case.status for case in cases))}, {wrong.total()} wrong; memory of the server "
        f"{memory[0] / 1e6:.0f} MB after a tenth, {memory[-1] / 1e6:.0f} MB at the end; "
        f"{metric(port, 'process_open_fds'):.0f} files open"
    )
    return wrong


if __name__ == "__main__":
    main()
