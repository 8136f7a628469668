"""Where the real programs are, and which versions they have."""

import re
import shutil
import subprocess
from pathlib import Path


def find_pgpool() -> Path | None:
    """The directory of the `pgpool` on PATH."""
    program = shutil.which("pgpool")
    return Path(program).resolve().parent if program else None


def find_postgres() -> Path | None:
    """Debian's newest server, for its programs are not on PATH; else what pg_config says."""
    installed = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/postgres")]
    if installed:
        return max(installed, key=lambda path: float(path.parent.name))
    if not shutil.which("pg_config"):
        return None
    answer = subprocess.run(["pg_config", "--bindir"], capture_output=True, text=True, check=True)
    directory = Path(answer.stdout.strip())
    return directory if (directory / "postgres").is_file() else None


def version(program: Path) -> str:
    """The version number a program reports, whichever stream it uses for that."""
    answer = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    text = answer.stdout + answer.stderr
    number = re.search(r"\d+(\.\d+)+", text)
    return number[0] if number else text.strip()
