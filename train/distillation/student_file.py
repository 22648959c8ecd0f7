"""The file of a student's weights."""

import os
from pathlib import Path

from safetensors.torch import save

from msc_edge.errors import UsageError
from msc_edge.files import sha256_of, written_whole
from msc_edge.train.backbones import Backbone


def write_student(out: Path, student: Backbone, *, half: bool, checkpoint: Path) -> None:
    """Write the weights, in float16 with `half`.

    Raises UsageError where float16 cannot hold them, and where another file has taken the name since the start: the
    student then stays in `checkpoint`.
    """
    state = {key: value.cpu().contiguous() for key, value in student.state_dict().items()}
    if half:
        state = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
        if not all(value.isfinite().all() for value in state.values()):
            raise UsageError("--half: a weight of this student is larger than 65504; distil again without --half")
    data = save(state, metadata={"backbone": student.name})
    with written_whole(out) as path:
        path.write_bytes(data)
        # A process that was killed after this left these very bytes; any other file there is somebody else's.
        if os.path.lexists(out) and not (out.is_file() and sha256_of(out) == sha256_of(path)):
            raise UsageError(
                f"{out}: another file has taken this name, and is left as it is; the student is in {checkpoint}: "
                "move that file away, and give the same command with --resume"
            )
