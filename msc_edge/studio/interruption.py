"""Why a process of the studio ended before its work was done, in words for a page."""

import signal

_KILL = getattr(signal, "SIGKILL", signal.SIGTERM)  # Windows has only the latter


def why_interrupted(code: int | None) -> str:
    """The reason by the exit code of the process, negative for a signal; None: nobody has seen its end."""
    if code is None:
        return "its process ended before the work was done, as when the PC is switched off"
    if code == -_KILL:
        return (
            "its process was killed. The system does this when memory runs out: close other programs before you resume "
            "the work"
        )
    if code in (0, -signal.SIGTERM):
        return "its process was asked to stop, by another program or by the system"
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    return f"its process crashed ({how}); its log may say why"
