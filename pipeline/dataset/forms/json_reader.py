"""JSON files read piece by piece, however large: the items of arrays, the values of objects."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from typing import IO, Any

from pipeline.dataset.forms.base import DatasetError
from pipeline.dataset.forms.strict_json import Lossy, decode_at

# Byte order marks of UTF-16.
UTF_16 = (b"\xff\xfe", b"\xfe\xff")
IS_UTF_16 = "it is UTF-16; write it as UTF-8"

_READ = 1 << 20
# Characters of one item; a file that has more in one is not read by items.
_LONGEST = 1 << 28
_SPACE = " \t\r\n"


class JsonReader:
    """Goes through one JSON text from its beginning.

    Parameters
    ----------
    file
        UTF-8, with or without a byte order mark.
    name
        Of the file, for errors.
    """

    def __init__(self, file: IO[bytes], name: str) -> None:
        self.name = name
        self._file = file
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._text = ""
        self._place = 0
        self._ended = False
        self._bytes = 0
        # What of it is gone from `_text`.
        self._characters = 0
        self._lines = 0

    def peek(self) -> str:
        """The next character that is no white space; empty at the end."""
        while True:
            while self._place < len(self._text):
                if self._text[self._place] not in _SPACE:
                    return self._text[self._place]
                self._place += 1
            if not self._more():
                return ""

    def array(self) -> Iterator[Any]:
        """The items of the array that comes next.

        Raises
        ------
        DatasetError
            The file is not JSON, is cut, or is not UTF-8.
        """
        self._take("[")
        while self.peek() != "]":
            yield self.value()
            if self.peek() != "]":
                self._take(",")
        self._place += 1

    def entries(self) -> Iterator[str]:
        """The keys of the object that comes next, each to be followed by reading its value."""
        self._take("{")
        while self.peek() != "}":
            key = self.value()
            self._take(":")
            yield key
            if self.peek() != "}":
                self._take(",")
        self._place += 1

    def value(self) -> Any:
        """The value that comes next, whole."""
        self.peek()
        while True:
            try:
                value, end = decode_at(self._text, self._place)
            except Lossy as error:
                raise DatasetError(f"{self.name}: {error}") from None
            except RecursionError:
                raise self._error("nested too deeply") from None
            except ValueError as error:
                if len(self._text) - self._place > _LONGEST or not self._more():
                    wrong = error if isinstance(error, json.JSONDecodeError) else None
                    raise self._error(str(error), wrong) from None
                continue
            # What a number ends with is known only from what follows it.
            if end == len(self._text) and self._more():
                continue
            self._place = end
            return value

    def end(self) -> None:
        """Make sure that nothing follows what was read.

        Raises
        ------
        DatasetError
        """
        if self.peek():
            raise DatasetError(
                f"{self.name}: more follows the end of its JSON; keep one array, or an object a line"
            )

    def _take(self, wanted: str) -> None:
        if self.peek() != wanted:
            raise self._error(f"{wanted!r} is missing")
        self._place += 1

    def _more(self) -> bool:
        if self._ended:
            return False
        # Twice as much each time, so that one large value is not begun again too often.
        data = self._file.read(max(_READ, len(self._text) - self._place))
        self._ended = not data
        self._bytes += len(data)
        try:
            new = self._decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            # What was held back of the bytes before comes with it.
            place = self._bytes - len(error.object) + error.start
            if not place and error.object.startswith(UTF_16):
                raise DatasetError(f"{self.name}: {IS_UTF_16}") from None
            raise DatasetError(
                f"{self.name}: the text is not UTF-8 at byte {place:,} ({error.reason})"
            ) from None
        if not data:
            return False
        self._characters += self._place
        self._lines += self._text.count("\n", 0, self._place)
        self._text = self._text[self._place :] + new
        self._place = 0
        return True

    def _error(self, said: str, wrong: json.JSONDecodeError | None = None) -> DatasetError:
        place = self._place if wrong is None else wrong.pos
        line = self._lines + self._text.count("\n", 0, place) + 1
        where = f"line {line:,}, character {self._characters + place + 1:,} of the file"
        said = said if wrong is None else wrong.msg
        return DatasetError(f"{self.name} is not JSON, or is cut ({where}: {said})")
