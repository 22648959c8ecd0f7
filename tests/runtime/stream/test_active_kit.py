import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from msc_edge.errors import KitError, UsageError
from msc_edge.runtime.detector import Detector
from msc_edge.runtime.stream.active_kit import ActiveKits, KitOptions, KitUse, load_kits
from msc_edge.runtime.stream.config import StreamConfig
from msc_edge.runtime.stream.config_file import check_config
from msc_edge.runtime.stream.reloading import Reloader, ReloadResult

TIMEOUT = 30.0


class Reload:
    """Waits for the result of one reload."""

    def __init__(self) -> None:
        self._finished = threading.Event()
        self._result: ReloadResult | None = None

    def __call__(self, result: ReloadResult) -> None:
        assert not self._finished.is_set(), "called once"
        self._result = result
        self._finished.set()

    def wait(self) -> ReloadResult:
        assert self._finished.wait(TIMEOUT)
        assert self._result
        return self._result


class OneKit:
    """The parts of a stream that has one source, as far as a reload needs them."""

    def __init__(self, path: Path, **limits: float) -> None:
        self.config = check_config({"kit": str(path), "source": [{"address": "0", "name": "cam"}], "limits": limits})
        self.folder = path.parent
        self.frames: list[tuple[str, np.ndarray]] = []
        self.kits = ActiveKits(self.load(self.config))
        self.reloader = Reloader(self, reread=lambda: self.config)  # pyright: ignore[reportArgumentType]

    @property
    def detector(self) -> Detector:
        return self.kits.detector("cam")

    def uses(self, config: StreamConfig) -> dict[str, KitUse]:
        return {"cam": KitUse(config.kit_of(config.source[0]), config.limits)}

    def load(self, config: StreamConfig) -> dict[str, Detector]:
        return load_kits(self.uses(config), KitOptions(threads=1), frames=self.frames)

    def apply(self, config: StreamConfig, detectors: dict[str, Detector]) -> None:
        self.config = config
        self.kits.activate(detectors)


def open_kit(path: Path, **limits: float) -> OneKit:
    return OneKit(path, **limits)


def reload(kit: OneKit) -> ReloadResult:
    finished = Reload()
    kit.reloader.start(finished)
    return finished.wait()


def sha256_in(kit: Path) -> str:
    """manifest.sha256 has the format of `sha256sum`."""
    return (kit / "manifest.sha256").read_text().split()[0]


@pytest.fixture(scope="module")
def other_kit(toy: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A kit with other scores: the mean distance to three nearest normal images, not two."""
    path = tmp_path_factory.mktemp("kits") / "other.kit"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(toy, "K", 3)
        toy.make(path)
    return path


def replace(kit: Path, by: Path) -> None:
    """Replace a kit as an operator does: the old one aside, the new one in its place."""
    kit.rename(kit.with_suffix(".old"))
    shutil.copytree(by, kit)


@pytest.fixture
def scoring(toy: ModuleType) -> Iterator[Callable[[OneKit], list[float]]]:
    """Score one image on two threads until the test ends; the list of scores grows."""
    image = toy.draw(200, "scratch")
    stop = threading.Event()
    threads: list[threading.Thread] = []
    failures: list[BaseException] = []

    def start(kit: OneKit) -> list[float]:
        scores: list[float] = []

        def score() -> None:
            try:
                while not stop.is_set():
                    scores.append(kit.detector.score(image).score)
                    time.sleep(0.005)
            except BaseException as error:
                failures.append(error)

        threads.extend(threading.Thread(target=score, daemon=True) for _ in range(2))
        for thread in threads:
            thread.start()
        return scores

    yield start
    stop.set()
    for thread in threads:
        thread.join(TIMEOUT)
        assert not thread.is_alive()
    assert failures == []


def more_of(scores: list[float]) -> None:
    """Wait until more frames are scored that were started after this call."""
    known, deadline = len(scores), time.monotonic() + TIMEOUT
    while len(scores) < known + 10:
        assert time.monotonic() < deadline, "scoring continues"
        time.sleep(0.01)


def test_the_hash_is_that_of_the_manifest(kit: Path) -> None:
    assert open_kit(kit).detector.kit.sha256 == sha256_in(kit)


def test_a_kit_that_does_not_verify_is_refused_at_the_start(
    kit: Path, change_byte: Callable[[Path, int], None]
) -> None:
    change_byte(kit / "bank.npy", 500)
    with pytest.raises(KitError, match=r"bank\.npy"):
        open_kit(kit)


def test_a_new_kit_becomes_active_while_frames_are_scored(
    kit: Path, other_kit: Path, toy: ModuleType, scoring: Callable[[OneKit], list[float]]
) -> None:
    image = toy.draw(200, "scratch")
    before, after = (open_kit(each).detector.score(image).score for each in (kit, other_kit))
    assert before != after
    running = open_kit(kit)
    old = running.detector.kit.sha256
    scores = scoring(running)
    more_of(scores)
    replace(kit, other_kit)
    more_of(scores)
    result = reload(running)
    assert result.loaded
    assert running.detector.kit.sha256 == sha256_in(other_kit) != old
    assert result.message == f"{kit} is active, SHA-256 of its manifest {running.detector.kit.sha256[:12]}"
    more_of(scores)
    assert set(scores) == {before, after}, "one or the other, and nothing between"
    # Two threads: when the first one uses the new kit, the other one may still score a frame with the old one.
    assert set(scores[scores.index(after) + 2 :]) == {after}


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        ("a bit of the bank", "bank.npy"),
        ("a bit of the model", "model.onnx"),
        ("no manifest", "manifest"),
        ("no folder", "copy.kit"),
        ("a file instead", "copy.kit"),
    ],
)
def test_a_kit_that_does_not_verify_leaves_the_previous_one_active_and_gives_the_reason(
    kit: Path,
    scoring: Callable[[OneKit], list[float]],
    change_byte: Callable[[Path, int], None],
    damage: str,
    named: str,
) -> None:
    running = open_kit(kit)
    previous = running.detector
    scores = scoring(running)
    more_of(scores)
    match damage:
        case "a bit of the bank":
            change_byte(kit / "bank.npy", 500)
        case "a bit of the model":
            change_byte(kit / "model.onnx", 100)
        case "no manifest":
            (kit / "manifest.json").unlink()
        case _:
            shutil.rmtree(kit)
    if damage == "a file instead":
        kit.write_text("not a kit")
    result = reload(running)
    assert not result.loaded
    assert result.message.startswith("the previous kit remains active: ")
    assert named in result.message
    assert running.detector is previous
    more_of(scores)
    assert len(set(scores)) == 1


def test_a_good_kit_is_loaded_after_one_was_refused(
    kit: Path, other_kit: Path, change_byte: Callable[[Path, int], None]
) -> None:
    running = open_kit(kit)
    change_byte(kit / "bank.npy", 500)
    assert not reload(running).loaded
    replace(kit, other_kit)
    assert reload(running).loaded
    assert running.detector.kit.sha256 == sha256_in(other_kit)


def test_requests_during_a_reload_are_refused_and_all_are_answered(kit: Path) -> None:
    running = open_kit(kit)
    reloads = [Reload() for _ in range(20)]
    for each in reloads:
        running.reloader.start(each)
    results = [each.wait() for each in reloads]
    refused = [result.message for result in results if not result.loaded]
    assert 1 <= len(refused) <= 19
    assert set(refused) == {"a kit is being loaded already; try again afterwards"}
    assert reload(running).loaded, "the next request is accepted"


def test_a_reload_may_be_requested_when_the_previous_one_has_finished(kit: Path) -> None:
    running, second = open_kit(kit), Reload()
    running.reloader.start(lambda _: running.reloader.start(second))
    assert second.wait().loaded


@pytest.mark.parametrize("limits", [{"threshold": 0.5}, {"false_alarm_rate": 0.25}])
def test_a_limit_of_the_configuration_applies_to_the_next_kit_too(
    kit: Path, other_kit: Path, limits: dict[str, float]
) -> None:
    running = open_kit(kit, **limits)
    replace(kit, other_kit)
    assert reload(running).loaded
    plain = open_kit(other_kit).detector
    assert running.detector.limits == plain.with_limits(**limits).limits != plain.limits


def test_limits_that_exclude_each_other_are_refused(kit: Path) -> None:
    with pytest.raises(UsageError, match="exclude each other"):
        open_kit(kit, threshold=0.5, false_alarm_rate=0.25)


def test_a_detector_is_unchanged_by_a_reload(kit: Path, other_kit: Path, toy: ModuleType) -> None:
    """Embedding and search are two steps; both use the kit that was read once for the frame."""
    running = open_kit(kit)
    loaded = running.detector
    image = np.ascontiguousarray(toy.draw(200, "stain"))
    output = loaded.run(image)
    expected = loaded.score_output(output, image)
    replace(kit, other_kit)
    assert reload(running).loaded
    assert loaded.score_output(output, image) == expected
    assert loaded.kit.sha256 == sha256_in(kit.with_suffix(".old"))
    assert running.detector is not loaded
