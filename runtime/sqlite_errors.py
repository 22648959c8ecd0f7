"""What sqlite3 raises, and what to do about it."""

import sqlite3

SQLITE_ERRORS = (sqlite3.Error, UnicodeDecodeError)
"""What sqlite3 raises. UnicodeDecodeError: for a message that quotes a damaged file."""

_REMEDIES = {
    sqlite3.SQLITE_FULL: "free some space there",
    sqlite3.SQLITE_BUSY: "another program writes it; try again",
    sqlite3.SQLITE_READONLY: "the folder or the file is read-only: change its permissions",
    sqlite3.SQLITE_CANTOPEN: "check the permissions of the folder",
}

_DAMAGE = {0, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_MISMATCH}


def code_of(error: BaseException) -> int:
    """SQLite's primary result code; 0 for an error that has none."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def remedy_of(error: BaseException, otherwise: str = "check the disk") -> str:
    """What to do about an error of SQLITE_ERRORS."""
    return _REMEDIES.get(code_of(error), otherwise)


def is_damage(error: BaseException) -> bool:
    """Whether an error of SQLITE_ERRORS is due to the content of the file: it is no database, or has other tables."""
    return code_of(error) in _DAMAGE
