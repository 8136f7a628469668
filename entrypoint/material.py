"""Reads the files that the settings name: roles and passwords, key, certificates, pool_hba.conf."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from entrypoint import settings as table
from entrypoint.errors import Problems
from entrypoint.secret import Secret
from entrypoint.settings import REFUSED, Setting, Settings
from entrypoint.sources import Directory, Reader, SourceError, text


@dataclass(frozen=True, slots=True)
class Credential:
    """A role and its password, as found; nothing is checked yet."""

    role: str
    password: Secret
    origin: str
    """The file that held the password, or the variable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Supplied:
    """What another image's variables hold or name, and no setting of ours does."""

    credentials: tuple[Credential, ...] = ()
    key: Secret | None = None
    tls: Mapping[str, Path] | None
    """Where tls.crt, tls.key and ca.crt are, when they do not stand under these names in one directory.

    None: nowhere; TLS is on with a certificate that is made up.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """The content of everything the settings point to; None: not configured, or a problem was added."""

    credentials: tuple[Credential, ...] | None
    unread: bool
    """Whether something in the users directory could not be read, so that roles may be missing."""
    key: Secret | None
    hba: str | None
    tls: Directory | None


def read_material(settings: Settings, reader: Reader, problems: Problems, supplied: Supplied | None = None) -> Material:
    """Read all files that `settings` names; what cannot be read is added to `problems`.

    What is `supplied` goes beside it; then the users directory is read only if it is named.
    """
    files = _Files(settings, reader, problems)
    unnamed = supplied is not None and settings.origin(table.USERS_DIR) == "default"
    users = None if unnamed else files.directory(table.USERS_DIR, settings.users_dir, depth=1)
    if users is not None and {"username", "password"} <= set(users.files):
        problems.add(
            table.USERS_DIR.name,
            str(users.path),
            "holds `username` and `password` itself, as one mounted Secret",
            f"mount that Secret one level deeper, for example at {users.path}/app",
        )
        users = None
    further = () if supplied is None else supplied.credentials
    if supplied is not None and supplied.tls:
        tls = files.together(table.TLS_DIR, settings.tls_dir, supplied.tls)
    else:
        tls = files.directory(table.TLS_DIR, settings.tls_dir)
    key = files.text(table.KEY_FILE, settings.key_file)
    # pgpool reads one line and takes off one newline (src/auth/pool_passwd.c, read_pool_key).
    first_line = None if key is None else Secret(key.partition("\n")[0])
    return Material(
        credentials=None if users is None and not unnamed else (*_credentials(users, problems), *further),
        unread=users is not None and bool(users.faults),
        key=first_line if supplied is None or supplied.key is None else supplied.key,
        hba=files.text(table.HBA_FILE, settings.hba_file),
        tls=None if tls is None or tls.faults else tls,
    )


@dataclass(frozen=True, slots=True)
class _Files:
    settings: Settings
    reader: Reader
    problems: Problems

    def text(self, setting: Setting[Any], path: Path | None) -> str | None:
        if path is None:
            return None
        try:
            return text(self.reader.file(path))
        except SourceError as error:
            self._add(setting, error)
        except UnicodeDecodeError:
            remedy = "make a key of text (`openssl rand -base64 32`)" if setting is table.KEY_FILE else "write it anew"
            self.problems.add(setting.name, str(path), "is not UTF-8 text", remedy)
        return None

    def directory(self, setting: Setting[Any], path: Path | None, *, depth: int = 0) -> Directory | None:
        if path is None or path == REFUSED:
            return None
        try:
            directory = self.reader.directory(path, depth=depth)
        except SourceError as error:
            self._add(setting, error)
            return None
        for fault in directory.faults:
            self._add(setting, fault)
        return directory

    def together(self, setting: Setting[Any], path: Path | None, places: Mapping[str, Path]) -> Directory | None:
        """Files from several places, as if they stood in one directory under the given names."""
        files: dict[str, bytes] = {}
        for name, place in places.items():
            try:
                files[name] = self.reader.file(place)
            except SourceError as error:
                self._add(setting, error)
        return None if path is None or len(files) < len(places) else Directory(path, files)

    def _add(self, setting: Setting[Any], error: SourceError) -> None:
        self.problems.add(setting.name, self.settings.origin(setting), str(error), error.remedy)


def _credentials(users: Directory | None, problems: Problems) -> Iterator[Credential]:
    if users is None:
        return
    for name, content in users.files.items():
        # Not a Path: with thousands of roles, making those takes most of the time.
        file = f"{users.path}/{name}"
        if _text(os.fsencode(name), "role named by a file", file, problems) is not None:
            yield from _credential(name, content, file, problems)
    for directory in users.directories.values():
        for key in ("username", "password"):
            if key not in directory.files and not directory.faults:  # told already: it could not be read
                problems.add(
                    table.USERS_DIR.name,
                    str(directory.path),
                    f"has no file `{key}`",
                    "a directory holds `username` and `password`; a role alone is a file",
                )
        if {"username", "password"} <= set(directory.files):
            role = _text(directory.files["username"], "`username` of a role", str(directory.path), problems)
            if role is not None:
                yield from _credential(role, directory.files["password"], f"{directory.path}/password", problems)


def _credential(role: str, content: bytes, path: str, problems: Problems) -> Iterator[Credential]:
    password = _text(content, f"password of role {role!r}", path, problems)
    if password is not None:
        yield Credential(role, Secret(password), path)


def _text(content: bytes, setting: str, path: str, problems: Problems) -> str | None:
    try:
        return text(content)
    except UnicodeDecodeError:
        shown = os.fsencode(path).decode("utf-8", "replace")
        problems.add(setting, shown, "is not UTF-8 text", "write it anew, in UTF-8")
        return None
