"""The learning rates that can be asked for."""

from msc_edge.errors import UsageError

_HIGHEST = 1000.0  # far above any that trains a network, and far below what float32 cannot hold


def check_learning_rate(rate: float | None) -> None:
    """Raise UsageError for a rate that no optimizer could use; None stands for the default."""
    if rate is not None and not 0 < rate <= _HIGHEST:
        raise UsageError(f"--learning-rate {rate}: expected a number above 0, and at most {_HIGHEST:g}")
