# ruff: noqa: E501  (a row of a table reads best as one line)
"""Files as they come: encodings, delimiters, quotes, packed, sheets, shards, JSON of every shape, names of files."""

import bz2
import gzip
import json
import zipfile
from pathlib import Path

import pytest

from clinical_r1.errors import UserError
from clinical_r1.records.config import Source, parse_map
from clinical_r1.records.readers.files import files_of, find_encoding, safe_name
from clinical_r1.records.readers.mapping import columns_of
from clinical_r1.records.readers.registry import check_source, read_source, resolved_format
from clinical_r1.records.row import Reject, Row

MAP = {"question": "note", "reference": "dx"}


def entries(path, columns=MAP, **more):
    return list(read_source(Source(path=str(path), map=columns, **more)))


def notes(path, columns=MAP, **more):
    found = entries(path, columns, **more)
    assert all(isinstance(entry, Row) for entry in found), found
    return [entry.fields["question"] for entry in found]


CHINESE = "note,dx\n咳嗽发热三天,肺炎\n右下腹痛伴恶心，无腹泻,阑尾炎\n"
FRENCH = "note,dx\nFièvre élevée dès mardi,Angine\nDouleur à l'épaule,Fracture\n"
ENCODINGS = [
    (CHINESE, "utf-8"), (CHINESE, "utf-8-sig"), (CHINESE, "gb18030"), (CHINESE, "gbk"), (CHINESE, "utf-16"),
    (CHINESE, "utf-16-le"), (FRENCH, "utf-8"), (FRENCH, "cp1252"), (FRENCH, "utf-16"), (FRENCH, "utf-16-be"),
    ("note,dx\n头痛,病\n", "gb18030"), ("note,dx\n發燒三天，頭痛，無嘔吐,腦膜炎\n", "big5"), ("note,dx\ncough 38.5 °C ± 0.2,Flu\n", "cp1252"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "encoding"), ENCODINGS)
def test_encodings_are_found(tmp_path, text, encoding):
    (tmp_path / "a.csv").write_bytes(text.encode(encoding))
    assert notes(tmp_path / "a.csv") == [line.rsplit(",", 1)[0] for line in text.splitlines()[1:]]
    (tmp_path / "b.csv").write_bytes(text.encode(encoding))
    assert notes(tmp_path / "b.csv", encoding=encoding) == notes(tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("text", "encoding"),
    [("患者は三日前から発熱と咳嗽があり受診した。", "cp932"), ("急性虫垂炎と慢性腎不全です", "euc_jp"), ("頭痛がする", "iso2022_jp"),
     ("환자는 3일 전부터 발열과 기침이 있었다", "euc_kr"), ("Пациент жалуется на боль", "cp1251"), ("ból w klatce piersiowej i duszność", "cp1250"),
     ("ผู้ป่วยมีอาการเจ็บหน้าอก", "cp874"), ("Hasta göğüs ağrısından şikayetçi", "cp1254"), ("Müdigkeit über Wochen und Anämie", "mac_roman")],
)  # fmt: skip
def test_an_encoding_that_is_not_read_is_not_taken_for_another(tmp_path, text, encoding):
    (tmp_path / "a.csv").write_bytes(f"note,dx\n{text},x\n".encode(encoding))
    with pytest.raises(UserError, match=r"a.csv: in no encoding that is known here; give `encoding`"):
        entries(tmp_path / "a.csv")
    assert notes(tmp_path / "a.csv", encoding=encoding)[0].startswith(text[:4])


def test_an_encoding_that_nobody_knows_is_refused(tmp_path):
    (tmp_path / "a.csv").write_text(FRENCH)
    with pytest.raises(UserError, match="encoding klingon: unknown"):
        entries(tmp_path / "a.csv", encoding="klingon")


def test_one_broken_row_of_a_long_utf8_file_is_that_rows_reject(tmp_path):
    rows = [f"发热{i}天伴咳嗽,肺炎".encode() for i in range(60)]
    rows[7] = b"\xff\xfe broken,x"
    (tmp_path / "a.csv").write_bytes(b"note,dx\n" + b"\n".join(rows))
    found = entries(tmp_path / "a.csv")
    assert [e.line for e in found if isinstance(e, Reject)] == [9] and len(found) == 60
    assert find_encoding(b"".join(rows)) == "utf-8"


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
@pytest.mark.parametrize("head", ["", "sep={}\n", "\ufeff", "\n"])
def test_delimiters_and_what_stands_before_the_header(tmp_path, mark, head):
    text = head.format(mark) + f"pid{mark}note{mark}dx\n1{mark}cough and fever{mark}Pneumonia\n"
    (tmp_path / "a.csv").write_text(text, encoding="utf-8")
    assert notes(tmp_path / "a.csv") == ["cough and fever"]


@pytest.mark.parametrize(
    ("body", "good", "bad"),
    [
        ('"cough,Flu\nfever,Flu\nrash,Measles\n', ["fever", "rash"], [2]),
        ('"cough,Flu\nfever,Flu\n"rash, red",Measles\n', ["fever", "rash, red"], [2]),
        ("5'6\" tall,Flu\n", ["5'6\" tall"], []),
        ('"5\'6" tall, thin",Flu\n', ["5'6\" tall, thin"], []),
        ('"says ""ouch""",Flu\n', ['says "ouch"'], []),
        ('"two\nlines",Flu\nfever,Flu\n', ["two\nlines", "fever"], []),
        ('"two\r\nlines",Flu\r\n', ["two\nlines"], []),
        ("cough,Flu,,\nfever,Flu\n", ["cough", "fever"], []),
        ("cough,Flu,extra\nfever,Flu\n", ["fever"], [2]),
        ("cough\nfever,Flu\n", ["fever"], [2]),
        ("co\x00ugh,Flu\n", ["cough"], []),
        ("\n\ncough,Flu\n,\n", ["cough"], []),
        ("no\u2028break\x0bhere\x85,Flu\n", ["no\u2028breakhere\x85"], []),
    ],
)
def test_quotes_breaks_and_counts_lose_no_other_row(tmp_path, body, good, bad):
    (tmp_path / "a.csv").write_bytes(f"note,dx\n{body}".encode())
    found = entries(tmp_path / "a.csv")
    assert [" ".join(e.fields["question"].split(" ")) for e in found if isinstance(e, Row)] == [g.strip() for g in good]
    assert [e.line for e in found if isinstance(e, Reject)] == bad


def test_a_cell_of_any_size_is_read(tmp_path):
    (tmp_path / "a.csv").write_text(f"note,dx\n{'x' * 400_000},Flu\n")
    assert len(notes(tmp_path / "a.csv")[0]) == 400_000


@pytest.mark.parametrize("header", ["note,dx,note", "dx,note, note "])
def test_a_doubled_header_is_refused(tmp_path, header):
    (tmp_path / "a.csv").write_text(f"{header}\na,b,c\n")
    with pytest.raises(UserError, match='the header names the column "note" twice'):
        entries(tmp_path / "a.csv")


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress])
@pytest.mark.parametrize("name", ["a.csv.gz", "a.csv"])
def test_packed_files_are_known_by_their_bytes(tmp_path, pack, name):
    (tmp_path / name).write_bytes(pack(CHINESE.encode("gb18030")))
    assert notes(tmp_path / name) == ["咳嗽发热三天", "右下腹痛伴恶心，无腹泻"]


def sheet(path, rows):
    """The smallest workbook: one sheet of inline strings."""
    cells = "".join(
        f'<row r="{r}">' + "".join(f'<c r="{chr(65 + c)}{r}" t="inlineStr"><is><t>{v}</t></is></c>' if isinstance(v, str)
        else f'<c r="{chr(65 + c)}{r}"><v>{v}</v></c>' for c, v in enumerate(row)) + "</row>"
        for r, row in enumerate(rows, 1)
    )  # fmt: skip
    kind = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    rels = "http://schemas.openxmlformats.org/package/2006/relationships"
    types = "http://schemas.openxmlformats.org/package/2006/content-types"
    with zipfile.ZipFile(path, "w") as book:
        book.writestr(
            "[Content_Types].xml",
            f'<Types xmlns="{types}"><Default Extension="xml" ContentType="application/xml"/></Types>',
        )
        book.writestr(
            "_rels/.rels",
            f'<Relationships xmlns="{rels}"><Relationship Id="r" Type="{kind}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        )
        book.writestr(
            "xl/workbook.xml",
            f'<workbook xmlns="{main}" xmlns:r="{kind}"><sheets><sheet name="S" sheetId="1" r:id="r1"/></sheets></workbook>',
        )
        book.writestr(
            "xl/_rels/workbook.xml.rels",
            f'<Relationships xmlns="{rels}"><Relationship Id="r1" Type="{kind}/worksheet" Target="worksheets/sheet1.xml"/></Relationships>',
        )
        book.writestr(
            "xl/worksheets/sheet1.xml", f'<worksheet xmlns="{main}"><sheetData>{cells}</sheetData></worksheet>'
        )


@pytest.mark.parametrize("name", ["a.xlsx", "a.csv"])
def test_a_workbook_is_known_whatever_its_name(tmp_path, name):
    sheet(
        tmp_path / name,
        [["note", "dx", "pid", "age"], ["咳嗽", "肺炎", 7, 45], ["", "", "", ""], ["cough", "Flu", 8, 6]],
    )
    columns = MAP | {"patient": "pid", "age": "age"}
    found = entries(tmp_path / name, columns)
    assert [(e.line, e.fields["question"], e.patient_id, e.fields["age_band"]) for e in found] == [
        (2, "咳嗽", "7", "40-49"), (4, "cough", "8", "0-9")
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["a.xlsx", "a.csv"])
def test_titles_above_the_header_are_passed_over(tmp_path, name):
    rows = [["Ward report"], [""], ["note", "dx", "age"], ["cough", "Flu", "6"], ["Total", "", "1"]]
    if name == "a.csv":
        (tmp_path / name).write_text("\n".join(";".join(row) for row in rows))
    else:
        sheet(tmp_path / name, rows)
    found = entries(tmp_path / name, MAP | {"age": "age"})
    assert [entry.line for entry in found] == [4, 5]
    assert found[0].fields["question"] == "cough" and found[1].reason == "reference: empty (dx)"


def test_a_file_without_a_header_is_refused_without_its_text(tmp_path):
    (tmp_path / "a.csv").write_text(f"{'She coughs since March and lives alone. ' * 3},Flu\nx,y\n")
    with pytest.raises(UserError, match="is the header missing") as refused:
        entries(tmp_path / "a.csv")
    assert "coughs" not in str(refused.value)


def test_shards_globs_and_folders_of_datasets(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    for part in range(3):
        table = pa.Table.from_pylist([{"note": f"cough {part}", "dx": "Flu"}])
        pq.write_table(table, tmp_path / f"train-0000{part}-of-00003.parquet")
    (tmp_path / "dataset_info.json").write_text("{}")
    (tmp_path / "README.md").write_text("# a set")
    assert notes(tmp_path) == notes(tmp_path / "train-*.parquet") == ["cough 0", "cough 1", "cough 2"]
    saved = tmp_path / "saved"
    saved.mkdir()
    with (
        pa.OSFile(str(saved / "data-00000-of-00001.arrow"), "wb") as sink,
        pa.ipc.new_stream(sink, table.schema) as out,
    ):
        out.write_table(table)
    (saved / "state.json").write_text("{}")
    assert notes(saved) == ["cough 2"]


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.txt", "a.data", "a"])
def test_json_lines_under_any_name(tmp_path, name):
    (tmp_path / name).write_text('{"note": "cough", "dx": "Flu"}\n\n{"note": "rash", "dx": "Measles"}\n')
    assert notes(tmp_path / name) == ["cough", "rash"]


@pytest.mark.parametrize(
    "text",
    [
        '[{"note": "cough", "dx": "Flu"}, {"note": "rash", "dx": "Measles"}]',
        '[\n  {\n    "note": "cough",\n    "dx": "Flu"\n  },\n  {\n    "note": "rash",\n    "dx": "Measles"\n  }\n]\n',
        '{\n "note": "cough",\n "dx": "Flu"\n}\n{\n "note": "rash",\n "dx": "Measles"\n}\n',
        '{"note": "cough", "dx": "Flu"}{"note": "rash", "dx": "Measles"}',
        '\ufeff{"note": "cough", "dx": "Flu"}\r\n{"note": "rash", "dx": "Measles"}\r\n',
    ],
)
def test_json_of_every_shape(tmp_path, text):
    (tmp_path / "a.json").write_text(text, encoding="utf-8")
    assert notes(tmp_path / "a.json") == ["cough", "rash"]


def test_a_line_nested_too_deeply_is_that_lines_reject(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"note": ' + "[" * 9000 + "]" * 9000 + '}\n{"note": "cough", "dx": "Flu"}\n')
    deep, good = entries(tmp_path / "a.jsonl")
    assert isinstance(deep, Reject) and "nested too deeply" in deep.reason and good.fields["question"] == "cough"


def test_a_number_of_thousands_of_digits_is_that_lines_reject(tmp_path):
    long = '{"note": "rash", "dx": "Flu", "id": ' + "1" * 5000 + "}"
    for first, second in ((long, '{"note": "cough", "dx": "Flu"}'), ('{"note": "cough", "dx": "Flu"}', long)):
        (tmp_path / "a.jsonl").write_text(f"{first}\n{second}\n")
        bad, good = sorted(entries(tmp_path / "a.jsonl"), key=lambda entry: isinstance(entry, Row))
        assert "a number of too many digits" in bad.reason and good.fields["question"] == "cough"
    (tmp_path / "a.json").write_text(f"[\n{long}]")
    with pytest.raises(UserError, match=r"a\.json:\d: malformed JSON \(a number of too many digits\)"):
        entries(tmp_path / "a.json")


def test_a_list_at_any_depth_is_named(tmp_path):
    (tmp_path / "a.json").write_text('{"a": {"n": 1, "b": [{"note": "cough", "dx": "Flu"}]}}')
    with pytest.raises(UserError, match=r"--map items=a\.b"):
        entries(tmp_path / "a.json", {})
    assert notes(tmp_path / "a.json", MAP | {"items": "a.b"}) == ["cough"]


def test_wrapped_lists_are_named_and_reached(tmp_path):
    rows = [{"note": "cough", "dx": "Flu"}]
    for text, key in (({"meta": 1, "data": rows}, "data"), ({"train": rows, "test": rows}, "train+test"),
                      ({"a": {"rows": rows}}, "a.rows")):  # fmt: skip
        (tmp_path / "a.json").write_text(json.dumps(text))
        assert set(notes(tmp_path / "a.json", MAP | {"items": key})) == {"cough"}
    (tmp_path / "a.json").write_text(json.dumps({"meta": 1, "data": rows}))
    for columns in ({}, MAP):
        with pytest.raises(UserError, match="items=data"):
            entries(tmp_path / "a.json", columns)


def test_a_map_reaches_into_objects_and_odd_columns(tmp_path):
    (tmp_path / "a.json").write_text(
        json.dumps([{"v": {"n": ["cough", "fever"]}, "dx": [{"t": "Flu"}], "p": {"id": 4.0}}])
    )
    (row,) = entries(tmp_path / "a.json", {"question": "v.n.0+v.n.1", "reference": "dx.0.t", "patient": "p.id"})
    assert (row.fields["question"], row.fields["references"], row.patient_id) == ("cough\nfever", ["Flu"], "4")
    (tmp_path / "b.csv").write_text('"complaint, history",Na+,dx=main\ncough,135,Flu\n')
    columns = parse_map('question="complaint, history"+"Na+",reference="dx=main"')
    assert notes(tmp_path / "b.csv", columns) == ["cough\n135"]
    assert columns_of(r"complaint\, history+Na\+") == ("complaint, history", "Na+")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ('"\\ud83d cough"', "half of a character"),
        ("NaN", "empty"),
        ("null", "empty"),
        ('{"a": 1}', "an object, not a text"),
    ],
)
def test_values_that_are_no_text_are_that_rows_reject(tmp_path, value, text):
    (tmp_path / "a.jsonl").write_text(
        '{"note": VALUE, "dx": "Flu"}\n{"note": "ok", "dx": "Flu"}\n'.replace("VALUE", value)
    )
    bad, good = entries(tmp_path / "a.jsonl")
    assert isinstance(bad, Reject) and text in bad.reason and bad.line == 1 and isinstance(good, Row)


def test_null_and_numbers_of_other_tools_are_absent_or_text(tmp_path):
    row = {
        "question": "cough?",
        "reference": "Flu",
        "icd10": None,
        "sex": None,
        "id": 17,
        "patient": 5.0,
        "age": 45,
        "x": 1,
    }
    (tmp_path / "a.jsonl").write_text(json.dumps(row).replace("null", "NaN", 1) + "\n")
    (found,) = read_source(Source(path=str(tmp_path / "a.jsonl")))
    assert (found.fields["id"], found.patient_id, found.fields["age_band"]) == ("17", "5", "40-49")
    assert "icd10" not in found.fields and found.fields["sex"] == ""


def test_options_and_references_in_every_spelling(tmp_path):
    spellings = [
        {"A": "Flu", "B": "Gout"}, ["Flu", "Gout"], [{"key": "A", "value": "Flu"}, {"key": "B", "value": "Gout"}],
        '{"A": "Flu", "B": "Gout"}', "A. Flu\nB. Gout",
    ]  # fmt: skip
    rows = [{"q": "cough?", "o": options, "a": "B"} for options in spellings] + [
        {"q": "cough?", "o": spellings[0], "a": "C"}
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    *good, bad = entries(tmp_path / "a.jsonl", {"question": "q", "options": "o", "reference": "a"})
    assert all(row.fields["options"] == ["Flu", "Gout"] and row.fields["references"] == ["Gout"] for row in good)
    assert bad.reason == "answer: not one of the options"
    (tmp_path / "b.jsonl").write_text(json.dumps({"note": "cough", "dx": ["Flu", "", "Gout"]}) + "\n")
    assert entries(tmp_path / "b.jsonl")[0].fields["references"] == ["Flu", "Gout"]


def test_names_of_files_that_may_be_patients_are_not_told(tmp_path):
    for name in ("Maria_Garcia.csv", "cases.csv"):
        (tmp_path / name).write_text("note,dx\n,Flu\n")
    assert entries(tmp_path / "cases.csv")[0].file == "cases.csv"
    (reject,) = entries(tmp_path / "Maria_Garcia.csv")
    assert "Garcia" not in reject.file and reject.file.endswith(".csv")
    folder = files_of(str(tmp_path))
    assert [file.name.rpartition("#")[2] for file in folder] == ["1", "2"] and "Garcia" not in folder[0].name
    (tmp_path / "Maria_Garcia.csv").write_text("note,dx\ncough,Flu\n")
    assert "Garcia" not in str(entries(tmp_path / "Maria_Garcia.csv")[0].fields)


@pytest.mark.parametrize(
    ("name", "told"),
    [("discharge_notes-2021.csv", True), ("DischargeNotes.xlsx", True), ("门诊病历2022年3月.csv", True), ("ward-b.csv", True),
     ("20210304.csv", True), ("Oyelaran_discharge.csv", False), ("smith.csv", False), ("陳曉明.csv", False), ("Müller.json", False),
     ("阿依古丽出院小结.csv", False), ("notes_kzh.csv", False), ("MRN0034567.json", False)],
)  # fmt: skip
def test_a_file_name_is_told_where_every_word_is_ordinary(name, told):
    assert (safe_name(Path(name)) == name) is told


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "empty"), (b"\x1f\x8b broken", "broken archive"), (b"hello world\n", "malformed JSON"), (b"[1, 2]", "holds no cases"),
     (b'{"text": "cough"}\n', "--map question=KEY"), (b"%PDF-1.7 ...", "a PDF; save its tables"), (b"<html><table>", "XML or HTML"),
     (b"# exported 2024\nnote,dx\ncough,Flu\n", 'x.dat:1: a comment'), (b"SQLite format 3\0", "SQLite database; export")],
)  # fmt: skip
def test_files_that_hold_nothing_are_one_sentence(tmp_path, content, message):
    (tmp_path / "x.dat").write_bytes(content)
    with pytest.raises(UserError, match=message):
        check_source(Source(path=str(tmp_path / "x.dat")))
        list(read_source(Source(path=str(tmp_path / "x.dat"))))


def test_auto_says_what_it_took_a_file_for(tmp_path):
    (tmp_path / "a.dat").write_text("note,dx\ncough,Flu\n")
    assert resolved_format(Source(path=str(tmp_path / "a.dat"), map=MAP)) == "csv"


def test_line_ends_of_old_macs_and_returns_inside_of_cells(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"note,dx\rcough,Flu\rrash,Measles\r")
    assert notes(tmp_path / "a.csv") == ["cough", "rash"]
    (tmp_path / "b.csv").write_bytes(b"note,dx\ndry\rcough,Flu\n")
    assert notes(tmp_path / "b.csv") == ["dry cough"]


def test_a_file_that_ends_inside_of_a_character_loses_that_row_only(tmp_path):
    (tmp_path / "a.csv").write_bytes("note,dx\ncough,Flu\nrash,Measles\n".encode("utf-16") + b"\x41")
    found = entries(tmp_path / "a.csv")
    assert [e.fields["question"] for e in found if isinstance(e, Row)] == ["cough", "rash"]
