"""Random numbers that depend on the seed and the step only: a resumed run draws the same as an uninterrupted one."""

import numpy as np
import torch


def torch_seed(seed: int) -> int:
    """A seed for torch's default generator: `seed` if torch accepts it, else a number derived from it."""
    return seed if seed < 1 << 63 else _mixed(seed)


def generator_of(seed: int, purpose: int, number: int) -> torch.Generator:
    """An independent torch generator for each (seed, purpose, number), all integers from 0."""
    # Mixed by numpy: torch does not guarantee unrelated streams for consecutive seeds.
    return torch.Generator().manual_seed(_mixed(seed, purpose, number))


def numpy_generator_of(seed: int, purpose: int, number: int) -> np.random.Generator:
    """An independent numpy generator for each (seed, purpose, number)."""
    return np.random.default_rng(_mixed(seed, purpose, number))


def order_of_epoch(step: int, *, images: int, batch: int, seed: int) -> list[int]:
    """The images of a step: each epoch is a new order of all images, cut into full batches.

    The images that do not fill a batch are skipped in that epoch, so all batches have the same size.
    """
    epoch, place = divmod(step, images // batch)
    order = torch.randperm(images, generator=generator_of(seed, 0, epoch))
    return order[place * batch : (place + 1) * batch].tolist()


def _mixed(*numbers: int) -> int:
    state = np.random.SeedSequence(numbers).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))
