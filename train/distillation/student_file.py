"""The file with a student's weights."""

import os
from pathlib import Path

from safetensors.torch import save

from msc_edge.errors import UsageError
from msc_edge.files import sha256_of, written_whole
from msc_edge.train.backbones.backbone import Backbone


def write_student(out: Path, student: Backbone, *, half: bool, checkpoint: Path) -> None:
    """Write the weights, as float16 with `half`.

    Raises UsageError if float16 cannot represent them, and if another file was created at `out` since the start: that
    file is not changed, and the student stays in `checkpoint`.
    """
    state = {key: value.cpu().contiguous() for key, value in student.state_dict().items()}
    if half:
        state = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
        if not all(value.isfinite().all() for value in state.values()):
            raise UsageError("--half: a weight of this student exceeds 65504; distil again without --half")
    data = save(state, metadata={"backbone": student.name})
    with written_whole(out) as path:
        path.write_bytes(data)
        # A distillation that was killed after this point left a file with the same bytes.
        if os.path.lexists(out) and not (out.is_file() and sha256_of(out) == sha256_of(path)):
            raise UsageError(
                f"{out}: another file was created there and is not overwritten; the student is in {checkpoint}: "
                "move that file away, then run the same command with --resume"
            )
