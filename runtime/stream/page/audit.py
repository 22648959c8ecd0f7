"""The audit log: who has changed what, when and from where. Lines are appended, and never changed or removed."""

import json
import os
import threading
from datetime import datetime
from pathlib import Path

from msc_edge.errors import writing
from msc_edge.text import valid_text

FILE = "audit.jsonl"


class AuditLog:
    """A file of JSON lines in the state folder. Safe to use from several threads."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self._lock = threading.Lock()

    def add(self, action: str, *, who: str, role: str, address: str, **details: str | float | None) -> None:
        """Append an entry, durably. OutputError when it cannot be written: the change must then not be made."""
        entry = {
            "time": datetime.now().astimezone().isoformat(timespec="milliseconds"),
            "action": action,
            "who": who,
            "role": role,
            "from": address,
            **details,
        }
        line = valid_text(json.dumps(entry, ensure_ascii=False)) + "\n"
        with self._lock, writing(self.path):
            file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
            try:
                os.write(file, line.encode())
                os.fsync(file)
            finally:
                os.close(file)
