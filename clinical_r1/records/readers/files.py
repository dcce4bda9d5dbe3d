"""Opening what a user names: files, folders, globs, archives, encodings; each file under a name that may be told.

File names named after patients (Synthea's `Adolfo777_Huels583.json`) must not reach rejects, cases or logs: one of many
files is the folder's name and its number in order of name; a file that the user named himself keeps its name where
every word of it is ordinary, and is else told by a hash.

`charset-normalizer` reads short Chinese files as Korean more often than not (docs/log.md), so the few encodings that
records in English and Chinese come in are told apart by what they look like; whoever knows better says `encoding`.
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
from pathlib import Path
from typing import IO, Any

from clinical_r1.errors import UserError
from clinical_r1.lexicon import simplified
from clinical_r1.privacy.lexicon import english, is_word
from clinical_r1.records.values import word_lists
from clinical_r1.text import HAN, has_han

_SAMPLE = 1 << 18
_PACKED: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
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

    @property
    def ending(self) -> str:
        """csv of `a.csv.gz`; "" for none."""
        parts = [part for part in self.path.name.casefold().split(".")[1:] if part not in ("gz", "bz2", "xz")]
        return parts[-1] if parts else ""


def files_of(path: str, encoding: str = "") -> list[DataFile]:
    """The file, a folder's data files (of any depth), or those that a glob names; UserError where there are none."""
    place = Path(path)
    if any(char in path for char in "*?[") and not place.exists():
        base = Path(place.anchor) if place.is_absolute() else Path()
        found = [file for file in sorted(base.glob(str(place.relative_to(place.anchor)))) if file.is_file()]
        if not found:
            raise UserError(f"{path}: no file fits this pattern; give the path of cases files")
        folder = place.parent.name
        name = "files" if not folder or any(char in folder for char in "*?[") else folder
    elif place.is_dir():
        found = [file for file in sorted(place.rglob("*")) if _is_data(file, place)]
        if not found:
            raise UserError(f"{path}: no data file in this folder; expected *.json, *.ndjson, *.parquet, *.csv, ...")
        name = place.resolve().name
    else:
        _need_file(path)
        return [DataFile(place, safe_name(place), encoding)]
    name = safe_name(Path(name))
    return [DataFile(file, f"{name}#{number}", encoding) for number, file in enumerate(found, 1)]


def _is_data(file: Path, root: Path) -> bool:
    hidden = any(part.startswith((".", "_")) for part in file.relative_to(root).parts)
    return file.is_file() and not hidden and file.name not in _ABOUT and DataFile(file, "").ending in _DATA


def _need_file(path: str) -> None:
    if not Path(path).is_file():
        raise UserError(f"{path}: no such file; give the path of a cases file")
    if Path(path).stat().st_size == 0:
        raise UserError(f"{path}: the file is empty; expected cases")


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


def _tellable(stem: str) -> bool:
    """Is every word of the name ordinary, and no number as long as a patient's? What nobody knows may be somebody."""
    listed, chinese = word_lists()["file_words"], "|".join(map(re.escape, word_lists()["file_words_zh"]))
    for run in re.findall(rf"[{HAN}]+", stem.translate(simplified())):
        if not re.fullmatch(f"(?:{chinese})+", run):
            return False
    for digits in re.findall(r"\d+", stem):
        if len(digits) > 5 and not re.fullmatch(r"(?:19|20)\d{4}(?:\d\d)?", digits):
            return False

    def ordinary(word: str) -> bool:  # a listed word, or one of the dictionary that nobody is called by
        named = word in english().first or word in english().last
        return word in listed or (word.isascii() and is_word(word) and not named)

    parts = [part for part in re.findall(rf"[^\W\d_{HAN}]+", stem) if part.casefold() not in listed]
    words = [word for part in parts for word in re.findall(r"[A-Z]?[^\W\d_A-Z]+|[A-Z]+(?![^\W\d_A-Z])", part)]
    return all(len(word) == 1 or ordinary(word.casefold()) for word in words)


def open_bytes(file: DataFile) -> IO[bytes]:
    """The file's bytes, unpacked where it is gzip, bzip2 or xz (by its content, not its ending)."""
    _need_file(str(file.path))
    with file.path.open("rb") as handle:
        magic = handle.read(6)
    opener = next((opener for mark, opener in _PACKED.items() if magic.startswith(mark)), open)
    return opener(file.path, "rb")


def head_of(file: DataFile, size: int = _SAMPLE) -> bytes:
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
    try:
        "".encode(file.encoding or "utf-8")
    except LookupError:
        raise UserError(f"{file.name}: encoding {file.encoding}: unknown; such as utf-8 or gb18030") from None
    found = file.encoding or find_encoding(head_of(file))
    if not found:
        raise UserError(f"{file.name}: in no encoding that is known here; give `encoding`, or convert it to UTF-8")
    return found


def open_text(file: DataFile, newline: str = "") -> io.TextIOWrapper:
    """The file as text with its line ends; bytes not of its encoding become lone surrogates (a row's reject)."""
    return io.TextIOWrapper(open_bytes(file), encoding_of(file), errors=_BROKEN, newline=newline)


def lines_of(file: DataFile) -> Iterator[tuple[int, str]]:
    """Lines (ended by LF or CRLF only: a note may hold other separators) with their number."""
    head = head_of(file)
    with open_text(file, "\r" if b"\r" in head and b"\n" not in head else "\n") as handle:  # \r: what old Macs wrote
        for number, line in enumerate(handle, 1):
            yield number, line.rstrip("\r\n")


_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_HIGH_RUN = re.compile(rb"[\x80-\xff]+")
_MULTIBYTE = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")
_MARKS_OF_TEXT = re.compile(r"[\u2000-\u206f\u2100-\u27bf\u3000-\u303f\uff00-\uff65\u00a0-\u00bf×÷]")
_ALIEN = re.compile(r"(?<=[^\W\d_])[³¹²¿¶¼¾£¥ªºŸ†‡‰Š]+(?=[^\W\d_])|[ðþýÐÞÝ]")
"""What Central European, Turkish and Macintosh letters look like in Windows-1252."""
_LEAST = 0.45


def find_encoding(head: bytes) -> str:
    """The encoding of a file that begins with `head`; "" where none fits."""
    if marked := next((name for mark, name in _MARKS if head.startswith(mark)), ""):
        return marked
    # UTF-16 without a mark: every other byte of Latin text and line ends is a NUL.
    even, odd, half = head[0::2].count(0), head[1::2].count(0), max(1, len(head) // 2)
    if max(even, odd) > 0.3 * half and min(even, odd) < 0.05 * half:
        return "utf-16-le" if odd > even else "utf-16-be"
    if b"\x1b$" in head:
        return ""  # ISO 2022: Japanese and Korean mail
    if head.isascii():
        return "utf-8"
    try:  # the sample may end inside of a character
        text = codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        broken = sum(len(run) for run in _HIGH_RUN.findall(_MULTIBYTE.sub(b"", head)))
        if len(_MULTIBYTE.findall(head)) > 8 * broken:
            return "utf-8"  # with a few broken rows, which are told one by one
        scores = {name: _score(head, name) for name in ("gb18030", "big5", "cp1252")}
        best = max(scores, key=lambda name: scores[name])
        return best if scores[best] > _LEAST else ""
    # A few Chinese characters in GB18030 may form UTF-8's two-byte letters (头 is ͷ), of scripts that nobody mixes.
    special = [char for char in text if ord(char) > 127]
    rare = 0 < len(special) < 50 and all("\u0100" <= char < "\u0800" for char in special)
    return "gb18030" if rare and _score(head, "gb18030") > 0.6 else "utf-8"


def _score(head: bytes, name: str) -> float:
    """How much the bytes look like text of this encoding; -1 for what cannot be it."""
    try:
        text = codecs.getincrementaldecoder(name)().decode(head)
    except UnicodeDecodeError:
        return -1.0
    special = [char for char in text if ord(char) > 127]
    if name == "cp1252":
        # Accented letters stand alone between plain ones; Chinese fills whole runs of bytes.
        runs = _HIGH_RUN.findall(head)
        alone = sum(len(run) == 1 for run in runs) / max(1, len(runs))
        letters = sum(char.isalpha() or char in "°µ±²³–—‘’“”…×·½¼" for char in special)
        return 0.9 * alone * (letters - 2 * sum(map(len, _ALIEN.findall(text)))) / max(1, len(special))
    plain = _MARKS_OF_TEXT.sub("", "".join(special)).translate(simplified())
    usual = frozenset(word_lists()["common_zh"])
    common = sum(char in usual for char in plain)
    return common / len(plain) if len(plain) > 3 or common == len(plain) > 0 else -1
