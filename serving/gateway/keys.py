"""API keys: only their SHA-256 is stored; several are valid at a time (rotation); a changed file is read again.

A line of the file: `ID sha256:HEX [until=2027-01-31]`. Make one with `python -m serving.gateway.keys new ID`.
Keys are 256 random bits, so a plain hash is enough: there is nothing to guess.
"""

import hashlib
import hmac
import logging
import re
import secrets
import sys
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

from clinical_r1.errors import UserError

_LINE = re.compile(r"(?P<id>[A-Za-z0-9][A-Za-z0-9._-]{0,63}) sha256:(?P<hash>[0-9a-f]{64})( until=(?P<until>\S+))?")
log = logging.getLogger("clinical_r1.gateway")


@dataclass(frozen=True)
class Key:
    """One accepted key."""

    id: str
    digest: bytes
    until: date | None = None


def parse_keys(text: str, name: str) -> tuple[Key, ...]:
    """Read the key file's text. Raises UserError with file and line."""
    keys: list[Key] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.fullmatch(line.strip())
        fix = "write `ID sha256:HEX [until=YYYY-MM-DD]`"
        if not match:
            raise UserError(f"{name}:{number}: is no API key line; {fix}")
        try:
            until = date.fromisoformat(match["until"]) if match["until"] else None
        except ValueError:
            raise UserError(f"{name}:{number}: `until` is no date; {fix}") from None
        keys.append(Key(match["id"], bytes.fromhex(match["hash"]), until))
    if not keys:
        raise UserError(f"{name}: holds no API key; make one with `python -m serving.gateway.keys new ID`")
    return tuple(keys)


class KeyRing:
    """The keys that are valid now."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int, int] | None = None
        self._keys: tuple[Key, ...] = ()
        self.load()

    def load(self) -> None:
        """Read the file. Raises UserError."""
        try:
            stat = self._path.stat()
            text = self._path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            raise UserError(f"{self._path}: cannot be read; mount the Secret with the API keys there") from None
        self._keys = parse_keys(text, str(self._path))
        self._stamp = (stat.st_mtime_ns, stat.st_ino, stat.st_size)

    def reload_if_changed(self) -> bool | None:
        """True: new keys are in force; False: the new file is wrong and the old keys stay; None: nothing changed."""
        try:
            stat = self._path.stat()
            if (stat.st_mtime_ns, stat.st_ino, stat.st_size) == self._stamp:
                return None
            self.load()
        except (OSError, UserError):
            log.warning("the API key file changed and cannot be used; the keys read before stay valid")
            return False
        return True

    def identify(self, presented: str) -> str | None:
        """The id of the key, or None; takes the same time whichever key it is."""
        digest = hashlib.sha256(presented.encode("utf-8", "surrogateescape")).digest()
        today = datetime.now(UTC).date()
        found: str | None = None
        for key in self._keys:
            same = hmac.compare_digest(key.digest, digest)
            if same and (key.until is None or today <= key.until):
                found = key.id
        return found


def new_key(key_id: str) -> tuple[str, str]:
    """(the key for the client, the line for the Secret)."""
    key = "cr1-" + secrets.token_urlsafe(32)
    line = f"{key_id} sha256:{hashlib.sha256(key.encode()).hexdigest()}"
    parse_keys(line, "the key id")
    return key, line


def main(argv: list[str]) -> int:
    """`python -m serving.gateway.keys new ID`: the key goes to standard error, the line to standard output."""
    if len(argv) != 2 or argv[0] != "new":
        print("usage: python -m serving.gateway.keys new ID", file=sys.stderr)
        return 2
    try:
        key, line = new_key(argv[1])
    except UserError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    print(f"give this key to the client, it is shown only now: {key}", file=sys.stderr)
    print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
