"""The files that the settings name."""

import os
from pathlib import Path

import pytest

from entrypoint.environment import load
from entrypoint.errors import Problem, Problems
from entrypoint.material import Credential, Material, read_material
from entrypoint.secret import Secret
from entrypoint.sources import Reader
from support.certificates import Authority
from support.secret_volume import SecretVolume
from unit.conftest import Site

ONE_DEEPER = "holds `username` and `password` itself, as one mounted Secret"


def read(site: Site, **env: str) -> tuple[Material, list[Problem]]:
    problems = Problems()
    settings = load({**site.env, **env}, site.catalogue, Reader(), problems)
    return read_material(settings, Reader(), problems), list(problems._found)  # noqa: SLF001


def credentials(site: Site) -> list[tuple[str, str]]:
    material, problems = read(site)
    assert problems == []
    assert material.credentials is not None
    return [(each.role, each.password.reveal()) for each in material.credentials]


def told(site: Site, **env: str) -> list[tuple[str, str, str]]:
    _, problems = read(site, **env)
    return [(each.setting, each.origin, each.what) for each in problems]


def test_a_file_is_a_role_and_its_password(site: Site) -> None:
    site.user("with space %", "  pass \\ 100%: \n")
    site.user("rôle", "pässwörd %")
    assert credentials(site) == [
        ("n8n", "n8n pass 50 %"),
        ("rôle", "pässwörd %"),
        ("sr_check", "check pass 100%"),
        ("with space %", "  pass \\ 100%: "),
    ]


def test_a_directory_is_a_basic_auth_secret(site: Site) -> None:
    SecretVolume(site.users / "app").write({"username": b"app_a\n", "password": b"app pass 100%\n"})
    (site.users / "plain").mkdir()
    site.user("plain/username", "plain user")
    site.user("plain/password", "plain pass 1%")
    site.user("plain/more", "is of no interest")
    assert credentials(site)[2:] == [("app_a", "app pass 100%"), ("plain user", "plain pass 1%")]


def test_a_credential_names_the_file_of_its_password(site: Site) -> None:
    SecretVolume(site.users / "app").write({"username": b"app_a", "password": b"app pass 100%"})
    material, _ = read(site)
    assert material.credentials is not None
    assert material.credentials[-1] == Credential("app_a", Secret("app pass 100%"), f"{site.users}/app/password")
    assert material.credentials[0].origin == f"{site.users}/n8n"


def test_only_the_last_newline_of_a_password_is_taken_off(site: Site) -> None:
    site.user("n8n", "pass 100%\n\n")
    assert credentials(site)[0] == ("n8n", "pass 100%\n")


def test_a_mounted_volume_of_roles_shows_its_keys_alone(site: Site, tmp_path: Path) -> None:
    SecretVolume(tmp_path / "v").write({"n8n": b"n8n pass 1%", "sr_check": b"check pass 2%"})
    site.env["PGPOOL_USERS_DIR"] = str(tmp_path / "v")
    assert credentials(site) == [("n8n", "n8n pass 1%"), ("sr_check", "check pass 2%")]


@pytest.mark.parametrize("key", ["username", "password"])
def test_a_directory_without_one_of_the_two_is_told(site: Site, key: str) -> None:
    site.user("app/username", "app")
    site.user("app/password", "app pass 100%")
    (site.users / "app" / key).unlink()
    assert told(site) == [("PGPOOL_USERS_DIR", f"{site.users}/app", f"has no file `{key}`")]


def test_an_empty_directory_lacks_both(site: Site) -> None:
    (site.users / "app").mkdir()
    assert [what for _, _, what in told(site)] == ["has no file `username`", "has no file `password`"]


def test_one_secret_mounted_as_the_users_directory_is_told(site: Site, tmp_path: Path) -> None:
    SecretVolume(tmp_path / "v").write({"username": b"app", "password": b"app pass 100%"})
    assert told(site, PGPOOL_USERS_DIR=f"{tmp_path}/v") == [("PGPOOL_USERS_DIR", f"{tmp_path}/v", ONE_DEEPER)]


def test_a_role_may_be_called_username_or_password(site: Site) -> None:
    site.user("username", "odd pass 100%")
    assert credentials(site)[-1] == ("username", "odd pass 100%")


def test_bytes_that_are_no_text_are_told_without_showing_them(site: Site) -> None:
    site.user("n8n", b"pass\xff 100%")
    site.user("app/username", b"app\xff")
    site.user("app/password", "app pass 100%")
    site.user("two/username", "two")
    site.user("two/password", b"\xfe pass 100%")
    assert told(site) == [
        ("password of role 'n8n'", f"{site.users}/n8n", "is not UTF-8 text"),
        ("`username` of a role", f"{site.users}/app", "is not UTF-8 text"),
        ("password of role 'two'", f"{site.users}/two/password", "is not UTF-8 text"),
    ]


def test_a_file_name_that_is_no_text_is_told(site: Site) -> None:
    path = os.fsencode(site.users) + b"/ol\xe9"
    with open(path, "wb") as file:  # noqa: PTH123  # a name that is no text
        file.write(b"pass 100%")
    assert told(site) == [("role named by a file", f"{site.users}/ol\ufffd", "is not UTF-8 text")]


def test_a_line_end_in_a_file_name_belongs_to_the_role(site: Site) -> None:
    site.user("n8n\n", "pass 100%")
    assert ("n8n\n", "pass 100%") in credentials(site)


def test_a_users_directory_that_is_not_there_is_told_once(site: Site) -> None:
    material, problems = read(site, PGPOOL_USERS_DIR="/none")
    assert material.credentials is None
    assert [(each.setting, each.origin, each.what) for each in problems] == [
        ("PGPOOL_USERS_DIR", "environment", "/none does not exist")
    ]


def test_a_refused_path_is_not_read(site: Site) -> None:
    material, problems = read(site, PGPOOL_USERS_DIR="none")
    assert material.credentials is None
    assert [each.what for each in problems] == ["'none' is not an absolute path"]


@pytest.mark.parametrize(
    ("content", "key"),
    [
        (b"key 100%", "key 100%"),
        (b"key 100%\n", "key 100%"),
        (b"key 100%\nsecond line\n", "key 100%"),
        (b"  key % \n", "  key % "),
        (b"", ""),
        (b"\nsecond line", ""),
        (b"key %\r\n", "key %\r"),
    ],
)
def test_the_key_is_the_first_line(site: Site, content: bytes, key: str) -> None:
    material, problems = read(site, PGPOOLKEYFILE=str(site.file("key", content)))
    assert problems == []
    assert material.key == Secret(key)


@pytest.mark.parametrize("name", ["PGPOOLKEYFILE", "PGPOOL_HBA_FILE"])
def test_a_file_that_is_not_there_or_no_text_is_told(site: Site, name: str) -> None:
    assert told(site, **{name: "/none"}) == [(name, "environment", "/none does not exist")]
    path = str(site.file("binary", b"\xff 100%"))
    assert told(site, **{name: path}) == [(name, path, "is not UTF-8 text")]


def test_what_is_not_configured_is_not_there(site: Site) -> None:
    material, _ = read(site)
    assert (material.key, material.hba, material.tls) == (None, None, None)


def test_hba_and_certificate_are_read(site: Site, tmp_path: Path) -> None:
    certificate = Authority().issue()
    certificate.write(tmp_path / "tls")
    hba = site.file("hba", "local all all scram-sha-256\n\n")
    material, problems = read(site, PGPOOL_HBA_FILE=str(hba), PGPOOL_TLS_DIR=f"{tmp_path}/tls")
    assert problems == []
    assert material.hba == "local all all scram-sha-256\n"
    assert material.tls is not None
    assert material.tls.files == certificate.files()


def test_no_representation_shows_a_secret(site: Site) -> None:
    material, _ = read(site, PGPOOLKEYFILE=str(site.file("key", "key 100%")))
    assert "100%" not in repr(material)
    assert "50 %" not in repr(material)
