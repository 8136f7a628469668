"""What pgpool's own parser makes of a pgpool.conf."""

import re
import subprocess
import tempfile
from pathlib import Path

# With any verb but "stop" and "reload", pgpool reads its configuration, prints its usage and exits with 1. A
# configuration it cannot read ends it before that, with 3.
VERB = "configcheck"
PARSED, REJECTED = 1, 3

# pgpool prints what it reads at this level only, which the file itself has to ask for (-d comes too late and
# is not enough) and may take back. So this line goes between any two. No token of pgpool's extends over a
# line end: the lines around still mean what they meant. The odd spelling tells these settings from the file's
# own.
LOUD_LEVEL, LOUD_DESTINATION = b"dEbUg2", b"stderr,stderr"
LOUD = b"log_min_messages = '%s' log_destination = '%s'\n" % (LOUD_LEVEL, LOUD_DESTINATION)
OURS = {(b"log_min_messages", LOUD_LEVEL), (b"log_destination", LOUD_DESTINATION)}

SETTING = re.compile(
    rb'DEBUG:  (?:\w{5}: )?set_config_option "(?P<name>[^"]*)" = "(?P<value>\n\t|[^\n]*)"$', re.MULTILINE
)
UNRECOGNISED = re.compile(rb'INFO:  (?:\w{5}: )?unrecognized configuration parameter "([^"]*)"$', re.MULTILINE)


def accepts(pgpool_bin: Path, conf: Path) -> tuple[bool, str]:
    """Whether pgpool can read this file, and what it says about it."""
    code, log = _parse(pgpool_bin, conf)
    messages, _, _usage = log.partition(b"pgpool-II version")
    return code == PARSED, messages.decode("utf-8", "surrogateescape")


def parsed_settings(pgpool_bin: Path, conf: Path) -> dict[str, str]:
    """Every setting with the text pgpool took for its value, the last one where it is given twice.

    Bytes that are not UTF-8 come back as surrogate escapes. The value is the text before pgpool converts or
    shortens it for the parameter's type.
    """
    found = {}
    for match in SETTING.finditer(_loud_log(pgpool_bin, conf)):
        if match.groups() not in OURS:
            name, value = (part.decode("utf-8", "surrogateescape") for part in match.groups())
            found[name] = "\n" if value == "\n\t" else value  # pgpool's log indents after every line end
    return found


def unrecognised_settings(pgpool_bin: Path, conf: Path) -> set[str]:
    """The names in this file which this pgpool does not know (and silently accepts)."""
    return {name.decode("utf-8", "surrogateescape") for name in UNRECOGNISED.findall(_loud_log(pgpool_bin, conf))}


def _loud_log(pgpool_bin: Path, conf: Path) -> bytes:
    accepted, _ = accepts(pgpool_bin, conf)
    with tempfile.TemporaryDirectory(prefix="oracle-") as directory:
        copy = Path(directory) / conf.name
        copy.touch(mode=0o600)
        copy.write_bytes(LOUD + b"".join(_interleaved(conf.read_bytes())))
        code, log = _parse(pgpool_bin, copy)
    messages = log.decode(errors="replace")
    assert accepted, f"pgpool does not accept {conf}. More loudly, it ends with {code}:\n{messages}"
    assert code == PARSED, messages
    return log


def _interleaved(content: bytes) -> list[bytes]:
    lines = content.split(b"\n")
    # What stands after the last line end stays last: pgpool treats it differently.
    return [line + b"\n" + LOUD for line in lines[:-1]] + lines[-1:]


def _parse(pgpool_bin: Path, conf: Path) -> tuple[int, bytes]:
    if not conf.is_file():  # pgpool would take its defaults, and say yes
        raise FileNotFoundError(conf)
    result = subprocess.run(
        [pgpool_bin / "pgpool", "-f", conf.absolute(), VERB],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={"PATH": "/usr/bin:/bin"},
        timeout=30,
        check=False,
    )
    # Killed, or a code of an other meaning: no statement about the file.
    assert result.returncode in {PARSED, REJECTED}, (
        result.returncode,
        result.stdout.decode(errors="replace"),
    )
    return result.returncode, result.stdout
