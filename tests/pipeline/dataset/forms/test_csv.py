"""CSV is read as it was meant, or the line is named where it can't be."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.dataset.dataset import DatasetError
from tests.pipeline.dataset.forms.small_files import PNG, open_dataset, read


def texts(path: Path, content: str, **settings: str) -> list[list[str]]:
    path.write_text(content, encoding="utf-8", newline="")
    return [row["text"] for row in read(open_dataset(path, **settings))]


def rows(open_at: int) -> str:
    lines = ["id,image,text", *(f"r{i},{i}.png,caption {i}" for i in range(40))]
    lines[open_at] = lines[open_at].replace("caption", '"caption')
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("form", ["csv", "imagefolder"])
@pytest.mark.parametrize("more", ["", 'x,y,"a late quote"\n', 'x,y,"one ""within"" it"\n'])
def test_a_quote_that_is_never_closed_is_named_by_its_line(
    tmp_path: Path, form: str, more: str
) -> None:
    name = "a.csv" if form == "csv" else "metadata.csv"
    content = rows(21).replace("image", "file_name") + more
    (tmp_path / name).write_text(content)
    (tmp_path / "1.png").write_bytes(PNG)
    with pytest.raises(DatasetError, match=rf"{name}, line 22: a quote that opens"):
        read(open_dataset(tmp_path))


def test_a_backslash_before_a_quote_is_found_to_mean_one(tmp_path: Path) -> None:
    content = 'id,text\n1,"so called \\"a, b\\" sign"\n2,"\\\\ and \\n"\n3,"say ""c"""\n4,d\\e\n'
    found = texts(tmp_path / "a.csv", content)
    assert found == [['so called "a, b" sign'], ["\\ and \\n"], ['say "c"'], ["d\\e"]]


def test_a_backslash_at_the_end_of_a_field_is_found_to_be_one(tmp_path: Path) -> None:
    content = 'id,text\n1,"C:\\dir\\"\n2,"b"\n3,"c ""d"" \\e"\n'
    assert texts(tmp_path / "a.csv", content) == [["C:\\dir\\"], ["b"], ['c "d" \\e']]


def test_the_meaning_of_a_backslash_can_be_set(tmp_path: Path) -> None:
    content = 'id,text\n1,"a \\\\"\n'
    with pytest.raises(DatasetError, match="set dataset.quotes to double or backslash"):
        texts(tmp_path / "a.csv", content)
    assert texts(tmp_path / "a.csv", content, quotes="double") == [["a \\\\"]]
    assert texts(tmp_path / "a.csv", content, quotes="backslash") == [["a \\"]]


@pytest.mark.parametrize("line", ["1", "1,a,b"])
def test_a_line_of_other_fields_is_a_row_that_says_so_and_many_are_another_table(
    tmp_path: Path, line: str
) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"id,text\n0,a\n{line}\n2,b\n")
    first, faulty, last = read(open_dataset(path))
    assert [row["text"] for row in (first, faulty, last)] == [["a"], [], ["b"]]
    fields = line.count(",") + 1
    said = f"a row with another number of fields 'line 3: {fields} fields, where the header has 2'"
    assert faulty["text_reason"] == faulty["image_reason"] == said
    path.write_text("id,text\n" + f"0,a\n{line}\n" * 40)
    with pytest.raises(DatasetError, match=r"a\.csv, row .* another number of fields .*; 16 of"):
        read(open_dataset(path))


@pytest.mark.parametrize("line", ['"1"', '1,"a"b', '1,"a" ,'])
def test_a_record_that_is_not_like_the_header_is_named_by_its_line(
    tmp_path: Path, line: str
) -> None:
    with pytest.raises(DatasetError, match=r"a\.csv, line 4: "):
        texts(tmp_path / "a.csv", f'id,text\n0,"two\nlines"\n{line}\n2,b\n')


def test_fields_keep_their_quotes_spaces_nuls_and_line_breaks(tmp_path: Path) -> None:
    content = 'id,text\n1,5" wide\n2," a "\n3,"a\0b"\n4,"a\r\nb\rc"\n5,\u2028x\n6,nan\n7,NULL\n'
    found = texts(tmp_path / "a.csv", content)
    assert found == [['5" wide'], [" a "], ["a\0b"], ["a\r\nb\rc"], ["\u2028x"], ["nan"], ["NULL"]]


def test_nothing_at_all_is_null_and_empty_quotes_are_an_empty_string(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('id,text,note\n1,a,\n2,b,""\n3,c,\\N\n')
    found = read(open_dataset(tmp_path / "a.csv"))
    assert [row["extra"]["note"] for row in found] == [None, "", None]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_all_line_ends_are_known_and_blank_lines_are_no_rows(tmp_path: Path, end: str) -> None:
    content = end.join(["id,text", "1,a", "", '2,"b"', ""])
    assert texts(tmp_path / "a.csv", content) == [["a"], ["b"]]


def test_latin_1_is_named_by_its_line(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"id,text\n1,a\n2,caf\xe9\n")
    with pytest.raises(DatasetError, match=r"a\.csv, line 3: the text is not UTF-8"):
        read(open_dataset(tmp_path / "a.csv"))


@pytest.mark.parametrize("mark", [";", "|", "\t"])
def test_blank_lines_before_the_header_say_nothing_of_the_separator(
    tmp_path: Path, mark: str
) -> None:
    content = "\n\r\nid;image;text\n1;1.png;a, b\n2;2.png;c\n".replace(";", mark)
    assert texts(tmp_path / "a.csv", content) == [["a, b"], ["c"]]


@pytest.mark.parametrize("first", ["001.jpg,a cat", "a cat\thttps://example.com/1.jpg"])
def test_a_table_without_a_header_loses_no_row_to_it(tmp_path: Path, first: str) -> None:
    (tmp_path / "a.csv").write_text(f"{first}\n002.jpg,a dog\n")
    with pytest.raises(DatasetError, match=r"a\.csv has no header line: its first line holds"):
        open_dataset(tmp_path / "a.csv")


@pytest.mark.parametrize("mark", [";", "|", ",", "\t"])
@pytest.mark.parametrize("name", ["a.csv", "metadata.csv"])
def test_the_line_that_tells_a_spreadsheet_the_separator_is_no_header(
    tmp_path: Path, mark: str, name: str
) -> None:
    (tmp_path / "1.png").write_bytes(PNG)
    table = f"sep={mark}\r\nid,file_name,text\r\n1,1.png,a hat\r\n".replace(",", mark)
    (tmp_path / name).write_text(table, newline="")
    (row,) = read(open_dataset(tmp_path))
    assert (row["id"], row["text"]) == ("1", ["a hat"])


def test_columns_without_a_name_pass_through_by_their_place(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(",image,text,,\n7,1.png,a hat,x,\n")
    (row,) = read(open_dataset(tmp_path))
    assert row["extra"] == {"unnamed_1": "7", "unnamed_4": "x", "unnamed_5": None}


def test_a_column_without_a_name_is_called_as_no_other_is(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("unnamed_4,image,text,\n7,1.png,a hat,x\n")
    (row,) = read(open_dataset(tmp_path))
    assert row["extra"] == {"unnamed_4": "7", "unnamed_4_": "x"}


def test_quotes_that_are_part_of_texts_can_be_set(tmp_path: Path) -> None:
    table = 'id\timage\ttext\n1\t1.png\t"quoted" hat\n2\t2.png\ta 12" ruler\n3\t3.png\t"a\n'
    path = tmp_path / "a.tsv"
    with pytest.raises(DatasetError, match=r"line 2: .* or set quotes to none"):
        texts(path, table)
    assert texts(path, table, quotes="none") == [['"quoted" hat'], ['a 12" ruler'], ['"a']]


def test_rows_of_tabs_that_quotes_may_join_are_not_joined_in_silence(tmp_path: Path) -> None:
    table = 'id\timage\ttext\n1\t1.png\t"a hat\n2\t2.png\ta cap"\n'
    path = tmp_path / "a.tsv"
    with pytest.raises(DatasetError, match=r"lines 2 to 3: .* set quotes to double or none"):
        texts(path, table)
    assert texts(path, table, quotes="none") == [['"a hat'], ['a cap"']]
    assert texts(path, table, quotes="double") == [["a hat\n2\t2.png\ta cap"]]
    assert texts(path, table.replace("2.png\t", "2.png ")) == [["a hat\n2\t2.png a cap"]]


def test_a_quote_that_is_a_character_makes_no_line_more_than_a_faulty_row(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('id,text\n0,a\n1,a 12" ruler,b\n2,b\n')
    first, faulty, last = read(open_dataset(path, quotes="none"))
    assert [row["text"] for row in (first, faulty, last)] == [["a"], [], ["b"]]
    assert "line 3: 3 fields, where the header has 2" in faulty["text_reason"]


def test_lines_of_one_column_of_tabs_may_be_one_text(tmp_path: Path) -> None:
    assert texts(tmp_path / "a.tsv", 'text\n"a\nb"\nc\n') == [["a\nb"], ["c"]]
