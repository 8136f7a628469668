"""Writes what the image consists of as an SPDX document: Debian's packages, Python's, and pgpool, built from source.

Runs inside the image at the end of its build, with the image's own Python, so that it lists what is there and not
what was asked for. The same image gives the same document: its time is SOURCE_DATE_EPOCH.
"""

import argparse
import hashlib
import json
import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from email.parser import Parser
from importlib import metadata
from pathlib import Path
from urllib.parse import quote

Package = dict[str, object]

IMAGE = "SPDXRef-Image"
PGPOOL_LICENCE = "LicenseRef-pgpool-II"


def main() -> None:
    """Write the document of the tree below `--root`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--root", type=Path, default=Path("/"), help="the image's root directory")
    parser.add_argument("--output", type=Path, required=True, help="the file to write, its directory included")
    options = parser.parse_args()
    created = datetime.fromtimestamp(int(os.environ.get("SOURCE_DATE_EPOCH") or 0), UTC)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(document(options.root, created), indent=1, sort_keys=True) + "\n")


def document(root: Path, created: datetime) -> dict[str, object]:
    """The SPDX 2.3 document of an image's root directory."""
    distribution = dict(re.findall(r'^(\w+)="?([^"\n]*)', (root / "etc/os-release").read_text(), re.MULTILINE))
    pgpool = _pgpool(root / "opt/pgpool")
    (site,) = root.glob("opt/pgpool-entrypoint/lib/python3*/site-packages")
    everything = (pgpool, *_debian(root, distribution), *_python(site), *_compiled_in(site))
    by_identifier = {str(package["SPDXID"]): package for package in everything}
    packages = [package for _, package in sorted(by_identifier.items())]
    own = next(package for package in packages if package["name"] == "pgpool-entrypoint")
    image = _package(IMAGE, "pgpool-entrypoint image", f"{own['versionInfo']}-pgpool-{pgpool['versionInfo']}")
    image["primaryPackagePurpose"] = "CONTAINER"
    digest = hashlib.sha256(json.dumps(packages, sort_keys=True).encode()).hexdigest()
    return {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": "pgpool-entrypoint",
        "documentNamespace": f"https://spdx.org/spdxdocs/pgpool-entrypoint-{digest}",
        "creationInfo": {"created": f"{created:%Y-%m-%dT%H:%M:%SZ}", "creators": ["Tool: pgpool-entrypoint-sbom"]},
        "packages": [image, *packages],
        "hasExtractedLicensingInfos": [
            {
                "licenseId": PGPOOL_LICENCE,
                "name": "pgpool-II's licence",
                "extractedText": (root / "opt/pgpool/COPYING").read_text(),
            }
        ],
        "relationships": [
            _relationship("SPDXRef-DOCUMENT", "DESCRIBES", IMAGE),
            *(_relationship(IMAGE, "CONTAINS", str(package["SPDXID"])) for package in packages),
        ],
    }


def _pgpool(prefix: Path) -> Package:
    """The pgpool that image/build-pgpool made, by its BUILD-INFO."""
    facts = dict(re.findall(r"^(.+) (\S+)$", (prefix / "BUILD-INFO").read_text(), re.MULTILINE))
    version, checksum = facts["pgpool-II"], facts["tarball sha256"]
    patches = re.search(r"^patches (?!sha256)(.+)$", (prefix / "BUILD-INFO").read_text(), re.MULTILINE)
    package = _package("SPDXRef-pgpool-II", "pgpool-II", version, f"pkg:generic/pgpool-II@{version}")
    package |= {
        "sourceInfo": f"built from the release's tarball, SHA-256 {checksum}, by image/build-pgpool, "
        f"with the patches {patches[1] if patches else 'unknown'} of image/patches",
        "licenseDeclared": PGPOOL_LICENCE,
        "licenseConcluded": PGPOOL_LICENCE,
        "checksums": [{"algorithm": "SHA256", "checksumValue": checksum}],
    }
    references = package["externalRefs"]
    assert isinstance(references, list)
    references.append(
        {
            "referenceCategory": "SECURITY",
            "referenceType": "cpe23Type",
            "referenceLocator": f"cpe:2.3:a:pgpool:pgpool-ii:{version}:*:*:*:*:*:*:*",
        }
    )
    return package


def _debian(root: Path, distribution: dict[str, str]) -> Iterator[Package]:
    """What dpkg has installed, and what was taken out of a package without it (status.d)."""
    database = root / "var/lib/dpkg"
    stanzas = [stanza for stanza in (database / "status").read_text().split("\n\n") if stanza.strip()]
    stanzas += [file.read_text() for file in sorted((database / "status.d").iterdir())]
    for stanza in stanzas:
        fields = Parser().parsestr(stanza)
        name, version, architecture = fields["Package"], fields["Version"], fields["Architecture"]
        if fields.get("Status", "install ok installed") != "install ok installed":
            continue
        purl = f"pkg:deb/debian/{quote(name)}@{quote(version, safe='')}"
        purl += f"?arch={architecture}&distro={distribution['ID']}-{distribution['VERSION_ID']}"
        package = _package(f"SPDXRef-deb-{_identifier(name)}", name, version, purl)
        package["supplier"] = "Organization: Debian"
        package["licenseComments"] = f"/usr/share/doc/{name}/copyright"
        yield package


def _python(site: Path) -> Iterator[Package]:
    """What is installed in the virtual environment."""
    for distribution in metadata.distributions(path=[str(site)]):
        fields = distribution.metadata
        name, version = fields["Name"], distribution.version
        purl = f"pkg:pypi/{quote(re.sub(r'[-_.]+', '-', name).lower())}@{quote(version)}"
        package = _package(f"SPDXRef-pypi-{_identifier(name)}", name, version, purl)
        (package["licenseDeclared"],) = fields.get_all("License-Expression") or ["NOASSERTION"]
        yield package


def _compiled_in(site: Path) -> Iterator[Package]:
    """What Python's packages have inside them, OpenSSL for one, as far as they bring a CycloneDX bill that says so."""
    for bill in sorted(site.glob("*.dist-info/sboms/*.json")):
        for component in json.loads(bill.read_text()).get("components", ()):
            name, version, purl = component["name"], component["version"], component["purl"]
            if purl.startswith("pkg:pypi/"):
                continue  # the package itself
            package = _package(f"SPDXRef-in-python-{_identifier(f'{name}-{version}')}", name, version, purl)
            licences = [each["expression"] for each in component.get("licenses", ()) if "expression" in each]
            (package["licenseDeclared"],) = licences or ["NOASSERTION"]
            yield package


def _package(identifier: str, name: str, version: str, purl: str | None = None) -> Package:
    references = [{"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": purl}]
    return {
        "SPDXID": identifier,
        "name": name,
        "versionInfo": version,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": False,
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": "NOASSERTION",
        "copyrightText": "NOASSERTION",
        "externalRefs": references if purl else [],
    }


def _relationship(element: str, kind: str, related: str) -> dict[str, str]:
    return {"spdxElementId": element, "relationshipType": kind, "relatedSpdxElement": related}


def _identifier(name: str) -> str:
    """SPDX identifiers are letters, digits, dots and hyphens."""
    return re.sub(r"[^A-Za-z0-9.-]", "-", name)


if __name__ == "__main__":
    main()
