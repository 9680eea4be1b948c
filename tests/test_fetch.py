"""Downloads from a server that misbehaves, and archives that must not be trusted."""

import hashlib
import io
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from tiny import assert_one_line

from bntt.common import files
from bntt.common.errors import UserError
from bntt.data import _fetch
from bntt.data._fetch import Archive, fetch, opened_zip, unpack

BODY = bytes(range(256)) * 4096  # 1 MB
MD5 = hashlib.md5(BODY, usedforsecurity=False).hexdigest()


class Host:
    """A server whose answers are a list of behaviours, one per request, the last for all that follow."""

    def __init__(self) -> None:
        self.behaviours, self.ranges = ["whole"], []
        host = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                host.ranges.append(self.headers.get("Range"))
                behaviour = host.behaviours.pop(0) if len(host.behaviours) > 1 else host.behaviours[0]
                getattr(self, behaviour)()

            def send(self, status: int, content: bytes, length: int | None = None) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(content) if length is None else length))
                self.end_headers()
                self.wfile.write(content)

            def whole(self) -> None:
                asked = self.headers.get("Range")
                if asked is None:
                    self.send(200, BODY)
                elif int(asked[6:-1]) >= len(BODY):
                    self.send(416, b"")
                else:
                    self.send(206, BODY[int(asked[6:-1]) :])

            def cut(self) -> None:
                """A third of what is left, then the connection ends."""
                start = int((self.headers.get("Range") or "bytes=0-")[6:-1])
                rest = BODY[start:]
                self.send(206 if start else 200, rest[: len(rest) // 3], len(rest))
                self.close_connection = True

            def ignorant(self) -> None:
                self.send(200, BODY)

            def silent(self) -> None:
                self.send(200, BODY[:1000], len(BODY))
                host.release.wait(30)

            def wrong(self) -> None:
                self.send(200, BODY[::-1])

            def nothing(self) -> None:
                self.send(202, b"")

            def broken_off(self) -> None:
                """In chunks, the last of which never comes."""
                self.send_response(200)
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                self.wfile.write(b"100000\r\n" + BODY[:1000])
                self.close_connection = True

            def babbling(self) -> None:
                self.wfile.write(b"who is there?\r\n\r\n")
                self.close_connection = True

            def missing(self) -> None:
                self.send(404, b"gone")

            def busy(self) -> None:
                self.send(503, b"later")

            def log_message(self, *_) -> None:
                pass

        self.release = threading.Event()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def archive(self) -> Archive:
        return Archive("data.bin", f"http://127.0.0.1:{self.server.server_port}/data.bin", MD5)


@pytest.fixture
def host(monkeypatch):
    monkeypatch.setattr(_fetch.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(_fetch, "PIECE", 1000)
    one = Host()
    yield one
    one.release.set()
    one.server.shutdown()
    one.server.server_close()


def test_a_download_is_verified_and_not_repeated(host, tmp_path):
    (path,) = fetch([host.archive], tmp_path / "new folder")
    assert path.read_bytes() == BODY
    fetch([host.archive], path.parent)
    assert host.ranges == [None]
    assert [p.name for p in path.parent.iterdir()] == ["data.bin"]


@pytest.mark.parametrize("behaviour", ["broken_off", "babbling"])
def test_an_answer_that_is_no_http_is_asked_for_again_and_then_given_up_in_one_line(
    host, tmp_path, monkeypatch, behaviour
):
    waits: list[float] = []
    monkeypatch.setattr(_fetch.time, "sleep", waits.append)
    host.behaviours = [behaviour, behaviour, "ignorant"]
    (path,) = fetch([host.archive], tmp_path / "a")
    assert path.read_bytes() == BODY
    host.behaviours = ["babbling"]
    waits.clear()
    with pytest.raises(UserError) as raised:
        fetch([host.archive], tmp_path / "b")
    assert_one_line(raised.value, "cannot download", "what arrived is kept")
    assert waits == pytest.approx([0.4, 1.6, 6.4, 25.6])  # and not once more before the message


def test_a_connection_that_is_cut_goes_on_where_it_was(host, tmp_path):
    host.behaviours = ["cut"] * 12 + ["whole"]
    (path,) = fetch([host.archive], tmp_path)
    assert path.read_bytes() == BODY
    assert host.ranges[0] is None
    starts = [int(asked[6:-1]) for asked in host.ranges[1:]]
    assert starts == sorted(set(starts))


def test_an_interrupted_process_goes_on_where_it_was(host, tmp_path):
    (tmp_path / "data.bin.part").write_bytes(BODY[:700_000])
    fetch([host.archive], tmp_path)
    assert host.ranges == ["bytes=700000-"]


def test_a_download_that_was_only_not_renamed_is_taken(host, tmp_path):
    (tmp_path / "data.bin.part").write_bytes(BODY)
    (path,) = fetch([host.archive], tmp_path)
    assert path.read_bytes() == BODY


def test_a_server_that_knows_no_ranges_begins_anew(host, tmp_path):
    host.behaviours = ["cut", "ignorant"]
    (path,) = fetch([host.archive], tmp_path)
    assert path.read_bytes() == BODY


def test_a_busy_server_is_asked_again(host, tmp_path):
    host.behaviours = ["busy", "busy", "whole"]
    (path,) = fetch([host.archive], tmp_path)
    assert path.read_bytes() == BODY


def test_a_silent_server_is_given_up_and_what_came_is_kept(host, tmp_path, monkeypatch):
    monkeypatch.setattr(_fetch, "TIMEOUT", 0.2)
    monkeypatch.setattr(_fetch, "ATTEMPTS", 1)
    host.behaviours = ["silent", "nothing"]
    with pytest.raises(UserError) as raised:
        fetch([host.archive], tmp_path)
    assert_one_line(raised.value, host.archive.url, "cannot download", "kept", "--from")
    assert (tmp_path / "data.bin.part").stat().st_size == 1000


@pytest.mark.parametrize(
    ("behaviour", "parts"),
    [
        ("wrong", ["did not send", MD5]),
        ("nothing", ["sent nothing"]),
        ("missing", ["HTTP 404"]),
        ("busy", ["503"]),
    ],
)
def test_what_is_not_the_archive_is_one_line(host, tmp_path, behaviour, parts):
    host.behaviours = [behaviour]
    with pytest.raises(UserError) as raised:
        fetch([host.archive], tmp_path)
    assert_one_line(raised.value, host.archive.url, *parts)
    assert not (tmp_path / "data.bin").exists()


def test_wrong_bytes_are_not_kept_so_that_the_next_attempt_is_whole(host, tmp_path):
    host.behaviours = ["wrong", "whole"]
    with pytest.raises(UserError):
        fetch([host.archive], tmp_path)
    (path,) = fetch([host.archive], tmp_path)
    assert path.read_bytes() == BODY


def test_no_network_is_one_line(host, tmp_path):
    archive = host.archive
    host.server.shutdown()
    host.server.server_close()
    with pytest.raises(UserError) as raised:
        fetch([archive], tmp_path)
    assert_one_line(raised.value, archive.url, "refused", "put data.bin into")


def test_a_file_that_verified_before_is_never_lost(host, tmp_path):
    (tmp_path / "data.bin").write_bytes(BODY[:-1] + b"!")
    with pytest.raises(UserError) as raised:
        fetch([host.archive], tmp_path)
    assert_one_line(raised.value, str(tmp_path / "data.bin"), MD5, "delete it")
    assert (tmp_path / "data.bin").exists()
    assert host.ranges == []


def test_a_full_disk_is_known_before_the_download_begins(host, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "SPARE", 10**18)
    with pytest.raises(UserError) as raised:
        fetch([host.archive], tmp_path)
    assert_one_line(raised.value, "GB free", "BNTT_DATA")


# -- archives ---------------------------------------------------------------------------------------------


def tar(path, *members: tuple[tarfile.TarInfo, bytes]):
    with tarfile.open(path, "w:gz") as opened:
        for member, content in members:
            member.size = len(content)
            opened.addfile(member, io.BytesIO(content))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    one = tarfile.TarInfo(name)
    one.type, one.linkname = kind, target
    return one


def test_plain_files_are_unpacked(tmp_path):
    unpack(tar(tmp_path / "a.tgz", (member("in/b"), b"1"), (member("c"), b"23")), tmp_path / "out")
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()} == {"b": b"1", "c": b"23"}


@pytest.mark.parametrize(
    "bad",
    [
        member("../evil"),
        member("/evil"),
        member("a/../../evil"),
        member("link", tarfile.SYMTYPE, "/etc"),
        member("hard", tarfile.LNKTYPE, "a"),
        member("pipe", tarfile.FIFOTYPE),
    ],
    ids=lambda one: one.name,
)
def test_members_that_leave_their_folder_and_links_are_refused(tmp_path, bad):
    archive = tar(tmp_path / "a.tgz", (member("good"), b"1"), (bad, b""))
    with pytest.raises(UserError) as raised:
        unpack(archive, tmp_path / "out")
    assert_one_line(raised.value, str(archive), bad.name, "nothing was extracted")
    assert not list(tmp_path.rglob("good"))


def test_a_damaged_archive_is_one_line(tmp_path):
    path = tar(tmp_path / "a.tgz", (member("good"), BODY))
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(UserError) as raised:
        unpack(path, tmp_path / "out")
    assert_one_line(raised.value, str(path), "cannot be read")
    (tmp_path / "b.zip").write_bytes(b"PK no")
    with pytest.raises(UserError) as raised:
        opened_zip(tmp_path / "b.zip")
    assert_one_line(raised.value, "b.zip", "cannot be read")


def test_a_zip_that_would_leave_its_folder_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as opened:
        opened.writestr("../evil", "x")
    with pytest.raises(UserError) as raised:
        opened_zip(tmp_path / "a.zip")
    assert_one_line(raised.value, "a.zip", "../evil")
