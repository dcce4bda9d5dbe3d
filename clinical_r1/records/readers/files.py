"""Opening what a user names: files, folders, globs, gzip, encodings; each file under a name that may be told.

File names named after patients (Synthea's `Adolfo777_Huels583.json`) must not reach rejects, cases or logs: one of many
files is the folder's name and its number in order of name; a file that the user named himself keeps its name where
every word of it is ordinary, and is else told by a hash.
"""

import bz2
import codecs
import gzip
import hashlib
import io
import lzma
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any

from clinical_r1.errors import UserError
from clinical_r1.lexicon import simplified
from clinical_r1.privacy.lexicon import english, is_word
from clinical_r1.records.readers.encodings import find_encoding
from clinical_r1.records.values import word_lists
from clinical_r1.text import HAN, has_han

SAMPLE = 1 << 18
_PACKED: dict[bytes, Any] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
}
_DATA = ("csv", "tsv", "txt", "tab", "json", "jsonl", "ndjson", "parquet", "arrow", "xlsx", "xlsm", "xls", "ods")
_ABOUT = frozenset(
    {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "metadata.json", "package.json"}
)
"""Files about a data set, in the folders that the `datasets` library writes."""


_BROKEN = "clinical_r1.broken"


def _broken(error: UnicodeError) -> tuple[str, int]:
    """Bytes that are not of the encoding become a lone surrogate, in any encoding; a text that holds one is refused."""
    assert isinstance(error, UnicodeDecodeError)
    return "\udc80", error.end


codecs.register_error(_BROKEN, _broken)


@dataclass(frozen=True)
class DataFile:
    """One file of a source."""

    path: Path
    name: str
    """What rejects and cases call it."""
    encoding: str = ""
    """Insisted on by the user; empty: found out."""


def files_of(path: str, encoding: str = "") -> list[DataFile]:
    """The file, the data files of a folder (of any depth), or those that a glob names; UserError where there are
    none."""
    place = Path(path)
    if any(char in path for char in "*?[") and not place.exists():
        base = Path(place.anchor) if place.is_absolute() else Path()
        found = [file for file in sorted(base.glob(str(place.relative_to(place.anchor)))) if file.is_file()]
        if not found:
            raise UserError(f"{path}: no file fits this pattern; give the path of cases files")
        return _many(found, _plain(place.parent.name) or "files", encoding)
    if place.is_dir():
        found = [file for file in sorted(place.rglob("*")) if _is_data(file, place)]
        if not found:
            raise UserError(f"{path}: no data file in this folder; expected *.json, *.ndjson, *.parquet, *.csv, ...")
        return _many(found, place.resolve().name, encoding)
    need_file(path)
    return [DataFile(place, safe_name(place), encoding)]


def _many(found: list[Path], name: str, encoding: str) -> list[DataFile]:
    name = safe_name(Path(name))
    return [DataFile(file, f"{name}#{number}", encoding) for number, file in enumerate(found, 1)]


def safe_name(path: Path, known: Iterable[str] = ()) -> str:
    """The file's name without its folder, or `file-` and a hash of the name where that may be a person's.

    `known` are names of persons in the file.
    """
    name = unicodedata.normalize("NFC", path.name)
    stem = name.split(".")[0]
    parts = {part.casefold() for one in known for part in re.findall(r"[^\W\d_]{2,}", one)}
    named = any(part in stem.casefold() for part in parts if len(part) > 2 or has_han(part))
    if named or not _tellable(stem):
        ending = "".join(path.suffixes[-2:]) if len(path.suffixes) < 3 else path.suffix
        return f"file-{hashlib.sha256(name.encode()).hexdigest()[:8]}{ending}"
    return name


@cache
def _han_words() -> re.Pattern[str]:
    words = sorted(word_lists()["file_words_zh"], key=len, reverse=True)
    return re.compile(f"(?:{'|'.join(map(re.escape, words))})+")


def _tellable(stem: str) -> bool:
    """Is every word of the file's name ordinary, and no number as long as a patient's? What nobody knows may be
    somebody."""
    for run in re.findall(rf"[{HAN}]+", stem.translate(simplified())):
        if not _han_words().fullmatch(run):
            return False
    if any(
        len(digits) > 5 and not re.fullmatch(r"(?:19|20)\d{4}(?:\d\d)?", digits) for digits in re.findall(r"\d+", stem)
    ):
        return False
    words = [word for part in re.findall(rf"[^\W\d_{HAN}]+", stem) for word in _pieces(part)]
    return all(len(word) == 1 or _is_ordinary(word.casefold()) for word in words)


def _is_ordinary(word: str) -> bool:
    """A listed word of file names, or a word of the dictionary that nobody is called by."""
    named = word in english().first or word in english().last
    return word in word_lists()["file_words"] or (word.isascii() and is_word(word) and not named)


def _pieces(part: str) -> list[str]:
    """`DischargeNotes` as its words, unless it is a listed word as a whole."""
    if part.casefold() in word_lists()["file_words"]:
        return [part]
    return re.findall(r"[A-Z]?[^\W\d_A-Z]+|[A-Z]+(?![^\W\d_A-Z])", part)


def _plain(name: str) -> str:
    return "" if any(char in name for char in "*?[") else name


def _is_data(file: Path, root: Path) -> bool:
    parts = file.relative_to(root).parts
    ending = [part for part in file.name.casefold().split(".")[1:] if part not in ("gz", "bz2", "xz")]
    hidden = any(part.startswith((".", "_")) for part in parts)
    return file.is_file() and not hidden and file.name not in _ABOUT and bool(ending) and ending[-1] in _DATA


def need_file(path: str) -> Path:
    """The file, or a UserError for a missing or empty one."""
    file = Path(path)
    if not file.is_file():
        raise UserError(f"{path}: no such file; give the path of a cases file")
    if file.stat().st_size == 0:
        raise UserError(f"{path}: the file is empty; expected cases")
    return file


def open_bytes(file: DataFile) -> IO[bytes]:
    """The file's bytes, unpacked where it is gzip, bzip2 or xz (by its content, not its ending)."""
    with need_file(str(file.path)).open("rb") as handle:
        magic = handle.read(6)
    for mark, opener in _PACKED.items():
        if magic.startswith(mark):
            return opener(file.path, "rb")
    return file.path.open("rb")


def head_of(file: DataFile, size: int = SAMPLE) -> bytes:
    """The first bytes, unpacked; a UserError for a broken archive."""
    try:
        with open_bytes(file) as handle:
            return handle.read(size)
    except (OSError, EOFError, lzma.LZMAError) as error:
        if isinstance(error, OSError) and error.errno:
            raise
        raise UserError(f"{file.name}: a broken archive ({type(error).__name__}); pack the file again") from None


def encoding_of(file: DataFile) -> str:
    """The file's encoding, insisted on or found out; UserError where none fits."""
    if file.encoding:
        try:
            "".encode(file.encoding)
        except LookupError:
            raise UserError(f"{file.name}: encoding {file.encoding}: unknown; such as utf-8 or gb18030") from None
        return file.encoding
    found = find_encoding(head_of(file))
    if not found:
        raise UserError(f"{file.name}: in no encoding that is known here; give `encoding`, or convert it to UTF-8")
    return found


def open_text(file: DataFile) -> io.TextIOWrapper:
    """The file as text with its line ends; bytes that are not of its encoding become lone surrogates (a row's
    reject)."""
    return io.TextIOWrapper(open_bytes(file), encoding_of(file), errors=_BROKEN, newline="")


def lines_of(file: DataFile) -> Iterator[tuple[int, str]]:
    """Lines (ended by LF or CRLF only: a note may hold other separators) with their number."""
    head = head_of(file)
    ends = "\r" if b"\r" in head and b"\n" not in head else "\n"  # what old Macs wrote
    with io.TextIOWrapper(open_bytes(file), encoding_of(file), errors=_BROKEN, newline=ends) as handle:
        for number, line in enumerate(handle, 1):
            yield number, line.rstrip("\r\n")
