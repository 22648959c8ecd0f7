"""What killed processes leave beside a kit, and what the next command makes of it: real processes and SIGKILL."""

import json
import logging
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from msc_edge.errors import KitError
from msc_edge.files import folder_written_whole
from msc_edge.kit.opening import Kit
from msc_edge.left_over import hidden_beside, lock, recover

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="folders cannot be locked on Windows")

KILLED = """
import json, logging, os, shutil, signal, sys
from pathlib import Path
from msc_edge import files
from msc_edge.kit.opening import Kit
from msc_edge.kit.writing import rewrite

original, folder, can_exchange = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] == "exchange"
CHANGES = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree", "ctypes.dlsym"}
steps_left = [None]

def die(event, arguments):
    if steps_left[0] is None:
        return
    if event in CHANGES or event == "open" and arguments[1] and set("wax+") & set(arguments[1]):
        if steps_left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        steps_left[0] -= 1

def replace(kit, step):
    if not can_exchange:
        files.exchange = lambda one, other: False  # as on a file system that cannot
    with Kit.open(kit) as opened:
        steps_left[0] = step
        rewrite(opened, opened.manifest.model_copy(update={"name": "other"}), kit)
    os._exit(0)

sys.addaudithook(die)
messages = []
logging.getLogger("msc_edge").addFilter(lambda record: messages.append(record.getMessage()))
for step in range(1000):
    kit = folder / str(step) / "copy.kit"
    shutil.copytree(original, kit)
    if (child := os.fork()) == 0:
        replace(kit, step)
    killed = os.WIFSIGNALED(os.waitpid(child, 0)[1])
    found = {"present": kit.exists(), "left": [each.suffix for each in kit.parent.iterdir() if each != kit]}
    messages.clear()
    with Kit.open(kit) as opened:  # the next command
        found |= {"name": opened.manifest.name, "messages": list(messages)}
    found["after"] = [each.name for each in kit.parent.iterdir()]
    shutil.rmtree(kit.parent)
    print(json.dumps(found))
    if not killed:
        break
"""


@pytest.mark.parametrize("how", ["exchange", "two renames"])
def test_a_calibration_that_is_killed_at_any_step_leaves_a_whole_kit_to_the_next_command(
    kit: Path, tmp_path: Path, how: str
) -> None:
    command = [sys.executable, "-c", KILLED, str(kit), str(tmp_path / "killed"), how]
    done = subprocess.run(command, capture_output=True, check=True, timeout=120)
    steps: list[dict[str, Any]] = [json.loads(line) for line in done.stdout.splitlines()]
    assert all(step["after"] == ["copy.kit"] for step in steps), "nothing is left over after the next command"
    assert all(len(step["messages"]) == len(step["left"]) for step in steps), "each left-over is reported"
    names, toy_name = [step["name"] for step in steps], Kit.open(kit).identity.name
    old = names.count(toy_name)
    assert names == [toy_name] * old + ["other"] * (len(names) - old), "the old kit, and from one step on the new one"
    assert 10 < old < len(names) - 5, "killed while it is written, and while the old one is removed"
    if how == "exchange":
        if not sys.platform.startswith("linux"):
            pytest.skip("two names can be exchanged in one step on Linux")
        assert all(step["present"] for step in steps)
    else:
        (absent,) = [step for step in steps if not step["present"]]
        assert sorted(absent["left"]) == [".partial", ".replaced"]
        assert "copy.kit: was put back: the process that was replacing it was killed" in absent["messages"][0]
    assert steps[-1]["messages"] == []


def test_the_next_export_removes_what_a_killed_first_one_has_left(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    left, other = hidden_beside(tmp_path / "kit", ".partial"), hidden_beside(tmp_path / "kit2", ".partial")
    for folder in (left, other):
        folder.mkdir()
        (folder / "model").write_text("half")
    with folder_written_whole(tmp_path / "kit") as partial:
        assert not left.exists()
        recover(tmp_path / "kit")
        assert partial.exists(), "another process does not remove what is being written"
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted([other.name, "kit"])
    assert [record.getMessage() for record in caplog.records] == [
        f"{left}: removed; it was left over from a process that was killed"
    ]


def test_names_that_differ_in_their_ends_only_are_not_confused(kit: Path) -> None:
    """The kit of another line must not be put in the place of this one."""
    one, other = (kit.with_name(f"{'bottles of the second line, ' * 3}{end}") for end in "ab")
    kit.rename(hidden_beside(one, ".replaced"))
    with pytest.raises(KitError, match="No such file"):
        Kit.open(other)
    Kit.open(one).close()


def test_of_two_replaced_kits_the_later_one_is_put_back_also_through_a_link(
    kit: Path, caplog: pytest.LogCaptureFixture
) -> None:
    link = kit.with_name("current")
    link.symlink_to(kit.name)
    shutil.copytree(kit, hidden_beside(kit, ".replaced"))
    time.sleep(0.02)  # some clocks of file systems have coarse steps
    inode = kit.stat().st_ino
    later = hidden_beside(kit, ".replaced")
    kit.rename(later)
    with lock(later), pytest.raises(KitError, match=rf"a replacement was interrupted: rename {later}"):
        Kit.open(kit)  # its writer lives
    kit.with_name("notes.txt").touch()
    caplog.clear()
    caplog.set_level(logging.WARNING)
    Kit.open(link).close()
    assert kit.stat().st_ino == inode
    assert {each.name for each in kit.parent.iterdir()} == {"current", "notes.txt", kit.name}
