"""A pod's specification, in the words of a manifest, as containers that podman can start."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from support.containers import Description, Mount, SecurityContext

Specification = Mapping[str, Any]

# What belongs to a namespace that podman makes for each pod; the network is this machine's.
_OWN_SYSCTLS = ("kernel.shm",)


def describe(
    pod: Specification, name: str, *, image: str, volumes: Mapping[str, Path], env: Mapping[str, str]
) -> Description:
    """One container of a pod.

    Args:
        pod: the pod's specification (`spec.template.spec` of a Deployment).
        name: the container's; it may be an init container that stays.
        image: what the manifest's image stands for.
        volumes: the directory of each volume of the pod, by the volume's name.
        env: the container's environment; whatever the manifest takes it from.
    """
    everything = (*pod.get("initContainers", ()), *pod["containers"])
    (container,) = (each for each in everything if each["name"] == name)
    return Description(
        image=image,
        command=container.get("command", ()),
        args=container.get("args", ()),
        env={**{each["name"]: each["value"] for each in container.get("env", ()) if "value" in each}, **env},
        mounts=[
            Mount(source=volumes[each["name"]], target=each["mountPath"], read_only=each.get("readOnly", False))
            for each in container.get("volumeMounts", ())
        ],
        security=_security(pod.get("securityContext", {}), container.get("securityContext", {})),
    )


def _security(pod: Specification, container: Specification) -> SecurityContext:
    context = {**pod, **container}
    sysctls = {each["name"]: each["value"] for each in pod.get("sysctls", ())}
    return SecurityContext(
        run_as_user=context.get("runAsUser"),
        run_as_group=context.get("runAsGroup"),
        read_only_root_filesystem=context.get("readOnlyRootFilesystem", False),
        allow_privilege_escalation=context.get("allowPrivilegeEscalation", True),
        drop=context.get("capabilities", {}).get("drop", ()),
        sysctls={name: value for name, value in sysctls.items() if name.startswith(_OWN_SYSCTLS)},
    )
