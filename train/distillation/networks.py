"""Build teacher and student."""

import torch

from msc_edge.errors import UsageError
from msc_edge.kit.manifest import Weights
from msc_edge.train.backbones import EDGE_SMALL, Backbone, build_backbone
from msc_edge.train.distillation.options import DistilOptions
from msc_edge.train.distillation.pruning import is_pruned_version
from msc_edge.train.run_record import BACKBONE, read_record
from msc_edge.train.seeds import torch_seed
from msc_edge.train.weights import Pretrained, bundled_weights, load_into, pretrained_weights, weights_from_file

PRUNED, FROM_SCRATCH = "pruned", "from scratch"  # how a student without weights of its own starts


def build_teacher(options: DistilOptions) -> tuple[Backbone, Weights, int]:
    """The teacher, the origin of its weights, and the side of the square input in pixels.

    Raises UsageError for contradicting options and unusable weights, KitError for an unusable run.
    """
    if (options.teacher_run is None) == (options.teacher_backbone is None):
        raise UsageError("expected one teacher: pass --teacher RUN or --teacher-backbone NAME")
    if options.teacher_run:
        if options.teacher_weights or options.teacher_stop_at:
            raise UsageError(
                "--teacher: a run has its own weights and stages; omit --teacher-weights and --teacher-stop-at"
            )
        record = read_record(options.teacher_run)
        backbone = build_backbone(record.backbone, stop_at=record.stop_at)
        pretrained = weights_from_file(options.teacher_run / BACKBONE)
        image_size = record.preprocessing.image_size
    else:
        assert options.teacher_backbone
        backbone = build_backbone(options.teacher_backbone, stop_at=options.teacher_stop_at)
        pretrained = pretrained_weights(options.teacher_backbone, options.teacher_weights)
        image_size = 224
    load_into(backbone, pretrained.state, source=pretrained.origin.source)
    return backbone, pretrained.origin, image_size if options.image_size is None else options.image_size


def build_student(options: DistilOptions, teacher: Backbone) -> tuple[Backbone, str]:
    """The student, and how it starts.

    The first that applies: from `student_weights`; pruned from the teacher, if it is a pruned version of it;
    `edge-small` from its bundled weights; from scratch. A pruned student has random weights until `initialise_pruned`.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_seed(options.seed))
        student = build_backbone(options.student)
    if options.student_weights:
        return student, _load(student, weights_from_file(options.student_weights))
    if is_pruned_version(student, teacher):
        return student, PRUNED
    if options.student == EDGE_SMALL:
        return student, _load(student, bundled_weights())
    return student, FROM_SCRATCH


def _load(student: Backbone, pretrained: Pretrained) -> str:
    load_into(student, pretrained.state, source=pretrained.origin.source)
    return f"{pretrained.origin.source} ({pretrained.origin.sha256})"
