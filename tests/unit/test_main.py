"""The command line, without a pgpool on PATH or with one that only pretends."""

import json
import os
import stat
import sys
from io import StringIO
from pathlib import Path

import pytest

from entrypoint import __version__, boot, pipeline, reference
from entrypoint.__main__ import main, run
from entrypoint.errors import ConfigurationError, ExitCode, ProgramMissingError, ProgramUnusableError, PublishError
from entrypoint.log import Log
from entrypoint.program import Program, RejectedError, find_program
from entrypoint.secret import Secret
from support.pgpool_process import run_entrypoint
from unit.conftest import Site

PCP = "pcp pass 100%"
ACCEPTS = """
case $1 in --version) echo 'pgpool-II version 4.6.1 (chirikoboshi)' >&2 ;; *) exit 1 ;; esac"""


@pytest.fixture
def bin_dir(site: Site) -> Path:
    """The whole PATH, and empty."""
    directory = site.root / "bin"
    directory.mkdir()
    site.env["PATH"] = str(directory)
    return directory


def install(bin_dir: Path, script: str, mode: int = 0o755) -> Path:
    program = bin_dir / "pgpool"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(mode)
    return program


def call(site: Site, *arguments: str, **env: str) -> tuple[int, str]:
    """Exit status and log."""
    stream = StringIO()
    status = run(arguments, {**site.env, **env}, Log("test", stream))
    return status, stream.getvalue()


# --- usage ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--nope"], "unrecognized arguments: --nope"),
        (["check", "x"], "unrecognized arguments: x"),
        (["run", "-D"], "unrecognized arguments: -D"),
        (["render"], "the following arguments are required: --to"),
        (["render", "--to"], "argument --to: expected one argument"),
        (["settings", "--format", "xml"], "argument --format: invalid choice: 'xml'"),
        (["probe"], "the following arguments are required: kind"),
        (["probe", "dead"], "argument kind: invalid choice: 'dead'"),
        (["check", "--", "-D"], "only `run` passes arguments on to pgpool"),
        (["settings", "--", "x"], "only `run` passes arguments on to pgpool"),
    ],
)
def test_wrong_usage_ends_with_64(
    site: Site, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as raised:
        call(site, *arguments)
    assert raised.value.code == 64
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.startswith("usage: pgpool-entrypoint")
    assert errors.endswith("see pgpool-entrypoint --help\n")


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [(["--help"], "78 configuration error"), (["--version"], __version__), (["render", "--help"], "--to DIR")],
)
def test_help_is_no_error(site: Site, capsys: pytest.CaptureFixture[str], arguments: list[str], shown: str) -> None:
    with pytest.raises(SystemExit) as raised:
        call(site, *arguments)
    assert raised.value.code == 0
    assert shown in capsys.readouterr().out


def test_the_help_names_every_exit_code(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        call(site, "--help")
    shown = capsys.readouterr().out
    assert [code for code in ExitCode if f"{code.value} " not in shown] == []


# --- check, render, settings ----------------------------------------------------------------------------------------


def test_check_shows_what_is_set_and_no_secret(site: Site, bin_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    user = site.file("user", "n8n\n")
    before = sorted(site.root.rglob("*"))
    status, log = call(site, "check", PGPOOL_PCP_PASSWORD=PCP, PGPOOL_CHECK_USER_FILE=str(user))
    shown = capsys.readouterr().out
    lines = [line.split() for line in shown.splitlines()]
    assert (status, log) == (0, "")
    assert ["PGPOOL_PCP_PASSWORD", "(secret)", "(environment)"] in lines
    assert ["PGPOOL_CHECK_USER_FILE", "n8n", f"({user})"] in lines
    assert ["role", "n8n", "(secret)", f"({site.users}/n8n)"] in lines
    assert "backends: 3; roles: 2; connections to each backend: at most 32\n" in shown
    assert shown.splitlines()[-1].startswith("ok: ")
    assert shown.endswith("\nok: no pgpool is installed here to ask for its opinion\n")
    assert not [word for word in (PCP, "n8n pass", "check pass") if word in shown]
    assert sorted(site.root.rglob("*")) == before


@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])
def test_check_shows_a_file_whose_name_is_no_text(site: Site, errors: str) -> None:
    """What Python makes of it depends on the locale."""
    place = os.fsdecode(b"users/mounted\xff")
    site.file(f"{place}/username", "app")
    site.file(f"{place}/password", "100% secret")
    said = run_entrypoint(["check"], {**site.env, "PYTHONIOENCODING": f"utf-8:{errors}"})
    assert said.returncode == 0, said.stderr
    assert "users/mounted\\udcff/password" in said.stdout


def test_check_asks_the_installed_pgpool(site: Site, bin_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    install(bin_dir, ACCEPTS)
    assert call(site, "check") == (0, "")
    assert capsys.readouterr().out.endswith("\nok: pgpool 4.6.1 accepts it\n")


def test_what_pgpool_rejects_is_told_in_its_words(site: Site, bin_dir: Path) -> None:
    install(bin_dir, ACCEPTS.replace("exit 1", "echo '2026: pid 1: FATAL:  no way' >&2; echo 'LOG: x' >&2; exit 3"))
    with pytest.raises(RejectedError) as raised:
        call(site, "check")
    assert raised.value.exit_code == 78
    assert "4.6.1 rejects the configuration (exit status 3): 2026: pid 1: FATAL:  no way\n" in str(raised.value)


def test_a_pgpool_that_is_killed_has_rejected_nothing(site: Site, bin_dir: Path) -> None:
    """Out of memory, say."""
    install(bin_dir, ACCEPTS.replace("exit 1", "kill -9 $$"))
    with pytest.raises(ProgramUnusableError, match="was ended by signal 9"):
        call(site, "check")


def test_pgpool_is_asked_without_our_settings_and_with_the_whole_file(site: Site, bin_dir: Path) -> None:
    copy = site.root / "copy"
    script = ACCEPTS.replace("exit 1", f'/bin/cat "$2" >{copy}; /usr/bin/env >>{copy}; exit 1')
    install(bin_dir, script)
    call(site, "check", PGPOOL_PCP_PASSWORD=PCP, PGPASSWORD="pg pass 100%", OTHER=f"a{PCP}b", HARMLESS="yes")
    content = copy.read_text()
    site.check_key = None
    conf = site.tree(PGPOOL_PCP_PASSWORD=PCP).files["pgpool.conf"].decode()
    assert content.startswith(conf)
    environment = content.removeprefix(conf)
    assert "PATH=" in environment
    assert not [word for word in ("PGPOOL_", "PGPASSWORD", "OTHER=", "HARMLESS=", PCP) if word in environment]


def test_render_writes_the_files_and_nothing_else(site: Site, bin_dir: Path) -> None:
    out = site.root / "a/b"
    status, log = call(site, "render", "--to", str(out), PGPOOL_PCP_PASSWORD=PCP)
    assert status == 0
    assert log == f"test: wrote pcp.conf, pgpool.conf, pool_hba.conf, pool_passwd to {out}\n"
    files = {path.name: path for path in out.iterdir()}
    site.check_key = None  # nobody would have it afterwards
    assert {name: path.read_bytes() for name, path in files.items()} == site.tree(PGPOOL_PCP_PASSWORD=PCP).files
    assert {stat.S_IMODE(path.stat().st_mode) for path in files.values()} == {0o600}
    assert list(site.run_dir.iterdir()) == []


def test_render_that_cannot_write_is_told(site: Site, bin_dir: Path) -> None:
    with pytest.raises(PublishError) as raised:
        call(site, "render", "--to", str(site.file("file", "")))
    assert raised.value.exit_code == 73


@pytest.mark.parametrize("verb", ["check", "render"])
def test_a_bad_configuration_ends_with_78_and_changes_nothing(
    site: Site, bin_dir: Path, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    arguments = [verb] if verb == "check" else [verb, "--to", str(site.root / "out")]
    site.user("n8n", "pass\n100 %")
    with pytest.raises(ConfigurationError) as raised:
        call(site, *arguments, PGPOOL_PARAMS_PORT="x", PGPOOL_PCP_PASSWORD=f"{PCP}\n")
    assert raised.value.exit_code == 78
    assert str(raised.value).startswith("3 problems in the configuration; nothing was started or changed\n")
    assert not [word for word in (PCP, "100 %") if word in str(raised.value)]
    assert not (site.root / "out").exists()
    assert capsys.readouterr().out == ""


def test_settings_are_printed_as_markdown_or_json(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(site, "settings", PGPOOL_NOPE="is not read") == (0, "")
    assert capsys.readouterr().out == reference.markdown()
    assert call(site, "settings", "--format", "json") == (0, "")
    assert json.loads(capsys.readouterr().out) == json.loads(reference.as_json())


@pytest.mark.parametrize("kind", ["live", "ready"])
def test_a_probe_of_nothing_says_no(site: Site, bin_dir: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    assert call(site, "probe", kind, PGPOOL_NOPE="is not judged") == (1, "")
    assert capsys.readouterr().out == f"{kind}: no; pgpool-entrypoint has not booted in {site.run_dir}\n"


# --- the program ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [[], ["run"], ["--", "-d"], ["run", "--", "-d"]])
def test_booting_needs_a_pgpool(site: Site, bin_dir: Path, arguments: list[str]) -> None:
    with pytest.raises(ProgramMissingError) as raised:
        call(site, *arguments)
    assert raised.value.exit_code == 127
    assert list(site.run_dir.iterdir()) == []


def test_a_pgpool_that_is_not_executable_is_told(site: Site, bin_dir: Path) -> None:
    program = install(bin_dir, ACCEPTS, mode=0o644)
    with pytest.raises(ProgramUnusableError) as raised:
        call(site)
    assert raised.value.exit_code == 126
    assert str(raised.value) == f"{program} is not executable for user id {os.geteuid()}; check its mode"


@pytest.mark.parametrize("script", ["echo hello", "exit 3", "echo 'pgpool-II version '"])
def test_a_pgpool_without_a_version_is_told(site: Site, bin_dir: Path, script: str) -> None:
    install(bin_dir, script)
    with pytest.raises(ProgramUnusableError, match="names no version"):
        call(site, "check")


def test_a_file_that_no_kernel_executes_is_told(site: Site, bin_dir: Path) -> None:
    program = install(bin_dir, "")
    program.write_bytes(b"\x7fELF and no more")
    with pytest.raises(ProgramUnusableError, match="cannot be executed: Exec format error"):
        call(site, "check")


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("pgpool-II version 4.6.1 (chirikoboshi)", "4.6.1"),
        ("pgpool-II version 4.6.10 (x)", "4.6.10"),
        ("pgpool-II version 4.6devel", "4.6devel"),
    ],
)
def test_the_version_is_read_from_either_stream(site: Site, bin_dir: Path, said: str, version: str) -> None:
    for stream in ("", " >&2"):
        program = install(bin_dir, f"echo '{said}'{stream}")
        assert find_program(site.env) == Program(program, version)


def test_the_version_tells_our_patches(site: Site, bin_dir: Path) -> None:
    program = install(bin_dir, "echo 'pgpool-II version 4.6.1 (chirikoboshi; pgpool-entrypoint patches: 01 09 10)'")
    assert find_program(site.env) == Program(program, "4.6.1", frozenset({"01", "09", "10"}))


def test_a_version_without_catalogue_is_told(site: Site, bin_dir: Path) -> None:
    install(bin_dir, "echo 'pgpool-II version 3.7.26 (amefuriboshi)'")
    with pytest.raises(ProgramUnusableError, match=r"pgpool 3\.7\.26 has other parameters .*: 4\.6\n"):
        call(site, "check")


# --- what pgpool is given -------------------------------------------------------------------------------------------


def test_pgpool_gets_the_live_files_and_the_key(site: Site) -> None:
    program = Program(Path("/opt/pgpool"), "4.6.1")
    live = f"{site.run_dir}/current"
    files = ["-f", f"{live}/pgpool.conf", "-a", f"{live}/pool_hba.conf", "-F", f"{live}/pcp.conf"]
    run_dir = site.run_dir
    assert boot.command(run_dir, program, None, []) == ["/opt/pgpool", "-n", "-D", *files]
    assert boot.command(run_dir, program, "/key", ["-d"]) == ["/opt/pgpool", "-n", "-D", *files, "-k", "/key", "-d"]


def test_the_key_is_handed_over_as_it_was_read() -> None:
    path = boot.hand_over(Secret("the key 100%"))
    try:
        assert Path(path).read_text() == "the key 100%\n"
        assert stat.S_IMODE(Path(path).stat().st_mode) == 0o600
        assert os.get_inheritable(int(Path(path).name))
    finally:
        os.close(int(Path(path).name))


def test_no_variable_that_holds_a_secret_reaches_pgpool(site: Site) -> None:
    model = site.resolve(PGPOOL_PCP_PASSWORD=PCP, PGPOOLKEYFILE=str(site.file("key", "key 100%"))).model
    env = {
        "PATH": "/bin",
        "LANG": "C.UTF-8",
        "PGPOOL_PORT": "tcp://10.96.0.7:9999",
        "PGHOST": "db",
        "APP_URL": f"postgres://x:{PCP}@db",
        "KEY": "key 100%",
        "DB_PASSWORD": "n8n pass 50 %",
        "CHECK": "check pass 100%",
        "EMPTY": "",
    }
    assert pipeline.without_secrets(env, model) == {"PATH": "/bin", "LANG": "C.UTF-8", "EMPTY": ""}


def test_a_password_that_is_part_of_path_takes_nothing_away(site: Site) -> None:
    site.user("n8n", "postgres")
    env = {"PATH": "/usr/lib/postgresql/15/bin", "LD_LIBRARY_PATH": "/opt/postgres/lib", "APP": "a postgres b"}
    kept = {name: value for name, value in env.items() if name != "APP"}
    assert pipeline.without_secrets(env, site.resolve().model) == kept


def test_short_passwords_count_only_as_a_whole(site: Site) -> None:
    site.user("n8n", "a b%")
    env = {"WHOLE": "a b%", "PART": "xa b%x"}
    assert pipeline.without_secrets(env, site.resolve().model) == {"PART": "xa b%x"}


# --- main -----------------------------------------------------------------------------------------------------------


def test_main_tells_errors_on_standard_error_and_ends_with_their_code(
    site: Site, bin_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "environ", {**site.env, "PGPOOL_NOPE": "1"})
    monkeypatch.setattr(sys, "argv", ["pgpool-entrypoint", "check"])
    with pytest.raises(SystemExit) as raised:
        main()
    assert raised.value.code == 78
    out, errors = capsys.readouterr()
    assert out == ""
    assert errors.splitlines() == [
        "pgpool-entrypoint: error: 1 problem in the configuration; nothing was started or changed",
        "  PGPOOL_NOPE (environment)",
        "      is not a setting",
        "      → `pgpool-entrypoint settings` lists them all",
    ]


def test_main_ends_with_0_when_all_is_well(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["pgpool-entrypoint", "settings"])
    with pytest.raises(SystemExit) as raised:
        main()
    assert raised.value.code == 0
    assert capsys.readouterr().out.startswith("# Settings\n")


def test_preparing_without_an_administrators_password_makes_a_new_one_each_time(site: Site) -> None:
    made = [pipeline.prepare(site.env, None, site.now)[0].model.pcp_password for _ in range(2)]
    assert made[0] != made[1]
    assert all(len(password.reveal()) >= 32 for password in made)
    given = pipeline.prepare({**site.env, "PGPOOL_PCP_PASSWORD": PCP}, None, site.now)[0]
    assert given.model.pcp_password == Secret(PCP)


def test_a_key_for_the_check_role_is_made_up_for_a_run_alone(site: Site) -> None:
    first, second = [pipeline.prepare(site.env, None, site.now, to_run=True)[0].model.check_key for _ in range(2)]
    assert first is not None
    assert second is not None
    assert len(first.reveal()) == 48
    assert first != second
    assert pipeline.prepare(site.env, None, site.now)[0].model.check_key is None
    site.env["PGPOOLKEYFILE"] = str(site.file("key", "key 100%\n"))
    assert pipeline.prepare(site.env, None, site.now, to_run=True)[0].model.check_key == Secret("key 100%")
