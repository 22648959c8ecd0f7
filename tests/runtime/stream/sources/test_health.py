import pytest

from msc_edge.runtime.stream.sources.health import Condition, Health


def health(**changed: float) -> Health:
    return Health(**{"lost_after": 20, "frozen_after": 20, "started": 0} | changed)  # pyright: ignore[reportArgumentType]


def live() -> Health:
    """A camera that gave one frame, at second 1."""
    camera = health()
    camera.frame(1, repeated=False)
    return camera


def test_the_first_frame_makes_it_live_without_a_gap() -> None:
    camera = health()
    assert camera.condition is Condition.CONNECTING
    change = camera.frame(3, repeated=False)
    assert change is not None
    assert (change.to, change.seconds) == ("source_up", None)
    assert camera.scorable
    assert camera.frame(4, repeated=False) is None


@pytest.mark.parametrize(("at", "lost"), [(20.9, False), (21.0, True)])
def test_it_is_lost_after_the_configured_time_without_a_frame(at: float, lost: bool) -> None:
    camera = live()
    change = camera.no_frame(at)
    assert (change is not None and change.to == "source_lost") == lost
    assert camera.scorable != lost
    assert camera.restart_due(at) == lost


def test_a_loss_is_one_event_and_its_end_gives_the_gap() -> None:
    camera = live()
    first = camera.broken(5, "pulled")
    assert first is not None
    assert (first.to, first.reason) == ("source_lost", "pulled")
    assert camera.broken(6, "refused") is None
    assert camera.no_frame(60) is None
    back = camera.frame(61, repeated=False)
    assert back is not None
    assert (back.to, back.seconds) == ("source_up", 60)


def test_a_source_that_never_sent_a_frame_is_lost_with_the_reason() -> None:
    camera = health()
    assert camera.broken(1, "refused") is None
    change = camera.broken(20, "refused")
    assert change is not None
    assert (change.to, change.reason) == ("source_lost", "refused")


def test_a_repeated_frame_is_scored_until_the_camera_is_frozen() -> None:
    camera = live()
    for second in range(2, 21):
        assert camera.frame(second, repeated=True) is None
        assert camera.scorable
    change = camera.frame(21, repeated=True)
    assert change is not None
    assert change.to == "source_frozen"
    assert not camera.scorable
    assert camera.frame(22, repeated=True) is None
    back = camera.frame(23, repeated=False)
    assert back is not None
    assert (back.to, back.seconds) == ("source_up", 3)


def test_a_frozen_camera_without_frames_is_lost() -> None:
    camera = live()
    camera.frame(21, repeated=True)
    change = camera.no_frame(41)
    assert change is not None
    assert change.to == "source_lost"


def test_after_a_loss_a_repeated_frame_does_not_make_it_live() -> None:
    camera = live()
    camera.broken(5, "pulled")
    assert camera.frame(6, repeated=True) is None
    assert not camera.scorable
    assert camera.frame(7, repeated=False) is not None


def test_a_still_scene_can_be_configured() -> None:
    camera = health(frozen_after=0)
    camera.frame(1, repeated=False)
    assert all(camera.frame(second, repeated=True) is None for second in range(2, 500))
    assert camera.scorable
    camera.broken(501, "pulled")
    back = camera.frame(502, repeated=True)
    assert back is not None
    assert back.to == "source_up"


def restarts(camera: Health, seconds: range, *, repeated: bool | None) -> list[int]:
    """The seconds of restarts when each second brings no frame, or a frame; used as the source does."""
    done = []
    for second in seconds:
        if repeated is None:
            camera.no_frame(second)
        else:
            camera.frame(second, repeated=repeated)
        if camera.restart_due(second) and camera.may_restart(second):
            camera.restarted(second)
            done.append(second)
    return done


@pytest.mark.parametrize("repeated", [None, True])
@pytest.mark.parametrize("after", [0.5, 2.0, 20.0, 60.0])
def test_restarts_continue_forever_at_five_a_minute_at_most(after: float, repeated: bool | None) -> None:
    camera = health(lost_after=after, frozen_after=after)
    camera.frame(0, repeated=False)
    done = restarts(camera, range(1, 600), repeated=repeated)
    assert all(sum(start <= each < start + 60 for each in done) <= 5 for start in range(600))
    assert len(done) >= 8
    assert max(done) > 500


def test_a_camera_that_works_is_not_restarted() -> None:
    assert restarts(live(), range(2, 600), repeated=False) == []
