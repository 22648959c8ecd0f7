"""Random numbers that depend on the seed and the step alone, so that a resumed run draws what an unbroken one would."""

import numpy as np
import torch


def seed_of_torch(seed: int) -> int:
    """The seed for torch's own generator: the number itself where torch takes it, else one mixed from it."""
    return seed if seed < 1 << 63 else _mixed(seed)


def generator_of(seed: int, purpose: int, number: int) -> torch.Generator:
    """A generator of its own for each (seed, purpose, number), all whole numbers from 0."""
    # Mixed by numpy: neighbouring seeds given to torch directly need not give unrelated streams.
    return torch.Generator().manual_seed(_mixed(seed, purpose, number))


def numpy_generator_of(seed: int, purpose: int, number: int) -> np.random.Generator:
    """The same for numpy; see generator_of."""
    return np.random.default_rng(_mixed(seed, purpose, number))


def order_of_epoch(step: int, *, images: int, batch: int, seed: int) -> list[int]:
    """Which images a step takes: each epoch is a new order of all images, cut into full batches.

    The rest of an epoch that fills no batch is left out of it, so that a batch always has the same size.
    """
    epoch, place = divmod(step, images // batch)
    order = torch.randperm(images, generator=generator_of(seed, 0, epoch))
    return order[place * batch : (place + 1) * batch].tolist()


def _mixed(*numbers: int) -> int:
    state = np.random.SeedSequence(numbers).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))
