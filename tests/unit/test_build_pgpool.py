"""image/build-pgpool, with a release of a few lines of shell in place of pgpool's tarball."""

import hashlib
import os
import re
import signal
import subprocess
import tarfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest

IMAGE = Path(__file__).parents[2] / "image"
PROGRAMS = "pgpool pg_enc pg_md5 wd_cli pcp_node_info"
CONFIGURE = """\
#!/bin/sh
for argument; do
    case $argument in --prefix=*) echo "prefix = ${argument#--prefix=}" >settings.mk ;; esac
done
"""
MAKEFILE = f"""\
include settings.mk
target = $(DESTDIR)$(prefix)
programs = {PROGRAMS} pgpool_setup
all:
\tfor p in $(programs); do (echo '#!/bin/sh' && sed "s/.*/echo '&'/" src/include/version.h src/wait.c) >$$p; done
\tchmod 755 $(programs)
install-strip:
\tmkdir -p $(target)/bin $(target)/lib $(target)/include $(target)/etc
\tcp $(programs) $(target)/bin
\tcd $(target) && touch lib/libpcp.so.2 lib/libpcp.la include/pcp.h etc/pgpool.conf.sample
"""


WAIT = "first\nsleep(1);\nlast\n"
PATCH = """\
Why this is done.

--- a/src/wait.c
+++ b/src/wait.c
@@ -1,3 +1,3 @@
 first
-sleep(1);
+usleep(100000);
 last
"""


@dataclass(frozen=True)
class Workshop:
    """A release table with one release, its tarball, and the script's directories."""

    path: Path
    prefix: Path
    tarball: Path
    patches: Path | None = None

    @property
    def releases(self) -> Path:
        return self.path / "releases.tsv"

    @property
    def cache(self) -> Path:
        return self.path / "cache"

    def make_release(self, version: str = "9.9.1", configure: str = CONFIGURE, wait: str = WAIT) -> None:
        source = self.path / f"pgpool-II-{version}"
        (source / "src" / "include").mkdir(parents=True)
        (source / "src" / "include" / "version.h").write_text('#define PGPOOLVERSION "sakuraboshi"\n')
        (source / "src" / "wait.c").write_text(wait)
        (source / "configure").write_text(configure)
        (source / "configure").chmod(0o755)
        (source / "Makefile").write_text(MAKEFILE)
        (source / "COPYING").write_text("licence\n")
        with tarfile.open(self.tarball, "w:gz") as tar:
            tar.add(source, arcname=source.name)
        content = self.tarball.read_bytes()
        checksum = hashlib.sha256(content).hexdigest()
        with self.releases.open("a") as table:
            table.write(f"{version}\tfile://{self.tarball}\t{checksum}\t{len(content)}\n")

    def command(self, *arguments: str | Path) -> list[str | Path]:
        options: list[str | Path] = [
            "--releases",
            self.releases,
            "--cache",
            self.cache,
            "--prefix",
            self.prefix,
            "--patches",
            self.patches or "none",
        ]
        return [IMAGE / "build-pgpool", *options, *arguments]

    def run(self, *arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments),
            env={"PATH": os.environ["PATH"], "HOME": str(self.path), **environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def leftovers(self) -> list[str]:
        """What a build must not leave behind, whether it succeeds or not."""
        return [p.name for p in (*self.cache.glob("work.*"), *self.prefix.parent.glob(".*.partial"))]


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    workshop = Workshop(tmp_path, prefix=tmp_path / "opt" / "pgpool", tarball=tmp_path / "release.tar.gz")
    workshop.make_release()
    return workshop


def assert_refused(workshop: Workshop, result: subprocess.CompletedProcess[str], *words: str) -> None:
    assert result.returncode == 1, result.stderr
    for word in words:
        assert word in result.stderr
    assert not workshop.prefix.exists()
    assert workshop.leftovers() == []


def test_fetches_verifies_builds_and_installs_what_is_kept(workshop: Workshop) -> None:
    result = workshop.run("--version", "9.9.1")

    assert result.returncode == 0, result.stderr
    installed = sorted(str(p.relative_to(workshop.prefix)) for p in workshop.prefix.rglob("*") if p.is_file())
    programs = sorted(f"bin/{name}" for name in PROGRAMS.split())
    assert installed == ["BUILD-INFO", "COPYING", *programs, "lib/libpcp.so.2"]
    checksum = hashlib.sha256(workshop.tarball.read_bytes()).hexdigest()
    info = (workshop.prefix / "BUILD-INFO").read_text().splitlines()
    assert info[:2] == ["pgpool-II 9.9.1", f"tarball sha256 {checksum}"]
    assert "patches none" in info
    steps = re.findall(r"^pgpool 9\.9\.1: (\w+) +\d+ s$", result.stderr, re.MULTILINE)
    assert steps == ["fetch", "unpack", "configure", "compile", "install", "check"]
    assert workshop.leftovers() == []


def test_a_second_run_reuses_the_prefix_in_silence(workshop: Workshop) -> None:
    workshop.run("--version", "9.9.1")
    before = workshop.prefix.stat().st_ino

    result = workshop.run("--version", "9.9.1")

    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert workshop.prefix.stat().st_ino == before


def test_force_builds_again_from_the_cached_tarball(workshop: Workshop) -> None:
    workshop.run("--version", "9.9.1")
    before = workshop.prefix.stat().st_ino
    workshop.tarball.unlink()  # the origin is gone

    result = workshop.run("--version", "9.9.1", "--force")

    assert result.returncode == 0, result.stderr
    assert workshop.prefix.stat().st_ino != before
    assert "fetch" not in result.stderr


def test_a_damaged_tarball_is_an_error_even_if_the_prefix_is_up_to_date(workshop: Workshop) -> None:
    workshop.run("--version", "9.9.1")
    damaged = workshop.path / "damaged.tar.gz"
    damaged.write_bytes(b"half a tarball")

    result = workshop.run("--version", "9.9.1", "--tarball", damaged)

    assert result.returncode == 1
    assert str(damaged) in result.stderr
    assert (workshop.prefix / "bin" / "pgpool").exists()


def test_another_release_replaces_the_prefix_as_a_whole(workshop: Workshop) -> None:
    workshop.run("--version", "9.9.1")
    (workshop.prefix / "bin" / "of-the-old-release").touch()
    workshop.make_release("9.9.2")

    result = workshop.run("--version", "9.9.2")

    assert result.returncode == 0, result.stderr
    assert (workshop.prefix / "BUILD-INFO").read_text().startswith("pgpool-II 9.9.2\n")
    assert not (workshop.prefix / "bin" / "of-the-old-release").exists()


@pytest.mark.parametrize("how", ["option", "environment"])
def test_a_given_tarball_needs_no_origin_and_no_version(workshop: Workshop, how: str) -> None:
    elsewhere = workshop.tarball.rename(workshop.path / "elsewhere.tar.gz")

    result = workshop.run("--tarball", elsewhere) if how == "option" else workshop.run(PGPOOL_TARBALL=str(elsewhere))

    assert result.returncode == 0, result.stderr
    assert (workshop.prefix / "BUILD-INFO").read_text().startswith("pgpool-II 9.9.1\n")


@pytest.mark.parametrize("given", [True, False], ids=["given", "fetched"])
def test_a_truncated_tarball_is_refused(workshop: Workshop, given: bool) -> None:  # noqa: FBT001
    content = workshop.tarball.read_bytes()
    workshop.tarball.write_bytes(content[:-10])

    result = workshop.run("--version", "9.9.1", *(("--tarball", workshop.tarball) if given else ()))

    assert_refused(
        workshop,
        result,
        str(workshop.tarball),
        f"{len(content) - 10} bytes, expected {len(content)}",
        "incomplete",
    )


@pytest.mark.parametrize("given", [True, False], ids=["given", "fetched"])
def test_a_tarball_with_another_checksum_is_refused(workshop: Workshop, given: bool) -> None:  # noqa: FBT001
    expected = hashlib.sha256(workshop.tarball.read_bytes()).hexdigest()
    content = bytearray(workshop.tarball.read_bytes())
    content[-1] ^= 1
    workshop.tarball.write_bytes(content)

    result = workshop.run("--version", "9.9.1", *(("--tarball", workshop.tarball) if given else ()))

    assert_refused(workshop, result, f"SHA-256 is {hashlib.sha256(content).hexdigest()}, expected {expected}")


def test_a_damaged_tarball_in_the_cache_is_fetched_again(workshop: Workshop) -> None:
    workshop.cache.mkdir()
    (workshop.cache / "pgpool-9.9.1.tar.gz").write_bytes(b"half a tarball")

    result = workshop.run("--version", "9.9.1")

    assert result.returncode == 0, result.stderr
    assert "fetch" in result.stderr


def test_an_unknown_version_lists_the_known_ones(workshop: Workshop) -> None:
    workshop.make_release("9.10.0")

    result = workshop.run("--version", "8.0.0")

    assert_refused(workshop, result, "8.0.0 is not in the release table", "9.9.1 9.10.0", str(workshop.releases))


def test_a_missing_tarball_is_named(workshop: Workshop) -> None:
    assert_refused(workshop, workshop.run("--version", "9.9.1", "--tarball", "/no/such.tar.gz"), "/no/such.tar.gz")
    assert_refused(workshop, workshop.run("--tarball", "/no/such.tar.gz"), "/no/such.tar.gz")


def test_an_unreachable_origin_points_to_the_tarball_option(workshop: Workshop) -> None:
    workshop.tarball.unlink()

    assert_refused(workshop, workshop.run("--version", "9.9.1"), str(workshop.tarball), "PGPOOL_TARBALL=FILE")


def test_a_failing_configure_shows_its_output_and_leaves_nothing(workshop: Workshop) -> None:
    workshop.make_release("9.9.2", configure="#!/bin/sh\necho 'libpq is not installed'\nexit 1\n")

    result = workshop.run("--version", "9.9.2")

    assert_refused(workshop, result, "libpq is not installed", "'configure' failed", "libpq-dev")


def test_a_failing_build_keeps_the_prefix_of_before(workshop: Workshop) -> None:
    workshop.run("--version", "9.9.1")
    workshop.make_release("9.9.2", configure="#!/bin/sh\nexit 1\n")

    assert workshop.run("--version", "9.9.2").returncode == 1

    assert (workshop.prefix / "BUILD-INFO").read_text().startswith("pgpool-II 9.9.1\n")


def test_an_interrupted_build_leaves_nothing(workshop: Workshop) -> None:
    workshop.make_release("9.9.2", configure="#!/bin/sh\ntouch ../configuring\nsleep 60\n")
    command = workshop.command("--version", "9.9.2")
    # A suite that runs in the background of a shell was started with SIGINT ignored, and all that it starts would be.
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(
        command,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=heed,  # noqa: PLW1509  # no other thread runs here
    ) as build:
        deadline = time.monotonic() + 30
        while not any(workshop.cache.glob("work.*/configuring")):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.killpg(build.pid, signal.SIGINT)  # what Ctrl-C does
        assert build.wait(10) != 0

    assert not workshop.prefix.exists()
    assert workshop.leftovers() == []


def test_a_directory_with_other_content_is_never_replaced(workshop: Workshop) -> None:
    workshop.prefix.mkdir(parents=True)
    (workshop.prefix / "precious").touch()

    result = workshop.run("--version", "9.9.1")

    assert result.returncode == 1
    assert str(workshop.prefix) in result.stderr
    assert [p.name for p in workshop.prefix.iterdir()] == ["precious"]


@pytest.fixture
def patched(workshop: Workshop) -> Workshop:
    """A workshop with patches."""
    patches = workshop.path / "patches"
    patches.mkdir()
    (patches / "07-wait.patch").write_text(PATCH)
    (patches / "12-last.patch").write_text(PATCH.replace("-sleep(1);\n+", " ").replace(" last\n", "-last\n+end\n"))
    (patches / "README.md").write_text("not a patch\n")
    return replace(workshop, patches=patches)


def says(workshop: Workshop) -> list[str]:
    """What the built pgpool prints: its sources."""
    answer = subprocess.run([workshop.prefix / "bin" / "pgpool"], capture_output=True, text=True, check=True)
    return answer.stdout.splitlines()


def test_patches_are_applied_in_order_and_every_program_and_build_info_name_them(patched: Workshop) -> None:
    result = patched.run("--version", "9.9.1")

    assert result.returncode == 0, result.stderr
    version, *wait = says(patched)
    assert version == '#define PGPOOLVERSION "sakuraboshi; pgpool-entrypoint patches: 07 12"'
    assert wait == ["first", "usleep(100000);", "end"]
    assert "patches 07 12" in (patched.prefix / "BUILD-INFO").read_text().splitlines()


def test_a_patch_applies_to_a_release_that_has_moved_its_lines(patched: Workshop) -> None:
    patched.make_release("9.9.2", wait=f"new\n{WAIT}new\n")

    result = patched.run("--version", "9.9.2")

    assert result.returncode == 0, result.stderr
    assert says(patched)[1:] == ["new", "first", "usleep(100000);", "end", "new"]


def test_a_patch_that_does_not_apply_fails_the_build_and_is_named(patched: Workshop) -> None:
    patched.make_release("9.9.2", wait="first\nselect();\nlast\n")

    result = patched.run("--version", "9.9.2")

    assert_refused(patched, result, "07-wait.patch does not apply to pgpool 9.9.2", "PGPOOL_PATCHES=none")


def test_patches_that_the_version_cannot_tell_of_fail_the_build(patched: Workshop) -> None:
    (patched.path / "patches" / "99-version.patch").write_text(
        "--- a/src/include/version.h\n+++ b/src/include/version.h\n@@ -1 +1 @@\n"
        '-#define PGPOOLVERSION "sakuraboshi"\n+#define PGPOOL_NAME "sakuraboshi"\n'
    )

    assert_refused(patched, patched.run("--version", "9.9.1"), "has no PGPOOLVERSION")


@pytest.mark.parametrize("how", ["option", "environment"])
def test_none_builds_pgpool_as_released(patched: Workshop, how: str) -> None:
    if how == "option":
        result = patched.run("--version", "9.9.1", "--patches", "none")
    else:
        command = patched.command("--version", "9.9.1")
        option = command.index("--patches")
        command[option : option + 2] = []
        environment = {"PATH": os.environ["PATH"], "HOME": str(patched.path), "PGPOOL_PATCHES": "none"}
        result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    assert result.returncode == 0, result.stderr
    assert says(patched) == ['#define PGPOOLVERSION "sakuraboshi"', *WAIT.splitlines()]


def test_a_changed_patch_and_building_without_replace_what_is_there(patched: Workshop) -> None:
    patched.run("--version", "9.9.1")
    (patched.path / "patches" / "07-wait.patch").write_text(PATCH.replace("100000", "200000"))

    patched.run("--version", "9.9.1")
    assert "usleep(200000);" in says(patched)

    patched.run("--version", "9.9.1", "--patches", "none")
    assert "sleep(1);" in says(patched)


def test_a_directory_without_patches_is_refused(workshop: Workshop) -> None:
    empty = workshop.path / "empty"
    empty.mkdir()

    result = workshop.run("--version", "9.9.1", "--patches", empty)

    assert_refused(workshop, result, f"no patches NN-*.patch in {empty}", "'none'")


def test_every_patch_of_ours_says_why_and_what_it_brings() -> None:
    patches = sorted((IMAGE / "patches").glob("*.patch"))
    assert [patch.name[:2] for patch in patches] == [f"{number:02}" for number in range(1, len(patches) + 1)]
    for patch in patches:
        reason, _, _ = patch.read_text().partition("\n--- a/")
        assert len(reason.splitlines()) > 3, patch
        assert "Measured" in reason, patch


def test_source_only_unpacks(workshop: Workshop) -> None:
    source = workshop.path / "source"
    command = [a for a in workshop.command("--version", "9.9.1") if a not in {"--prefix", workshop.prefix}]

    subprocess.run([*command, "--source", source], check=True, capture_output=True)

    assert (source / "configure").is_file()
    assert not workshop.prefix.exists()


def test_newest_skips_origins_that_do_not_answer_and_says_so(workshop: Workshop) -> None:
    with workshop.releases.open("a") as table:
        table.write(f"9.9.10\tfile:///no/such.tar.gz\t{'0' * 64}\t1\n")
        table.write(f"9.10.0\tfile://{workshop.tarball}\t{'0' * 64}\t1\n")

    result = workshop.run("--newest", "9.9")

    assert result.stdout == "9.9.1\n"
    assert "9.9.10: " in result.stderr
    assert "does not answer" in result.stderr
    assert "taking 9.9.1" in result.stderr


def test_newest_fails_when_no_origin_answers(workshop: Workshop) -> None:
    workshop.tarball.unlink()

    result = workshop.run("--newest", "9.9")

    assert_refused(workshop, result, "9.9.1", "does not answer", "PGPOOL_TARBALL=FILE")
    assert result.stdout == ""


@pytest.mark.parametrize(
    "arguments",
    [(), ("--version",), ("--versoin", "9.9.1"), ("--version", "9.9.1", "--jobs", "many")],
    ids=lambda arguments: " ".join(arguments) or "nothing",
)
def test_wrong_usage(workshop: Workshop, arguments: tuple[str, ...]) -> None:
    result = workshop.run(*arguments)

    assert result.returncode == 64
    assert "--help" in result.stderr


def test_help(workshop: Workshop) -> None:
    result = workshop.run("--help")

    assert result.returncode == 0
    assert "PGPOOL_TARBALL" in result.stdout
    assert "PGPOOL_PATCHES" in result.stdout


def is_origin(text: str) -> bool:
    return any(re.fullmatch(form, text) for form in (r"https://\S+", r"debian:[a-z]+/[a-z0-9.+-]+=\S+"))


def test_the_release_table_is_well_formed() -> None:
    lines = (IMAGE / "releases.tsv").read_text().splitlines()
    rows = [line.split("\t") for line in lines if line and not line.startswith("#")]
    checks: list[Callable[[str], object]] = [
        re.compile(r"\d+\.\d+\.\d+").fullmatch,
        is_origin,
        re.compile(r"[0-9a-f]{64}").fullmatch,
        re.compile(r"[1-9]\d*|-").fullmatch,
    ]
    assert rows
    for row in rows:
        assert len(row) == len(checks), row
        assert all(check(field) for check, field in zip(checks, row, strict=True)), row
    versions = [row[0] for row in rows]
    assert len(set(versions)) == len(versions)
