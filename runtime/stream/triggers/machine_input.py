"""Triggers of a machine: it writes a number for a source, and reads its answer where the same number is shown."""

import threading

from msc_edge.runtime.stream.line.values import LineValues
from msc_edge.runtime.stream.triggers.answer import Answer
from msc_edge.runtime.stream.triggers.pending import Triggers


class NumberedTriggers:
    """The trigger number of each source, as a machine wrote it last. Safe to use from several threads."""

    def __init__(self, triggers: Triggers, values: LineValues) -> None:
        """`values`: where the machine reads the answers."""
        self._triggers, self._values = triggers, values
        self._numbers = dict.fromkeys(triggers.names, 0)
        self._lock = threading.Lock()

    @property
    def names(self) -> list[str]:
        """Of the sources that can be asked."""
        return self._triggers.names

    def number(self, source: str) -> int:
        """The number that was written last; 0: none yet, or a source that cannot be asked."""
        return self._numbers.get(source, 0)

    def write(self, source: str, number: int) -> None:
        """Take a number. Another one than before, and not 0, is a trigger: a machine may write the same one again."""
        with self._lock:
            before, self._numbers[source] = self._numbers[source], number
        if number not in (0, before):
            self._triggers.ask(str(number), source, lambda answer: self._show(source, answer), may_repeat=True)

    def _show(self, source: str, answer: Answer) -> None:
        """Show why a trigger was refused at once. The other answers are in the values already."""
        if answer.status in ("busy", "no_frames", "stopping"):
            self._values.show_trigger(source, answer.trigger, answer.status)
