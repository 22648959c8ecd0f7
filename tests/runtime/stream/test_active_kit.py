import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from msc_edge.errors import KitError, UsageError
from msc_edge.runtime.stream.active_kit import ActiveKit
from msc_edge.runtime.stream.config import LimitsConfig

PATIENCE = 30.0


class Answer:
    """What `reload` told, when it did."""

    def __init__(self) -> None:
        self._told = threading.Event()
        self._loaded, self._words = False, ""

    def __call__(self, loaded: bool, words: str) -> None:
        assert not self._told.is_set(), "once"
        self._loaded, self._words = loaded, words
        self._told.set()

    def wait(self) -> tuple[bool, str]:
        assert self._told.wait(PATIENCE)
        return self._loaded, self._words


def open_kit(path: Path, **limits: float) -> ActiveKit:
    return ActiveKit(path, threads=1, limits=LimitsConfig.model_validate(limits))


def reload(kit: ActiveKit) -> tuple[bool, str]:
    answer = Answer()
    kit.reload(answer)
    return answer.wait()


@pytest.fixture
def other_kit(toy: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Another kit, which gives other scores: the mean of three nearest normals, and not of two."""
    monkeypatch.setattr(toy, "K", 3)
    toy.make(tmp_path / "other.kit")
    return tmp_path / "other.kit"


def put(new: Path, kit: Path) -> None:
    """As an operator exchanges a kit: the old one aside, the new one in its place."""
    kit.rename(kit.with_suffix(".old"))
    shutil.copytree(new, kit)


@pytest.fixture
def scoring(toy: ModuleType) -> Iterator[Callable[[ActiveKit], list[float]]]:
    """Score one image on two threads all the while; gives the scores in order, of both."""
    image = toy.draw(200, "scratch")
    stop = threading.Event()
    threads: list[threading.Thread] = []
    failures: list[BaseException] = []

    def start(kit: ActiveKit) -> list[float]:
        scores: list[float] = []

        def score() -> None:
            try:
                while not stop.is_set():
                    scores.append(kit.detector.score(image).score)
                    time.sleep(0.001)
            except BaseException as error:
                failures.append(error)

        threads.extend(threading.Thread(target=score, daemon=True) for _ in range(2))
        for thread in threads:
            thread.start()
        return scores

    yield start
    stop.set()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert failures == []


def more_of(scores: list[float]) -> None:
    """Wait until frames that began after now were scored."""
    known, end = len(scores), time.monotonic() + PATIENCE
    while len(scores) < known + 10:
        assert time.monotonic() < end, "scoring goes on"
        time.sleep(0.01)


def test_the_hash_is_the_one_that_the_kit_carries(kit: Path) -> None:
    """manifest.sha256 is in the format of `sha256sum`."""
    assert open_kit(kit).sha256 == (kit / "manifest.sha256").read_text().split()[0]


def test_a_kit_that_does_not_verify_is_not_put_in_force_at_the_start(
    kit: Path, change_byte: Callable[[Path, int], None]
) -> None:
    change_byte(kit / "bank.npy", 500)
    with pytest.raises(KitError, match=r"bank\.npy"):
        open_kit(kit)


def test_a_new_kit_is_put_in_force_while_others_score(
    kit: Path, other_kit: Path, toy: ModuleType, scoring: Callable[[ActiveKit], list[float]]
) -> None:
    image = toy.draw(200, "scratch")
    before, after = open_kit(kit).detector.score(image).score, open_kit(other_kit).detector.score(image).score
    assert before != after
    running = open_kit(kit)
    old = running.sha256
    scores = scoring(running)
    more_of(scores)
    put(other_kit, kit)
    more_of(scores)
    loaded, words = reload(running)
    assert loaded
    assert running.sha256 == (other_kit / "manifest.sha256").read_text().split()[0] != old
    assert words == f"{kit} is in force, SHA-256 of its manifest {running.sha256[:12]}"
    more_of(scores)
    assert set(scores) == {before, after}, "one or the other, and nothing between"
    # Two threads: when the first of them has the new kit, the other may be at one frame with the old one.
    assert set(scores[scores.index(after) + 2 :]) == {after}


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        ("a bit of the bank", "bank.npy"),
        ("a bit of the model", "model.onnx"),
        ("a file less", "normals.json"),
        ("no manifest", "manifest"),
        ("an empty folder", "manifest"),
        ("gone", "copy.kit"),
        ("a text in its place", "copy.kit"),
    ],
)
def test_one_that_does_not_verify_leaves_the_old_one_in_force_and_says_why(
    kit: Path,
    scoring: Callable[[ActiveKit], list[float]],
    change_byte: Callable[[Path, int], None],
    damage: str,
    named: str,
) -> None:
    running = open_kit(kit)
    old, detector = running.sha256, running.detector
    scores = scoring(running)
    more_of(scores)
    match damage:
        case "a bit of the bank":
            change_byte(kit / "bank.npy", 500)
        case "a bit of the model":
            change_byte(kit / "model.onnx", 100)
        case "a file less":
            (kit / "normals.json").unlink()
        case "no manifest":
            (kit / "manifest.json").unlink()
        case _:
            shutil.rmtree(kit)
    if damage == "an empty folder":
        kit.mkdir()
    if damage == "a text in its place":
        kit.write_text("not a kit")
    loaded, words = reload(running)
    assert not loaded
    assert words.startswith("the kit before stays in force: ")
    assert named in words
    assert running.sha256 == old
    assert running.detector is detector
    more_of(scores)
    assert len(set(scores)) == 1


def test_after_one_was_refused_a_good_one_is_taken(
    kit: Path, other_kit: Path, change_byte: Callable[[Path, int], None]
) -> None:
    running = open_kit(kit)
    change_byte(kit / "bank.npy", 500)
    assert not reload(running)[0]
    put(other_kit, kit)
    assert reload(running)[0]
    assert running.sha256 == (other_kit / "manifest.sha256").read_text().split()[0]


def test_while_one_is_loaded_others_are_turned_down_and_all_are_told(kit: Path) -> None:
    running = open_kit(kit)
    answers = [Answer() for _ in range(20)]
    for answer in answers:
        running.reload(answer)
    told = [answer.wait() for answer in answers]
    turned_down = [words for loaded, words in told if not loaded]
    assert 1 <= len(turned_down) <= 19
    assert set(turned_down) == {"a kit is being loaded already; try again when that is done"}
    assert reload(running)[0], "and the next one is taken again"


def test_one_who_is_told_may_ask_again_at_once(kit: Path) -> None:
    running, second = open_kit(kit), Answer()
    running.reload(lambda loaded, words: running.reload(second))  # noqa: ARG005
    assert second.wait()[0]


@pytest.mark.parametrize("limits", [{"threshold": 0.5}, {"false_alarm_rate": 0.25}])
def test_a_limit_of_the_configuration_holds_for_the_next_kit_too(
    kit: Path, other_kit: Path, limits: dict[str, float]
) -> None:
    running = open_kit(kit, **limits)
    put(other_kit, kit)
    assert reload(running)[0]
    plain = open_kit(other_kit).detector
    assert running.detector.limits == plain.with_limits(**limits).limits != plain.limits


def test_limits_that_cannot_be_met_are_told(kit: Path) -> None:
    with pytest.raises(UsageError, match="give one"):
        open_kit(kit, threshold=0.5, false_alarm_rate=0.25)


def test_a_frame_is_scored_with_the_detector_that_it_began_with(kit: Path, other_kit: Path, toy: ModuleType) -> None:
    """Embedding and judging are two steps: those who took the detector keep it whole."""
    running = open_kit(kit)
    detector = running.detector
    embedding = detector.embed(np.ascontiguousarray(toy.draw(200, "stain")))
    expected = detector.score_embedding(embedding)
    put(other_kit, kit)
    assert reload(running)[0]
    assert detector.score_embedding(embedding) == expected
    assert running.detector is not detector
