"""What somebody types into a shell."""

import subprocess
from collections.abc import Mapping
from pathlib import Path


def type_in(script: str, *, cwd: Path, environment: Mapping[str, str], answers: str = "") -> str:
    """Run a script to its end, which must be a good one, and return what it prints; `answers` is its standard input."""
    result = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=cwd,
        env=environment,
        input=answers,
        capture_output=True,
        text=True,
        start_new_session=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, f"{script}\n{result.stdout}{result.stderr}"
    return result.stdout
