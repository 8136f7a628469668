"""From model to files. Pure and deterministic: equal models give equal bytes.

A function for each of pgpool's files, and no template engine: every value arrives encoded for its format, and
importing an engine took a fifth of a cold start.
"""

from collections.abc import Sequence

from entrypoint.credentials import aes_encrypter, pcp_hash, text_entry
from entrypoint.model import PgpoolModel, Section
from entrypoint.quoting import pool_passwd_field
from entrypoint.saslprep import prepared
from entrypoint.tree import Tree

MARKER = "syslog_ident"
"""The parameter whose value names the generation."""


def render(model: PgpoolModel) -> Tree:
    """The files of one generation: pgpool's four, and the certificate when there is one."""
    files = {
        "pgpool.conf": _pgpool_conf(model.sections),
        "pool_hba.conf": _pool_hba(tls=bool(model.tls)) if model.hba is None else f"{model.hba}\n",
        "pool_passwd": _pool_passwd(model),
        "pcp.conf": f"{model.pcp_user}:{pcp_hash(model.pcp_password.reveal())}\n",
    }
    return _marked(Tree({name: content.encode() for name, content in files.items()} | dict(model.tls)))


def _marked(tree: Tree) -> Tree:
    """The same with a last line in pgpool.conf that tells it from every other tree.

    pgpool gives no sign of having read a configuration to its end, but `pcp_pool_status` shows parameters as read at
    that moment; and syslog_ident is of no other use here. Enough of a digest to tell generations apart, and no more:
    clients can see it.
    """
    line = f"{MARKER} = 'generation-{tree.digest[:12]}'\n"
    return Tree({**tree.files, "pgpool.conf": tree.files["pgpool.conf"] + line.encode()})


def _pgpool_conf(sections: Sequence[Section]) -> str:
    lines = ["# Written by pgpool-entrypoint; edits here are lost. See docs/settings.md."]
    for section in sections:
        lines += ["", f"# {section.title}"]
        lines += [f"{assignment.name} = {assignment.encoded}" for assignment in section.assignments]
    return "\n".join(lines) + "\n"


def _pool_hba(*, tls: bool) -> str:
    return (
        "# Written by pgpool-entrypoint; edits here are lost. See PGPOOL_HBA_FILE in docs/settings.md.\n"
        "local    all  all       scram-sha-256\n"
        f"{'hostssl' if tls else 'host':8} all  all  all  scram-sha-256\n"
    )


def _pool_passwd(model: PgpoolModel) -> str:
    encode = text_entry if model.key is None else aes_encrypter(model.key.reveal())
    return "".join(
        f"{pool_passwd_field(credential.role)}:{encode(prepared(credential.password.reveal()))}\n"
        for credential in model.credentials
    )
