"""Random numbers that depend on the seed and the step alone, so that a resumed run draws what an unbroken one would."""

import numpy as np
import torch


def generator_of(seed: int, purpose: int, number: int) -> torch.Generator:
    """A generator of its own for each (seed, purpose, number), all whole numbers from 0."""
    # Mixed by numpy: neighbouring seeds given to torch directly need not give unrelated streams.
    state = np.random.SeedSequence((seed, purpose, number)).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))


def order_of_epoch(step: int, *, pictures: int, batch: int, seed: int) -> list[int]:
    """Which pictures a step takes: each epoch is a new order of all pictures, cut into full batches.

    The rest of an epoch that fills no batch is left out of it, so that a batch always has the same size.
    """
    epoch, place = divmod(step, pictures // batch)
    order = torch.randperm(pictures, generator=generator_of(seed, 0, epoch))
    return order[place * batch : (place + 1) * batch].tolist()
