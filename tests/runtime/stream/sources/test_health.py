import pytest

from msc_edge.runtime.stream.sources.health import Condition, Health


def health(**changed: float) -> Health:
    return Health(**{"lost_after": 20, "frozen_after": 20, "begun": 0} | changed)  # pyright: ignore[reportArgumentType]


def live() -> Health:
    """A camera that gave one frame, at second 1."""
    camera = health()
    camera.frame(1, repeated=False)
    return camera


def test_the_first_frame_makes_it_live_and_there_is_no_gap_to_tell() -> None:
    camera = health()
    assert camera.condition is Condition.CONNECTING
    turn = camera.frame(3, repeated=False)
    assert turn is not None
    assert (turn.to, turn.seconds) == ("source_up", None)
    assert camera.scorable
    assert camera.frame(4, repeated=False) is None


@pytest.mark.parametrize(("at", "lost"), [(20.9, False), (21.0, True)])
def test_it_is_lost_when_no_frame_came_for_so_long(at: float, lost: bool) -> None:
    camera = live()
    turn = camera.tick(at)
    assert (turn is not None and turn.to == "source_lost") == lost
    assert camera.scorable != lost
    assert camera.restart_due(at) == lost


def test_one_loss_is_one_event_and_its_end_tells_the_gap() -> None:
    camera = live()
    first = camera.broken(5, "pulled")
    assert first is not None
    assert (first.to, first.reason) == ("source_lost", "pulled")
    assert camera.broken(6, "refused") is None
    assert camera.tick(60) is None
    back = camera.frame(61, repeated=False)
    assert back is not None
    assert (back.to, back.seconds) == ("source_up", 60)


def test_one_that_never_gave_a_frame_is_lost_after_a_while_with_the_reason() -> None:
    camera = health()
    assert camera.broken(1, "refused") is None
    turn = camera.broken(20, "refused")
    assert turn is not None
    assert (turn.to, turn.reason) == ("source_lost", "refused")


def test_a_repeated_frame_is_scored_at_first_and_then_the_camera_is_frozen() -> None:
    camera = live()
    for second in range(2, 21):
        assert camera.frame(second, repeated=True) is None
        assert camera.scorable
    turn = camera.frame(21, repeated=True)
    assert turn is not None
    assert turn.to == "source_frozen"
    assert not camera.scorable
    assert camera.frame(22, repeated=True) is None
    back = camera.frame(23, repeated=False)
    assert back is not None
    assert (back.to, back.seconds) == ("source_up", 3)


def test_a_frozen_camera_that_goes_silent_is_lost() -> None:
    camera = live()
    camera.frame(21, repeated=True)
    turn = camera.tick(41)
    assert turn is not None
    assert turn.to == "source_lost"


def test_after_a_loss_the_old_frame_once_more_proves_nothing() -> None:
    camera = live()
    camera.broken(5, "pulled")
    assert camera.frame(6, repeated=True) is None
    assert not camera.scorable
    assert camera.frame(7, repeated=False) is not None


def test_a_still_scene_can_be_declared() -> None:
    camera = health(frozen_after=0)
    camera.frame(1, repeated=False)
    assert all(camera.frame(second, repeated=True) is None for second in range(2, 500))
    assert camera.scorable
    camera.broken(501, "pulled")
    back = camera.frame(502, repeated=True)
    assert back is not None
    assert back.to == "source_up"


def restarts(camera: Health, seconds: range, *, repeated: bool | None) -> list[int]:
    """When the grabber is restarted if each second nothing comes, or a frame; it asks as the source does."""
    done = []
    for second in seconds:
        if repeated is None:
            camera.tick(second)
        else:
            camera.frame(second, repeated=repeated)
        if camera.restart_due(second) and camera.may_restart(second):
            camera.restarted(second)
            done.append(second)
    return done


@pytest.mark.parametrize("repeated", [None, True])
@pytest.mark.parametrize("after", [0.5, 2.0, 20.0, 60.0])
def test_restarts_go_on_for_ever_and_are_five_a_minute_at_most(after: float, repeated: bool | None) -> None:
    camera = health(lost_after=after, frozen_after=after)
    camera.frame(0, repeated=False)
    done = restarts(camera, range(1, 600), repeated=repeated)
    assert all(sum(start <= each < start + 60 for each in done) <= 5 for start in range(600))
    assert len(done) >= 8
    assert max(done) > 500


def test_a_camera_that_is_well_is_not_restarted() -> None:
    assert restarts(live(), range(2, 600), repeated=False) == []
