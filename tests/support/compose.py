"""The services of a compose file, as containers that podman can start on this machine's own network."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from support.containers import Description, Mount, SecurityContext

Service = Mapping[str, Any]


def describe(
    service: Service, *, directory: Path, image: str, volumes: Mapping[str, str], env: Mapping[str, str]
) -> Description:
    """One service.

    Args:
        service: as the file has it.
        directory: where the file is: its paths are relative to that.
        image: what the service's image stands for.
        volumes: podman's name of each volume, by that in the file.
        env: what this machine decides of the environment.
    """
    return Description(
        image=image,
        args=service.get("command", ()),
        env={**service["environment"], **env},
        mounts=[_mount(each, directory, volumes) for each in service["volumes"]],
        security=SecurityContext(
            read_only_root_filesystem=service["read_only"],
            allow_privilege_escalation="no-new-privileges:true" not in service["security_opt"],
            drop=service["cap_drop"],
            sysctls=dict(each.split("=") for each in service.get("sysctls", ())),
        ),
    )


def _mount(words: str, directory: Path, volumes: Mapping[str, str]) -> Mount:
    source, target, *mode = words.split(":")
    place = directory / source if source.startswith(".") else Path(volumes[source])
    return Mount(source=place, target=target, read_only="ro" in mode)
