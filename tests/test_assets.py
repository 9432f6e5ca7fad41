"""The page's files: variants, validators, and what a request may find."""

import gzip
import os
import time

import pytest

from server.http.assets import load_assets
from server.http.errors import PreconditionFailed
from server.http.parser import RequestParser
from server.http.request import ParserLimits

DATE = b"Sun, 06 Nov 1994 08:49:37 GMT"
MODIFIED = 1_000_000_000  # Sun, 09 Sep 2001 01:46:40 GMT


@pytest.fixture
def assets(tmp_path):
    (tmp_path / "static").mkdir()
    (tmp_path / "index.html").write_text("<p>hello</p>" * 100)
    (tmp_path / "static" / "tiny.svg").write_text("<svg/>")
    for path in tmp_path.rglob("*.*"):
        os.utime(path, (MODIFIED, MODIFIED))
    return load_assets(tmp_path)


def ask(asset, method="GET", version=b"1.1", keep_alive=True, **fields):
    lines = [f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items()]
    parser = RequestParser(ParserLimits())
    parser.receive(b"%b / HTTP/%b\r\nHost: a\r\n" % (method.encode(), version))
    parser.receive("".join(lines).encode() + b"\r\n")
    head, _, body = respond(asset, parser, keep_alive).partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    return int(status.split()[1]), dict(line.split(": ", 1) for line in lines), body


def respond(asset, parser, keep_alive):
    return asset.respond(parser.read_head(), keep_alive).at(DATE)


def test_paths(assets):
    assert set(assets) == {"/", "/static/tiny.svg"}


def test_whole_answer(assets):
    status, fields, body = ask(assets["/"])
    assert (status, body) == (200, b"<p>hello</p>" * 100)
    assert fields["Content-Type"] == "text/html; charset=utf-8"
    assert fields["Content-Length"] == "1200"
    assert fields["Date"] == DATE.decode()
    assert fields["Last-Modified"] == "Sun, 09 Sep 2001 01:46:40 GMT"
    assert fields["Vary"] == "Accept-Encoding"
    assert fields["X-Content-Type-Options"] == "nosniff"
    assert fields["Accept-Ranges"] == "none"
    assert "script-src 'self'" in fields["Content-Security-Policy"]
    assert "Connection" not in fields


@pytest.mark.parametrize(
    "accepted", ["gzip", "br, gzip", "GZIP;q=0.5", "*", "x-gzip", "gzip;q=1.0, *;q=0"]
)
def test_gzip_if_accepted(assets, accepted):
    _, fields, body = ask(assets["/"], Accept_Encoding=accepted)
    assert fields["Content-Encoding"] == "gzip"
    assert fields["Content-Length"] == str(len(body))
    assert gzip.decompress(body) == b"<p>hello</p>" * 100


@pytest.mark.parametrize(
    "accepted",
    [
        "br",
        "gzip;q=0",
        "*;q=0",
        "gzip;q=0, *",
        "gzip;q=x",
        "gzip;q=inf",
        "identity, gzip;q=0.5",
        "",
    ],
)
def test_identity_if_not(assets, accepted):
    assert "Content-Encoding" not in ask(assets["/"], Accept_Encoding=accepted)[1]


def test_no_gzip_where_it_does_not_help(assets):
    assert "Content-Encoding" not in ask(assets["/static/tiny.svg"], Accept_Encoding="gzip")[1]


def test_variants_have_etags_of_their_own(assets):
    plain = ask(assets["/"])[1]["ETag"]
    packed = ask(assets["/"], Accept_Encoding="gzip")[1]["ETag"]
    assert plain != packed
    assert ask(assets["/"], If_None_Match=plain)[0] == 304
    assert ask(assets["/"], If_None_Match=packed)[0] == 200
    assert ask(assets["/"], If_None_Match=packed, Accept_Encoding="gzip")[0] == 304


def test_none_match_lists_weak_and_star(assets):
    tag = ask(assets["/"])[1]["ETag"]
    assert ask(assets["/"], If_None_Match=f'"x", {tag}')[0] == 304
    assert ask(assets["/"], If_None_Match=f"W/{tag}")[0] == 304
    assert ask(assets["/"], If_None_Match="*")[0] == 304
    assert ask(assets["/"], If_None_Match='"x"')[0] == 200


def test_modified_since(assets):
    later, earlier = "Mon, 10 Sep 2001 00:00:00 GMT", "Sat, 08 Sep 2001 00:00:00 GMT"
    assert ask(assets["/"], If_Modified_Since=later)[0] == 304
    assert ask(assets["/"], If_Modified_Since=earlier)[0] == 200
    assert ask(assets["/"], If_Modified_Since="yesterday")[0] == 200
    assert ask(assets["/"], If_Modified_Since=later, If_None_Match='"x"')[0] == 200


def test_dates_in_all_three_forms(assets):
    for date in ("Sunday, 09-Sep-01 01:46:40 GMT", "Sun Sep  9 01:46:40 2001"):
        assert ask(assets["/"], If_Modified_Since=date)[0] == 304
    for date in ("Sunday, 09-Sep-01 01:46:39 GMT", "Sun Sep  9 01:46:39 2001"):
        assert ask(assets["/"], If_Modified_Since=date)[0] == 200


@pytest.mark.parametrize(
    "date",
    [
        "Mon, 10 Sep 2001 00:00:00",
        "Mon, 10 Sep 2001 00:00:00 +0000",
        "mon, 10 sep 2001 00:00:00 gmt",
        "Tue, 10 Sep 2001 00:00:00 GMT",
        "Mon, 9 Sep 2001 00:00:00 GMT",
        "Mon,  10 Sep 2001 00:00:00 GMT",
        "Mon, 10 Sep 01 00:00:00 GMT",
        "Mon, 31 Sep 2001 00:00:00 GMT",
        "Mon, 10 Sep 2001 24:00:00 GMT",
        "Mon Sep 09 01:46:40 2001 GMT",
        "2001-09-10T00:00:00Z",
        "0",
    ],
)
def test_what_is_no_http_date_is_ignored(assets, date):
    assert ask(assets["/"], If_Modified_Since=date)[0] == 200
    assert ask(assets["/"], If_Unmodified_Since=date.replace("2001", "1994"))[0] == 200


def test_last_modified_is_never_in_the_future(tmp_path):
    file = tmp_path / "index.html"
    file.write_text("<p>hello</p>")
    os.utime(file, (2**33, 2**33))
    assert load_assets(tmp_path)["/"].modified_at <= time.time()


def test_match_and_unmodified_since(assets):
    tag = ask(assets["/"])[1]["ETag"]
    later, earlier = "Mon, 10 Sep 2001 00:00:00 GMT", "Sat, 08 Sep 2001 00:00:00 GMT"
    assert ask(assets["/"], If_Match=tag)[0] == 200
    assert ask(assets["/"], If_Match=f'"x", {tag}')[0] == 200
    assert ask(assets["/"], If_Match="*")[0] == 200
    assert ask(assets["/"], If_Match=tag, If_None_Match=tag)[0] == 304
    assert ask(assets["/"], If_Unmodified_Since=later)[0] == 200
    assert ask(assets["/"], If_Unmodified_Since="yesterday")[0] == 200
    assert ask(assets["/"], If_Match=tag, If_Unmodified_Since=earlier)[0] == 200
    for failing in (
        {"If_Match": '"x"'},
        {"If_Match": f"W/{tag}"},
        {"If_Unmodified_Since": earlier},
    ):
        with pytest.raises(PreconditionFailed):
            ask(assets["/"], **failing)


def test_not_modified_has_validators_and_no_body(assets):
    _, fields, body = ask(assets["/"], If_None_Match="*")
    assert body == b""
    assert {"ETag", "Date", "Cache-Control", "Vary"} <= set(fields)
    assert "Content-Length" not in fields


def test_head_has_no_body(assets):
    status, fields, body = ask(assets["/"], method="HEAD")
    assert (status, body, fields["Content-Length"]) == (200, b"", "1200")


def test_connection_field_is_sent_where_it_must_be(assets):
    assert ask(assets["/"], keep_alive=False)[1]["Connection"] == "close"
    assert ask(assets["/"], version=b"1.0")[1]["Connection"] == "keep-alive"
