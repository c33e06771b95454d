"""Records of a CSV file, read strictly: a quote that is never closed is an error that names its line.

Quotes within quotes are doubled, as RFC 4180 has it, or follow a backslash; which of both a file
means is found out, for read the wrong way hardly any file has the same number of fields throughout.
Where they quote nothing and are part of the texts, as in tables of tabs, that has to be set.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterator
from typing import IO, Literal

from pipeline.dataset.forms.base import DatasetError
from pipeline.dataset.forms.delimiters import told_delimiter
from pipeline.dataset.forms.faulty import Faults, FaultyRow, images_in_fields
from pipeline.dataset.forms.reasons import FIELDS, about

Record = list[str | None] | FaultyRow
Quotes = Literal["auto", "double", "backslash", "none"]

# More than this between two quotes is a quote that was never closed.
_RECORD_CHARACTERS = 16 << 20
# The byte order marks of UTF-16, as "surrogateescape" has them.
_UTF_16 = ("\udcff\udcfe", "\udcfe\udcff")
# What MySQL and PostgreSQL write for null.
_NULL = r"\N"


class BadCsv(DatasetError):
    """A record that can't be read; `record` is its number."""

    def __init__(self, said: str, record: int) -> None:
        super().__init__(said)
        self.record = record


class Dialect:
    """How the fields of a file are set apart and quoted.

    Parameters
    ----------
    delimiter
        One character.
    backslash
        Whether a backslash within quotes takes the special meaning of a quote or backslash after it.
    quoted
        Whether quotes are marks around fields; else they are characters like others.
    sure
        Whether that is certain. Else lines that a quote joins to one record, and that are records
        without it, are an error: tabs within a text are rare.
    """

    def __init__(
        self, delimiter: str, backslash: bool = False, quoted: bool = True, sure: bool = True
    ) -> None:
        self.delimiter = delimiter
        self.backslash = backslash
        self._mark = '"' if quoted else None
        self._sure = sure
        inside = r'(?:[^"\\]|\\.|"")*+' if backslash else r'(?:[^"]|"")*+'
        end = re.escape(delimiter)
        self._field = re.compile(
            rf'(?:"({inside})"|([^{end}\r\n]*+))({end}|\r\n|\n|\r|\Z)', re.DOTALL
        )

    def records(self, name: str, file: IO[bytes]) -> Iterator[Record]:
        """The records of a file, the header first; None is a field with nothing in it, not even quotes.

        A line without quotes that has another number of fields than the header is a `FaultyRow`.

        Raises
        ------
        BadCsv
            Text that is not UTF-8, a quote that is not closed, another number of fields where
            quotes are, or too many faulty lines.
        """
        faults = Faults(name)
        text = io.TextIOWrapper(file, "utf-8-sig", "surrogateescape", newline="")
        number, line = 0, 0
        header: list[str | None] = []
        held, first = "", 0
        try:
            for part in text:
                line += 1
                if not part.isascii():
                    _check(name, part, line, number)
                if not held:
                    first = line
                    if not part.strip("\r\n") or (not header and told_delimiter(part)):
                        continue
                    if self._mark is None or self._mark not in part:
                        fields = self._plain(part)
                    else:
                        held = part
                else:
                    held += part
                if held:
                    # A line without a quote can't close one.
                    found = self._quoted(held) if '"' in part else None
                    if found is None:
                        if len(held) > _RECORD_CHARACTERS:
                            break
                        continue
                    fields, rest = found
                    if rest:
                        break
                    if line > first and not self._sure and self._are_records(held, header):
                        raise BadCsv(
                            f"{name}, lines {first} to {line}: a quote opens in the first and closes in the"
                            " last, and each would be a row without; set quotes to double or none",
                            number,
                        )
                    held = ""
                header = header or fields
                record: Record = fields
                if len(fields) != len(header):
                    said = f"line {first}: {len(fields)} fields, where the header has {len(header)}"
                    if self._mark is not None and self._mark in part:
                        raise BadCsv(
                            f"{name}, {said} (separated by {self.delimiter!r})",
                            number,
                        )
                    record = FaultyRow(images_in_fields(header, fields), about(FIELDS, said))
                faults.count(record)
                yield record
                number += 1
        finally:
            if not file.closed:
                text.detach()
        if held:
            raise BadCsv(
                f"{name}, line {first}: a quote that opens in it is not closed as it should be;"
                " double the quotes within quotes, or set quotes to none where they are part of texts",
                number,
            )

    def _are_records(self, held: str, header: list[str | None]) -> bool:
        """Whether each line has the fields of the header if quotes are none."""
        return len(header) > 1 and all(
            len(self._plain(one)) == len(header) for one in held.splitlines()
        )

    def _plain(self, line: str) -> list[str | None]:
        fields = line.rstrip("\r\n").split(self.delimiter)
        return [None if field in ("", _NULL) else field for field in fields]

    def _quoted(self, record: str) -> tuple[list[str | None], str] | None:
        """The fields of a record and what is wrong after them; None if more lines belong to it."""
        fields: list[str | None] = []
        at = 0
        while True:
            match = self._field.match(record, at)
            if match is None or (match[1] is None and match[2].startswith('"')):
                return ([], record[at:]) if self._closed(record, at) else None
            if match[1] is not None:
                fields.append(self._unescaped(match[1]))
            else:
                fields.append(None if match[2] in ("", _NULL) else match[2])
            at = match.end()
            if match[3] != self.delimiter:
                return fields, record[at:]

    def _closed(self, record: str, at: int) -> bool:
        """Whether the quotes that open at a place close, so that it is what follows that is wrong."""
        inside = r'"(?:[^"\\]|\\.|"")*+"' if self.backslash else r'"(?:[^"]|"")*+"'
        return re.compile(inside, re.DOTALL).match(record, at) is not None

    def _unescaped(self, text: str) -> str:
        if self.backslash and "\\" in text:
            return re.sub(r'\\(["\\])|""', lambda found: found[1] or '"', text)
        return text.replace('""', '"')


def find_dialect(name: str, file: IO[bytes], delimiter: str, quotes: Quotes) -> Dialect:
    """How the quotes of a file are meant; reads it where a backslash stands before a quote.

    Raises
    ------
    BadCsv
        It can be read neither way; the error of the way that goes further.
    DatasetError
        It can be read both ways, to different ends.
    """
    if quotes != "auto":
        return Dialect(delimiter, quotes == "backslash", quotes != "none")
    sure = delimiter != "\t"
    double, backslash = Dialect(delimiter, sure=sure), Dialect(delimiter, True, sure=sure)
    if not _has(file, b'\\"'):
        return double
    digests: list[bytes] = []
    wrong: dict[Dialect, BadCsv] = {}
    for dialect in (double, backslash):
        state = hashlib.blake2b()
        file.seek(0)
        try:
            for fields in dialect.records(name, file):
                state.update(repr(fields).encode())
        except BadCsv as error:
            wrong[dialect] = error
        digests.append(state.digest())
    if len(wrong) == 2:
        raise max(wrong.values(), key=lambda error: error.record)
    if not wrong and digests[0] != digests[1]:
        raise DatasetError(
            f"{name}: a backslash before a quote may be one or take the quote's meaning;"
            " set dataset.quotes to double or backslash"
        )
    return backslash if double in wrong else double


def _has(file: IO[bytes], wanted: bytes) -> bool:
    before = b""
    while block := file.read(1 << 20):
        if wanted in before + block:
            return True
        before = block[-len(wanted) + 1 :]
    return False


def _check(name: str, part: str, line: int, record: int) -> None:
    try:
        part.encode()
    except UnicodeEncodeError:
        said = "it is UTF-16; write it as UTF-8" if part[:2] in _UTF_16 else "the text is not UTF-8"
        raise BadCsv(f"{name}, line {line}: {said}", record) from None
