"""deploy/base as podman can have it: its pod, and the settings of its ConfigMap."""

from pathlib import Path
from typing import Any

from support.kustomize import build

BASE = {each["kind"]: each for each in build(Path(__file__).parents[2] / "deploy" / "base")}
POD: dict[str, Any] = BASE["Deployment"]["spec"]["template"]["spec"]
SETTINGS: dict[str, str] = {**BASE["ConfigMap"]["data"], "PGPOOL_PATRONI": "off"}
"""Nothing here answers as Patroni; addresses are this machine's anyway."""
