"""What is in the image, and what is not."""

import json
import re
import tarfile
from pathlib import Path

import pytest
from spdx_tools.spdx.model.document import Document
from spdx_tools.spdx.parser.parse_anything import parse_file
from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

from support.containers import inspect

PROJECT = Path(__file__).parents[2]
SBOM = "usr/share/sbom/pgpool-entrypoint.spdx.json"
MEGABYTE = 1_000_000


def read(root: tarfile.TarFile, path: str) -> str:
    file = root.extractfile(path)
    assert file is not None, f"{path} is no file"
    return file.read().decode()


def paths(root: tarfile.TarFile, pattern: str) -> list[str]:
    """Of all but directories, those that the pattern matches somewhere."""
    return [member.name for member in root if not member.isdir() and re.search(pattern, member.name)]


@pytest.fixture(scope="session")
def sbom(root: tarfile.TarFile, tmp_path_factory: pytest.TempPathFactory) -> Document:
    file = tmp_path_factory.mktemp("sbom") / "image.spdx.json"
    file.write_text(read(root, SBOM))
    return parse_file(str(file))


def test_nobody_can_become_another_user(root: tarfile.TarFile) -> None:
    assert [member.name for member in root if member.isfile() and member.mode & 0o6000] == []


def test_only_the_run_directory_can_be_written(root: tarfile.TarFile) -> None:
    for_all = [member.name for member in root if not member.issym() and member.mode & 0o002]
    assert sorted(for_all) == ["run/lock", "run/pgpool", "tmp", "var/tmp"]  # sticky; read-only in a pod but for one
    others = [(member.name, member.uid, member.gid, member.mode & 0o7777) for member in root if member.uid]
    assert others == [("run/pgpool", 10001, 0, 0o1777)]


def test_what_builds_and_installs_stays_outside(root: tarfile.TarFile) -> None:
    assert paths(root, r"bin/(gcc|cc|c99|make|patch|curl|wget|sudo|pip.*)$") == []
    assert paths(root, r"(^|/)(pip|ensurepip|setuptools|hatchling|wheel)(-[\d.]+\.dist-info)?/") == []
    assert paths(root, r"^(var/lib/apt/lists|var/cache|var/log|tmp)/") == []
    assert paths(root, r"^usr/share/man/") == []


def test_of_postgresql_there_is_psql_and_nothing_else(root: tarfile.TarFile) -> None:
    programs = r"bin/(psql|pg_\w+|postgres|initdb|ecpg|(create|drop)(db|user)|(cluster|reindex|vacuum)(db|lo))$"
    pgpools = {"opt/pgpool/bin/pg_enc", "opt/pgpool/bin/pg_md5"}
    assert set(paths(root, programs)) - pgpools == {"usr/local/bin/psql"}
    packages = re.findall(r"^Package: (\S+)", read(root, "var/lib/dpkg/status"), re.MULTILINE)
    related = [name for name in packages if name.startswith(("postgresql", "libpq", "perl", "pgpool"))]
    assert related == ["libpq5", "perl-base"]


def test_nothing_of_the_machine_that_built_it_is_left(root: tarfile.TarFile) -> None:
    assert paths(root, r"(pip\.conf|\.curlrc|authorities\.crt)$|^(media|mnt|usr/local/share/ca-certificates)/.") == []
    assert read(root, "etc/apt/sources.list") == ""


def test_it_takes_at_most_170_megabytes(root: tarfile.TarFile) -> None:
    size = sum(member.size for member in root if member.isfile())
    print(f"unpacked: {size / MEGABYTE:.1f} MB")
    assert size <= 170 * MEGABYTE


def test_bytecode_is_there_for_every_module_and_never_compared_with_its_source(root: tarfile.TarFile) -> None:
    modules = paths(root, r"^opt/pgpool-entrypoint/lib/.*\.py$")
    for module in modules:
        directory, _, name = module.rpartition("/")
        compiled = root.extractfile(f"{directory}/__pycache__/{name.removesuffix('.py')}.cpython-313.pyc")
        assert compiled is not None
        assert compiled.read(8)[4:] == b"\x01\0\0\0", module  # PEP 552: by hash, unchecked


def test_the_configuration_is_that_of_a_restricted_pod(image: str) -> None:
    config = inspect(image, "image")
    assert config["User"] == "10001:10001"
    assert config["Config"]["StopSignal"] == "SIGINT"
    assert config["Config"]["Entrypoint"] == ["tini", "--", "pgpool-entrypoint"]
    assert config["Healthcheck"]["Test"] == ["CMD", "pgpool-entrypoint", "probe", "live"]
    assert set(config["Config"]["ExposedPorts"]) == {"9999/tcp", "9719/tcp"}
    assert "Cmd" not in config["Config"]


def test_the_labels_say_what_it_is(image: str) -> None:
    labels = inspect(image, "image")["Labels"]
    prefix = "org.opencontainers.image."
    for name in ("title", "description", "licenses", "version", "created", "base.name"):
        assert labels.get(f"{prefix}{name}"), name
    assert labels[f"{prefix}licenses"] == "Apache-2.0"


def test_every_part_comes_with_its_licence(root: tarfile.TarFile) -> None:
    packages = re.findall(r"^Package: (\S+)", read(root, "var/lib/dpkg/status"), re.MULTILINE)
    for package in [*packages, "postgresql-client-17"]:
        documents = root.getmember(f"usr/share/doc/{package}")
        name = documents.linkname if documents.issym() else package  # packages of one source may share it
        assert root.getmember(f"usr/share/doc/{name}/copyright").size, package
    assert "PgPool Global Development Group" in read(root, "opt/pgpool/COPYING")
    for metadata in paths(root, r"\.dist-info/METADATA$"):
        directory = metadata.rpartition("/")[0]
        assert re.search(r"^(License|License-Expression): .+", read(root, metadata), re.MULTILINE), metadata
        assert paths(root, rf"^{re.escape(directory)}/licenses/.*LICEN[CS]E"), metadata


def test_the_sbom_is_valid_spdx(sbom: Document) -> None:
    assert [message.validation_message for message in validate_full_spdx_document(sbom)] == []


def test_the_sbom_lists_the_pgpool_that_was_built_from_source(root: tarfile.TarFile, sbom: Document) -> None:
    (pgpool,) = [package for package in sbom.packages if package.name == "pgpool-II"]
    releases = dict(re.findall(r"^(\d\S+)\t\S+\t(\w+)", (PROJECT / "image/releases.tsv").read_text(), re.MULTILINE))
    assert [checksum.value for checksum in pgpool.checksums] == [releases[str(pgpool.version)]]
    assert f"pgpool-II {pgpool.version}\n" in read(root, "opt/pgpool/BUILD-INFO")
    assert "01 02" in str(pgpool.source_info)


def test_the_sbom_lists_every_package(root: tarfile.TarFile, sbom: Document) -> None:
    listed = {(package.name, package.version) for package in sbom.packages}
    status = read(root, "var/lib/dpkg/status") + read(root, "var/lib/dpkg/status.d/postgresql-client-17")
    stanza = re.compile(r"^Package: (\S+)$.*?^Version: (\S+)$", re.MULTILINE | re.DOTALL)
    installed = set(stanza.findall(status))
    for metadata in paths(root, r"\.dist-info/METADATA$"):
        installed |= set(re.findall(r"^Name: (\S+)\nVersion: (\S+)$", read(root, metadata), re.MULTILINE))
    assert len(installed) > 90
    assert installed - listed == set()


def test_the_sbom_lists_what_is_compiled_into_the_packages_of_python(root: tarfile.TarFile, sbom: Document) -> None:
    bills = [json.loads(read(root, path)) for path in paths(root, r"\.dist-info/sboms/.*\.json$")]
    inside = {(each["name"], each["version"]) for bill in bills for each in bill["components"]}
    assert "openssl" in {name for name, _ in inside}
    listed = {(package.name, package.version) for package in sbom.packages}
    assert {name for name, _ in inside - listed} <= {"psycopg_binary"}  # listed as psycopg-binary


def test_it_has_the_versions_that_were_pinned(root: tarfile.TarFile, sbom: Document) -> None:
    pins = re.findall(r"^([\w-]+)==(\S+)", (PROJECT / "image/requirements.txt").read_text(), re.MULTILINE)
    listed = {(re.sub(r"[-_.]+", "-", package.name).lower(), package.version) for package in sbom.packages}
    assert set(pins) - listed == set()
