import stat
from pathlib import Path

import pytest

from msc_edge.errors import UsageError
from msc_edge.runtime.web.users import UsersFile, add_user, read_users, remove_user

PASSWORD = "correct horse battery"


def test_users_are_added_replaced_and_removed(tmp_path: Path) -> None:
    file = tmp_path / "users.toml"
    add_user(file, "Jörg M.", role="viewer", password=PASSWORD)
    add_user(file, "anna", role="engineer", password="another password")
    users = UsersFile(file)
    assert {name: user.role for name, user in users.users().items()} == {"Jörg M.": "viewer", "anna": "engineer"}
    assert users.verified("Jörg M.", PASSWORD) == users.users()["Jörg M."]
    assert users.verified("anna", PASSWORD) is None
    assert users.verified("nobody", PASSWORD) is None
    assert users.verified("nobody", "") is None
    add_user(file, "anna", role="operator", password=PASSWORD)
    found = users.verified("anna", PASSWORD)
    assert found
    assert (found.may("viewer"), found.may("operator"), found.may("engineer")) == (True, True, False)
    remove_user(file, "anna")
    assert users.verified("anna", PASSWORD) is None
    assert list(read_users(file)) == ["Jörg M."]


def test_the_file_holds_no_password_and_is_for_its_owner_only(tmp_path: Path) -> None:
    file = tmp_path / "users.toml"
    add_user(file, "anna", role="viewer", password=PASSWORD)
    assert PASSWORD not in file.read_text()
    assert "$argon2id$" in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.chmod(0o640)
    add_user(file, "ben", role="viewer", password=PASSWORD)
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


@pytest.mark.parametrize(
    ("name", "password", "text"),
    [
        ("", PASSWORD, "user name"),
        ("a/b", PASSWORD, "user name"),
        (" anna", PASSWORD, "user name"),
        ("anna\n", PASSWORD, "user name"),
        ("x" * 64, PASSWORD, "user name"),
        ("anna", "short", "5 characters; choose one with at least 10"),
        ("anna", "x" * 1001, "1001 characters"),
    ],
)
def test_names_and_passwords_that_cannot_be_used(tmp_path: Path, name: str, password: str, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        add_user(tmp_path / "users.toml", name, role="viewer", password=password)
    assert not (tmp_path / "users.toml").exists()


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("nonsense", "not a users file"),
        ("a = 1", "no table `users` alone"),
        ("[users]\nanna = 1", "user anna: expected `role` and `password`"),
        ('[users.anna]\nrole = "boss"\npassword = "$argon2id$x"', "user anna: the role is 'boss'"),
        ('[users.anna]\nrole = "viewer"\npassword = "plain"', "`password` is no hash from msc-edge"),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path: Path, content: str, text: str) -> None:
    file = tmp_path / "users.toml"
    file.write_text(content)
    with pytest.raises(UsageError, match=text):
        UsersFile(file)


def test_a_missing_file_and_a_missing_user_name_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="make it with: msc-edge user add"):
        read_users(tmp_path / "none.toml")
    add_user(tmp_path / "users.toml", "anna", role="viewer", password=PASSWORD)
    with pytest.raises(UsageError, match=r"there is no user ben; msc-edge user list .* shows them"):
        remove_user(tmp_path / "users.toml", "ben")
