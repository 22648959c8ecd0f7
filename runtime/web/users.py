"""The users of a server: a file with their roles and hashed passwords, kept by `msc-edge user`."""

import os
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import tomli_w

from msc_edge.errors import UsageError, explain_missing_extra
from msc_edge.files import written_whole

if TYPE_CHECKING:
    from pwdlib import PasswordHash

Role = Literal["viewer", "operator", "engineer"]
ROLES: tuple[Role, ...] = get_args(Role)
"""Each may do what those before it may."""
SHORTEST_PASSWORD = 10
_LONGEST_PASSWORD = 1000
_NAME = re.compile(r"[^\W_][\w.@ -]{0,62}")  # letters of any language
_NO_USER = "$argon2id$v=19$m=65536,t=3,p=4$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"


@dataclass(frozen=True, slots=True)
class User:
    """Who uses a page."""

    name: str
    role: Role
    password: str = ""
    """Its hash (Argon2id)."""

    def may(self, role: Role) -> bool:
        """Whether the user has this role or a later one."""
        return ROLES.index(self.role) >= ROLES.index(role)


class UsersFile:
    """The users in a file. A change of the file counts at once. Safe to use from several threads."""

    def __init__(self, path: Path) -> None:
        """Read the file. UsageError when it cannot be used."""
        self.path = path
        self._read_at: tuple[int, int] | None = None
        self._users: dict[str, User] = {}
        self.users()

    def users(self) -> dict[str, User]:
        """The users by name. UsageError when the file cannot be read any more: nobody may then log in."""
        try:
            found = self.path.stat()
            if (stamp := (found.st_mtime_ns, found.st_ino)) != self._read_at:
                self._users, self._read_at = read_users(self.path), stamp
        except OSError as error:
            raise UsageError(f"{self.path}: cannot be read: {error.strerror}; check the path") from error
        return self._users

    def verified(self, name: str, password: str) -> User | None:
        """The user with this name and password; None where one is wrong. Takes the same time either way: 0.1 s."""
        user = self.users().get(name)
        good = _hasher().verify(password[:_LONGEST_PASSWORD], user.password if user else _NO_USER)
        return user if user and good else None


def read_users(path: Path) -> dict[str, User]:
    """The users in a file. UsageError for anything that is not one."""
    try:
        document = tomllib.loads(path.read_bytes().decode())
    except OSError as error:
        raise UsageError(
            f"{path}: cannot be read: {error.strerror}; make it with: msc-edge user add {path} NAME"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not a users file: {error}; make one with: msc-edge user add FILE NAME") from error
    users = document.get("users")
    if not isinstance(users, dict) or set(document) != {"users"}:
        raise UsageError(f"{path}: not a users file: it has no table `users` alone; make one with: msc-edge user add")
    return {name: _user(path, name, found) for name, found in users.items()}


def _user(path: Path, name: str, found: object) -> User:
    if not isinstance(found, dict) or set(found) != {"role", "password"}:
        raise UsageError(f"{path}: user {name}: expected `role` and `password`; add the user again: msc-edge user add")
    if found["role"] not in ROLES:
        raise UsageError(f"{path}: user {name}: the role is {found['role']!r}; expected one of {', '.join(ROLES)}")
    if not str(found["password"]).startswith("$argon2id$"):
        raise UsageError(
            f"{path}: user {name}: `password` is no hash from msc-edge; add the user again: msc-edge user add"
        )
    return User(name, found["role"], found["password"])


def add_user(path: Path, name: str, *, role: Role, password: str) -> None:
    """Add a user, or replace one. The file is made where there is none; only its owner may read it.

    UsageError for a name or a password that cannot be used, OutputError when the file cannot be written.
    """
    if not _NAME.fullmatch(name) or name != name.strip():
        raise UsageError(
            f"user name {name!r}: expected up to 63 letters, digits, spaces and .@_-, with a letter or digit first"
        )
    if not SHORTEST_PASSWORD <= len(password) <= _LONGEST_PASSWORD:
        raise UsageError(f"the password has {len(password)} characters; choose one with at least {SHORTEST_PASSWORD}")
    users = read_users(path) if path.exists() else {}
    _write(path, users | {name: User(name, role, _hasher().hash(password))})


def remove_user(path: Path, name: str) -> None:
    """Remove a user. UsageError where there is none of this name."""
    users = read_users(path)
    if name not in users:
        raise UsageError(f"{path}: there is no user {name}; msc-edge user list {path} shows them")
    _write(path, {other: user for other, user in users.items() if other != name})


def _write(path: Path, users: dict[str, User]) -> None:
    table = {user.name: {"role": user.role, "password": user.password} for user in users.values()}
    with written_whole(path) as partial:
        if os.name != "nt":  # a service may read the file by its group
            partial.chmod(path.stat().st_mode & 0o660 if path.exists() else 0o600)
        partial.write_bytes(tomli_w.dumps({"users": table}).encode())


def _hasher() -> "PasswordHash":
    with explain_missing_extra("web"):
        from pwdlib import PasswordHash  # noqa: PLC0415  (of the extra [web])
        from pwdlib.hashers.argon2 import Argon2Hasher  # noqa: PLC0415
    return PasswordHash((Argon2Hasher(),))
