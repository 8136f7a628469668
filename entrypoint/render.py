"""From model to files. Pure and deterministic: equal models give equal bytes."""

from pathlib import Path
from typing import Any

import jinja2

from entrypoint.credentials import aes_encrypter, pcp_hash, prepared, text_entry
from entrypoint.model import PgpoolModel
from entrypoint.quoting import pool_passwd_field
from entrypoint.tree import Tree

_TEMPLATES = Path(__file__).parent / "templates"


def render(model: PgpoolModel) -> Tree:
    """The files of one generation: pgpool's four, and the certificate when there is one."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        undefined=jinja2.StrictUndefined,
        finalize=_never_none,
        autoescape=False,  # noqa: S701  # no HTML here; each value was encoded for its own format
        trim_blocks=True,
        keep_trailing_newline=True,
    )

    def fill(template: str, **values: object) -> bytes:
        return environment.get_template(f"{template}.j2").render(values).encode()

    encode = text_entry if model.key is None else aes_encrypter(model.key.reveal())
    passwords = [
        (pool_passwd_field(credential.role), encode(prepared(credential.password.reveal())))
        for credential in model.credentials
    ]
    own_hba = None if model.hba is None else f"{model.hba}\n".encode()
    return Tree(
        {
            "pgpool.conf": fill("pgpool.conf", sections=model.sections),
            "pool_hba.conf": own_hba or fill("pool_hba.conf", network="hostssl" if model.tls else "host"),
            "pool_passwd": fill("pool_passwd", passwords=passwords),
            "pcp.conf": fill("pcp.conf", user=model.pcp_user, hash=pcp_hash(model.pcp_password.reveal())),
            **model.tls,
        }
    )


def _never_none(value: Any) -> Any:  # noqa: ANN401  # Jinja's finalize takes and returns what an expression gives
    """StrictUndefined lets None pass and prints it as text."""
    if value is None:
        raise TypeError("a template was given None")
    return value
