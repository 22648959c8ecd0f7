from types import SimpleNamespace
from typing import Any

import pytest
import torch

from msc_edge.errors import UsageError
from msc_edge.train.devices import DtypeOption, from_all_ranks, launch_fabric, part_of_rank, resolve_dtype


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_a_given_dtype_is_used(dtype: DtypeOption) -> None:
    assert resolve_dtype("cpu", dtype) == dtype


def test_an_automatic_dtype_is_bf16_only_if_the_device_computes_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for capabilities, dtype in (({}, "fp32"), ({"avx512_bf16": True}, "bf16"), ({"amx_bf16": True}, "bf16")):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda capabilities=capabilities: capabilities)
        assert resolve_dtype("cpu", "auto") == dtype
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for native, dtype in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda native=native, **_: native)
        assert resolve_dtype("auto", "auto") == dtype


def test_more_devices_than_there_are_is_refused_with_the_number() -> None:
    with pytest.raises(UsageError, match=r"--devices 1000: this machine has \d+ cores; pass at most --devices \d+"):
        launch_fabric("cpu", 1000, "fp32")


def rank(number: int, of: int) -> Any:
    return SimpleNamespace(global_rank=number, world_size=of)


def test_the_parts_of_all_ranks_are_the_batch_in_order() -> None:
    batch = list(range(12))
    assert [i for number in range(3) for i in batch[part_of_rank(rank(number, 3), 12)]] == batch


def test_a_batch_that_does_not_divide_among_the_ranks_is_refused() -> None:
    with pytest.raises(UsageError, match="a batch of 10 images does not divide among 3 devices; pass a --batch"):
        part_of_rank(rank(0, 3), 10)


def test_the_rows_of_all_ranks_are_gathered_in_order() -> None:
    rows = torch.arange(6.0).view(3, 2)
    fabric = rank(1, 2)
    fabric.all_gather = lambda own, *, sync_grads: torch.stack([own - 100, own]) if sync_grads else None
    torch.testing.assert_close(from_all_ranks(fabric, rows), torch.cat([rows - 100, rows]))
    assert from_all_ranks(rank(0, 1), rows) is rows
