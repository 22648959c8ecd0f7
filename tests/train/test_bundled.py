import re
from importlib.resources import files

import pytest
import torch
from safetensors.torch import load_file

from msc_edge.train.backbones.edge_small import NAMES
from msc_edge.train.backbones.registry import architecture, build_backbone
from msc_edge.train.weights import load_into, pretrained_weights

WEIGHTS = files("msc_edge.train.bundled")
pytestmark = pytest.mark.parametrize("name", NAMES)


def test_the_bundled_weights_are_float16_of_at_most_ten_megabytes(name: str) -> None:
    file = WEIGHTS / f"{name}.safetensors"
    assert len(file.read_bytes()) <= 10_000_000
    state = load_file(str(file))
    assert {value.dtype for value in state.values() if value.is_floating_point()} == {torch.float16}
    backbone = build_backbone(name)
    load_into(backbone, state, source="bundled")
    assert state.keys() == backbone.state_dict().keys()


def test_they_need_no_file_and_have_an_origin(name: str) -> None:
    pretrained = pretrained_weights(name, None)
    assert pretrained.origin == architecture(name).pretrained().origin
    assert pretrained.origin.source.startswith(f"{name}, of msc-edge")
    assert pretrained.origin.licence.startswith("Apache-2.0")


def test_the_model_card_describes_these_weights(name: str) -> None:
    card = (WEIGHTS / f"{name}.md").read_text(encoding="utf-8")
    assert card.startswith(f"# {name}\n")
    assert architecture(name).pretrained().origin.sha256 in card
    for topic in ("Teacher", "Licence", "Data", "Command", "Seed", "Figures", "--seed", "--steps"):
        assert topic in card, topic
    assert not re.search(r"https?://(?!arxiv\.org|github\.com|doi\.org)", card)
