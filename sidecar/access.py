"""How to reach PCP at this moment, while its password may be rotating."""

from collections.abc import Mapping
from pathlib import Path

from entrypoint.credentials import pcp_hash
from entrypoint.inputs import read_inputs
from entrypoint.model import CURRENT
from entrypoint.pcp import PcpAddress
from entrypoint.probe import pcp_password
from entrypoint.secret import Secret
from sidecar.pcp import PcpError

_REMEMBERED = 4


class Access:
    """Gives the address of PCP, with the password that the live pcp.conf has.

    pgpool reads pcp.conf at each login (src/pcp_con/pcp_worker.c): until a new password is published, and after one was
    put back, a former one is the right one, although the Secret has it no more.
    """

    def __init__(self, run_dir: Path, env: Mapping[str, str]) -> None:
        self._run_dir = run_dir
        self._env = env
        self._known: tuple[Secret, ...] = ()
        """Passwords that were the right one, the latest first."""

    def __call__(self) -> PcpAddress:
        """The address. Raises PcpError when pgpool-entrypoint has not booted."""
        try:
            boot = read_inputs(self._run_dir)
            line = (self._run_dir / CURRENT / "pcp.conf").read_text()
        except (OSError, ValueError):
            raise PcpError("pcp", "pgpool-entrypoint has not booted", away=True) from None
        mounted = pcp_password(boot, self._env, self._run_dir)
        expected = line.rpartition(":")[2].strip()
        for password in (mounted, *self._known):
            if pcp_hash(password.reveal()) == expected:
                others = [other for other in self._known if other != password]
                self._known = (password, *others)[:_REMEMBERED]
                return PcpAddress(self._run_dir, boot.pcp_port, boot.pcp_user, password)
        return PcpAddress(self._run_dir, boot.pcp_port, boot.pcp_user, mounted)
