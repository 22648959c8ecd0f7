"""Build teacher and student."""

import torch
from torch import Tensor, nn

from msc_edge.errors import UsageError
from msc_edge.kit.manifest import Weights
from msc_edge.train.backbones.backbone import Backbone
from msc_edge.train.backbones.edge_small import EDGE_SMALL
from msc_edge.train.backbones.registry import build_backbone
from msc_edge.train.distillation.options import DistilOptions
from msc_edge.train.distillation.pruning import is_pruned_version
from msc_edge.train.run_record import BACKBONE, read_record
from msc_edge.train.seeds import torch_seed
from msc_edge.train.weight_files import Pretrained, weights_from_file
from msc_edge.train.weights import load_into, pretrained_weights

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
        return student, _load(student, pretrained_weights(EDGE_SMALL, None))
    return student, FROM_SCRATCH


def accept_images_of(student: Backbone, teacher: Backbone) -> None:
    """Make the teacher take images that are normalised for the student; nothing changes where both are alike."""
    ours, theirs = student.architecture, teacher.architecture
    if (ours.mean, ours.std) == (theirs.mean, theirs.std):
        return
    our_mean, our_std, their_mean, their_std = (
        torch.tensor(values).view(1, 3, 1, 1) for values in (ours.mean, ours.std, theirs.mean, theirs.std)
    )
    factor, offset = our_std / their_std, (our_mean - their_mean) / their_std

    def normalise(_module: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
        pixels = inputs[0]
        return pixels * factor.to(pixels) + offset.to(pixels)

    _, first = next(teacher.chain())
    first.register_forward_pre_hook(normalise)


def _load(student: Backbone, pretrained: Pretrained) -> str:
    load_into(student, pretrained.state, source=pretrained.origin.source)
    return f"{pretrained.origin.source} ({pretrained.origin.sha256})"
