import numpy as np
import pytest
import torch

from msc_edge.train.seeds import generator_of, numpy_generator_of, order_of_epoch, torch_seed


@pytest.mark.parametrize("seed", [0, 5, 2**63 - 1, 2**63, 2**64, 10**20])
def test_torch_accepts_a_seed_of_any_size(seed: int) -> None:
    torch.Generator().manual_seed(torch_seed(seed))
    assert torch_seed(seed) != torch_seed(seed + 1)
    assert torch_seed(seed) == seed or seed >= 2**63


def test_each_seed_purpose_and_number_has_its_own_stream() -> None:
    keys = [(seed, purpose, number) for seed in range(3) for purpose in range(3) for number in range(3)]
    assert len({float(torch.rand(1, generator=generator_of(*key), dtype=torch.float64)) for key in keys}) == 27
    assert len({numpy_generator_of(*key).random() for key in keys}) == 27
    np.testing.assert_array_equal(numpy_generator_of(1, 2, 3).random(5), numpy_generator_of(1, 2, 3).random(5))


def test_an_epoch_is_an_order_of_all_images_in_full_batches() -> None:
    epochs = [[order_of_epoch(step, images=10, batch=4, seed=0) for step in steps] for steps in ((0, 1), (2, 3))]
    for epoch in epochs:
        assert all(len(batch) == 4 for batch in epoch)
        assert len({image for batch in epoch for image in batch}) == 8
    assert epochs[0] != epochs[1]
