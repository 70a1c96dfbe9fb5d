"""The file of API keys: a line for each, its owner's name and the key's SHA-256. The keys themselves are nowhere."""

import os
import secrets
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from geoloc.errors import UsageError
from geoloc.serving.access import ENVIRONMENT, NAME, key_hash, keys_of_environment, keys_of_file


@dataclass(frozen=True)
class KeyOptions:
    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """The file of keys, as serve's --keys has it. Without another option, tells who has a key."""
    make: str | None = None
    """Make a key for somebody of this name (letters, digits, . @ _ -), and print it: it cannot be shown again."""
    revoke: str | None = None
    """Take all keys of this name out of the file. A service that runs refuses them within a second or two."""


def change_keys(options: KeyOptions) -> int:
    """Raises UsageError."""
    if options.make is not None and options.revoke is not None:
        raise UsageError(f"--make {options.make}: goes not with --revoke; give one of them")
    lines = _lines(options.file, missing_is_empty=options.make is not None)
    if options.make is not None:
        return _make(options.file, lines, options.make)
    if options.revoke is not None:
        return _revoke(options.file, lines, options.revoke)
    for name, count in sorted(Counter(keys_of_file(str(options.file)).values()).items()):
        print(f"{name}  {count} {'key' if count == 1 else 'keys'}")
    return 0


def _make(file: Path, lines: list[str], name: str) -> int:
    if not NAME.fullmatch(name):
        raise UsageError(f"--make {name}: a name has letters, digits and . @ _ - alone, and 100 at most")
    key = secrets.token_urlsafe(32)
    _write(file, [*lines, f"{name} {key_hash(key)}"])
    print(key)
    return 0


def _revoke(file: Path, lines: list[str], name: str) -> int:
    kept = [line for line in lines if line.split(maxsplit=1)[:1] != [name]]
    gone = len(lines) - len(kept)
    if not gone:
        raise UsageError(f"--revoke {name}: has no key in {file}")
    _write(file, kept)
    print(f"{gone} {'key' if gone == 1 else 'keys'} of {name} revoked")
    if name in keys_of_environment().values():
        print(f"{name} has a key in {ENVIRONMENT} too, which stays", file=sys.stderr)
    return 0


def _lines(file: Path, missing_is_empty: bool) -> list[str]:
    if missing_is_empty and not file.exists():
        return []
    keys_of_file(str(file))  # says what is wrong with it
    return file.read_text().splitlines()


def _write(file: Path, lines: list[str]) -> None:
    """All of it or nothing, for the eyes of those who could read it before; at first its owner alone."""
    file = file.resolve()
    try:
        handle, draft = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}-")
        with os.fdopen(handle, "w") as stream:
            if file.exists():
                before = file.stat()
                os.fchmod(handle, before.st_mode & 0o777)
                os.fchown(handle, before.st_uid, before.st_gid)
            stream.writelines(f"{line}\n" for line in lines)
        os.replace(draft, file)
    except OSError as error:
        raise UsageError(f"{file}: cannot write it ({error.strerror})") from error
