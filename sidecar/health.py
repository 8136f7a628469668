"""What the sidecar answers to the pgpool container's own probes, judged as entrypoint.probe judges.

The process itself is not looked for: without a shared PID namespace its number means nothing here. When it is gone,
PCP and its socket are, too.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from entrypoint import probe
from entrypoint.errors import EntrypointError
from entrypoint.pcp import PcpAddress, PcpAnswer, run_pcp
from entrypoint.probe import Verdict
from sidecar.pcp import PcpError


def pgpool_live(run_dir: Path, address: Callable[[], PcpAddress], env: Mapping[str, str]) -> Verdict:
    """Whether PCP answers or, while it is away, pgpool's own socket accepts. Takes up to probe.LIVE_SECONDS + 1 s."""
    return _judge(
        run_dir,
        lambda: run_pcp("pcp_node_count", (), address(), env, seconds=probe.LIVE_SECONDS),
        probe.live,
    )


def pgpool_ready(run_dir: Path, address: Callable[[], PcpAddress], env: Mapping[str, str]) -> Verdict:
    """Whether a primary is served, or is being waited for. Takes up to probe.READY_SECONDS + 1 s."""
    return _judge(
        run_dir,
        lambda: run_pcp("pcp_node_info", ("-a",), address(), env, seconds=probe.READY_SECONDS),
        probe.ready,
    )


def _judge(
    run_dir: Path,
    ask: Callable[[], PcpAnswer],
    judge: Callable[[PcpAnswer, Callable[[], bool]], Verdict],
) -> Verdict:
    boot = probe.booted(run_dir)
    if isinstance(boot, Verdict):
        return boot
    accepts = partial(probe.socket_accepts, run_dir, boot.port)
    try:
        return judge(ask(), accepts)
    except (EntrypointError, PcpError) as error:
        # A tool that we cannot run, for lack of memory, say, is no reason to kill a pgpool that serves.
        return probe.by_socket(str(error), accepts)
