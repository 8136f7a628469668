"""Files without a name: content for a program or a library that takes a path, on no disk and in no directory."""

import os
from collections.abc import Iterator
from contextlib import contextmanager


def create(label: str, content: bytes) -> int:
    """The descriptor of a new file in memory with this content and mode 0600, which some readers insist on.

    `label` is what /proc shows for it. The caller closes it; no program inherits it unless told to.
    """
    descriptor = os.memfd_create(label)
    os.fchmod(descriptor, 0o600)
    os.write(descriptor, content)
    return descriptor


def path_of(descriptor: int) -> str:
    """The path by which this process, or one that inherits the descriptor, opens the file anew."""
    return f"/proc/self/fd/{descriptor}"


@contextmanager
def nameless_file(label: str, content: bytes) -> Iterator[int]:
    """The descriptor of such a file, closed at the end."""
    descriptor = create(label, content)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
