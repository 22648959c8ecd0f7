import re
from importlib.resources import files

import torch
from safetensors.torch import load_file

from msc_edge.train.backbones.edge_small import EDGE_SMALL
from msc_edge.train.backbones.registry import architecture, build_backbone
from msc_edge.train.weights import load_into, pretrained_weights

WEIGHTS = files("msc_edge.train.bundled")


def test_the_bundled_weights_are_a_float16_edge_small_of_at_most_ten_megabytes() -> None:
    file = WEIGHTS / "edge-small.safetensors"
    assert len(file.read_bytes()) <= 10_000_000
    state = load_file(str(file))
    assert {value.dtype for value in state.values() if value.is_floating_point()} == {torch.float16}
    backbone = build_backbone(EDGE_SMALL)
    load_into(backbone, state, source="bundled")
    assert state.keys() == backbone.state_dict().keys()


def test_edge_small_needs_no_file_and_has_an_origin() -> None:
    pretrained = pretrained_weights(EDGE_SMALL, None)
    assert pretrained.origin == architecture(EDGE_SMALL).pretrained().origin
    assert pretrained.origin.source.startswith("edge-small, of msc-edge")
    assert pretrained.origin.licence.startswith("Apache-2.0")


def test_the_model_card_describes_these_weights() -> None:
    card = (WEIGHTS / "edge-small.md").read_text(encoding="utf-8")
    assert architecture(EDGE_SMALL).pretrained().origin.sha256 in card
    for topic in ("Teacher", "Licence", "Data", "Command", "Seed", "Figures", "--seed", "msc-edge distil"):
        assert topic in card, topic
    assert not re.search(r"https?://(?!arxiv\.org|github\.com|doi\.org)", card)
