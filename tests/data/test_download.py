"""Downloads from a real server that cuts, stalls, lies, moves, and asks for a login."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import threading
import time

import pytest

from diffcli.data.downloads.download import Patience, download, shown_url
from diffcli.data.downloads.remote_file import RemoteFile
from diffcli.errors import (
    CorruptError,
    DiffcliError,
    InterruptedRunError,
    LockedError,
    MissingError,
    StorageError,
    UsageError,
)
from http_server import Behaviour, Server, serving

CONTENT = random.Random(5).randbytes(3 * 2**20 + 17)
QUICK = Patience(connect_seconds=2, silence_seconds=0.3, attempts=3, first_pause_seconds=0.01)


def published(server: Server | str, content: bytes = CONTENT) -> RemoteFile:
    return RemoteFile(
        url=server if isinstance(server, str) else server.url,
        name="file.bin",
        size_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        otherwise="get it by other means",
    )


def no_progress(_done: int, _total: int) -> None:
    return None


def fetched(server, directory, **choices):
    return download(published(server), directory, progress=no_progress, patience=QUICK, **choices)


def names_in(directory):
    return sorted(path.name for path in directory.iterdir()) if directory.exists() else []


def test_a_file_arrives_whole_and_is_not_fetched_again(tmp_path):
    told = []
    with serving(CONTENT) as server:
        path = download(published(server), tmp_path / "a" / "b", progress=lambda *done: told.append(done))
        assert path.read_bytes() == CONTENT
        assert names_in(path.parent) == ["file.bin"]
        assert told[-1] == (len(CONTENT), len(CONTENT))
        assert download(published(server), path.parent, progress=no_progress) == path
        assert len(server.asked) == 1


# what happens to the first requests; the last behaviour repeats
BAD_DAYS = {
    "cut": [Behaviour(cut_after=10**6), Behaviour()],
    "cut thrice": [*[Behaviour(cut_after=7 * 10**5)] * 3, Behaviour()],
    "cut more often than attempts in vain are allowed": [Behaviour(cut_after=4 * 10**5)],
    "cut at once": [Behaviour(cut_after=0), Behaviour()],
    "cut without a length": [Behaviour(cut_after=10**6, claims=-1), Behaviour()],
    "stall": [Behaviour(stall_after=10**6), Behaviour()],
    "no ranges": [Behaviour(cut_after=10**6), Behaviour(ranges=False)],
    "a part of another place": [Behaviour(cut_after=10**6), Behaviour(part_from=7), Behaviour()],
    "busy": [Behaviour(status=503), Behaviour(status=429), Behaviour()],
    "moved": [Behaviour(status=302, location="/other.bin"), Behaviour()],
    "the whole as a part": [Behaviour(unasked_part=True)],
    "no length": [Behaviour(claims=-1)],
    "compressed, it says": [Behaviour(encoding="gzip")],
    "no etag": [Behaviour(cut_after=10**6, etag=""), Behaviour(etag="")],
}


@pytest.mark.parametrize("days", BAD_DAYS)
def test_bad_days_end_well(days, tmp_path):
    with serving(CONTENT, *BAD_DAYS[days]) as server:
        assert fetched(server, tmp_path).read_bytes() == CONTENT
    assert names_in(tmp_path) == ["file.bin"]


def test_only_what_is_missing_is_asked_for(tmp_path):
    with serving(CONTENT, Behaviour(cut_after=10**6), Behaviour()) as server:
        fetched(server, tmp_path)
        first, second = server.asked
    assert "Range" not in first
    assert second["Range"] == "bytes=1000000-"
    assert second["If-Range"] == '"one"'


def test_a_file_that_changed_since_the_cut_is_fetched_anew(tmp_path):
    """Half of an old content, then the published one."""
    old = bytes(len(CONTENT))
    with serving(CONTENT, Behaviour(body=old, cut_after=10**6), Behaviour(etag='"two"')) as server:
        assert fetched(server, tmp_path).read_bytes() == CONTENT


def test_a_later_process_goes_on_where_one_was_stopped(tmp_path):
    with serving(CONTENT, Behaviour(stall_after=2 * 10**6), Behaviour()) as server:
        started_at = time.monotonic()

        def stop(done, _total):
            if done >= 19 * 10**5:
                raise InterruptedRunError("stopped", signal_number=signal.SIGINT)

        with pytest.raises(InterruptedRunError):
            download(published(server), tmp_path, progress=stop)
        # long before the silence of the server would have ended it
        assert time.monotonic() - started_at < 10
        assert names_in(tmp_path) == ["file.bin.part", "file.bin.part.json"]
        begun, rates = [], []

        def progress(done, _total):
            rates.append((begun[-1], done))

        download(published(server), tmp_path, progress=progress, patience=QUICK, begin=begun.append)
        assert (tmp_path / "file.bin").read_bytes() == CONTENT
        # what was there already is not counted as fetched
        assert begun == ["reading again", "downloading"][-len(begun) :]
        assert all(done >= 19 * 10**5 for work, done in rates if work == "downloading")
        assert server.asked[1]["Range"] == f"bytes={2 * 10**6 // 2**16 * 2**16}-"
    assert names_in(tmp_path) == ["file.bin"]


def test_another_mirror_goes_on_where_the_first_was_cut(tmp_path):
    with serving(CONTENT, Behaviour(cut_after=10**6), Behaviour(status=404)) as dead:
        with pytest.raises(MissingError):
            fetched(dead, tmp_path)
        with serving(CONTENT) as mirror:
            assert fetched(mirror, tmp_path).read_bytes() == CONTENT
            assert mirror.asked[0]["Range"] == "bytes=1000000-"
            # a validator means nothing to another server
            assert "If-Range" not in mirror.asked[0]


WRONG_MIRRORS = {
    "longer": Behaviour(body=CONTENT + bytes(50)),
    "shorter": Behaviour(body=CONTENT[:-50]),
    "shorter than what is there": Behaviour(body=CONTENT[:1000]),
    "without ranges": Behaviour(body=CONTENT + bytes(50), ranges=False),
    "a login page": Behaviour(body=b"<html>", kind="text/html", ranges=False),
}


@pytest.mark.parametrize("wrong", WRONG_MIRRORS)
def test_one_wrong_mirror_costs_nothing_of_what_came(wrong, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(CONTENT[:2_000_000])
    with serving(CONTENT, WRONG_MIRRORS[wrong]) as mirror, pytest.raises(DiffcliError) as caught:
        fetched(mirror, tmp_path)
    assert type(caught.value) is (MissingError if "login" in wrong else CorruptError)
    assert len(mirror.asked) == 1
    assert (tmp_path / "file.bin.part").read_bytes() == CONTENT[:2_000_000]
    with serving(CONTENT) as server:
        assert fetched(server, tmp_path).read_bytes() == CONTENT
        assert server.asked[0]["Range"] == "bytes=2000000-"


def test_what_came_goes_only_when_the_file_begins_to_come_anew(tmp_path):
    (tmp_path / "file.bin.part").write_bytes(CONTENT[:2_000_000])
    with serving(CONTENT, Behaviour(part_from=7), Behaviour(status=404)) as mirror:
        with pytest.raises(MissingError):
            fetched(mirror, tmp_path)
        assert "Range" not in mirror.asked[1]
    assert (tmp_path / "file.bin.part").read_bytes() == CONTENT[:2_000_000]


# ---- ends ----

ENDS = {
    "404": ([Behaviour(status=404)], MissingError, "the link is dead", "404 Not Found"),
    "410": ([Behaviour(status=410)], MissingError, "the link is dead", "410"),
    "401": ([Behaviour(status=401)], MissingError, "wants a login", "401"),
    "403": ([Behaviour(status=403)], MissingError, "wants a login", "403"),
    "418": ([Behaviour(status=418)], MissingError, "does not give the file", "418"),
    "a login page": (
        [Behaviour(body=b"<html>", kind="text/html; charset=utf-8")],
        MissingError,
        "is a web page",
        "login",
    ),
    "round and round": ([Behaviour(status=302, location="/x")], MissingError, "without end", ""),
    "always busy": ([Behaviour(status=503)], StorageError, "503", "3 attempts"),
    "always silent": ([Behaviour(stall_after=0)], StorageError, "is silent", "0 of 3,145,745 bytes"),
    "stuck": (
        [Behaviour(cut_after=10**6), Behaviour(stall_after=0)],
        StorageError,
        "is silent",
        "1,000,000 of 3,145,745 bytes are kept",
    ),
    "a part where all was asked for": (
        [Behaviour(unasked_part=True, part_from=7)],
        StorageError,
        "a part of the file where all of it was asked for",
        "3 attempts",
    ),
    "a part of another file": (
        [Behaviour(body=CONTENT[:-7], unasked_part=True)],
        CorruptError,
        "another file",
        "it has 3,145,738 bytes",
    ),
    "longer than it says": ([Behaviour(claims=10**7)], CorruptError, "another file", "10,000,000 bytes"),
    "shorter than it says": ([Behaviour(claims=100)], CorruptError, "another file", "it has 100 bytes"),
    "longer than the published one": (
        [Behaviour(body=CONTENT + b"!", claims=-1)],
        CorruptError,
        "another file",
        "longer than 3,145,745",
    ),
    "as long as the published one": (
        [Behaviour(body=bytes(len(CONTENT)))],
        CorruptError,
        "another file",
        "SHA-256",
    ),
}


@pytest.mark.parametrize("end", ENDS)
def test_what_cannot_end_well_is_told(end, tmp_path):
    days, kind, what, where = ENDS[end]
    with serving(CONTENT, *days) as server, pytest.raises(DiffcliError) as caught:
        fetched(server, tmp_path)
    assert type(caught.value) is kind
    assert what in caught.value.what
    assert where in caught.value.where
    if end != "round and round":
        assert "other means" in caught.value.remedy
    # what never was the file is not kept, and half a file has no final name
    assert names_in(tmp_path) in ([], ["file.bin.part", "file.bin.part.json"])
    assert (names_in(tmp_path) == []) == (end != "stuck")


def test_a_server_that_always_cuts_at_the_same_place_is_given_up(tmp_path):
    notices = []
    with serving(CONTENT, Behaviour(cut_after=10**6, ranges=False)) as server:
        with pytest.raises(StorageError, match="cut the connection"):
            fetched(server, tmp_path, notice=notices.append)
        assert len(server.asked) == 1 + QUICK.attempts - 1
    assert len(notices) == QUICK.attempts - 1
    assert all("trying again" in notice for notice in notices)


def test_a_server_that_is_not_there_is_told(tmp_path):
    with serving(CONTENT) as server:
        gone = server.url
    with pytest.raises(MissingError, match=r"cannot be reached: .*refused"):
        fetched(gone, tmp_path)
    with pytest.raises(MissingError, match=r"no-such-host\.invalid cannot be reached"):
        fetched("http://no-such-host.invalid/x", tmp_path)


@pytest.mark.parametrize("url", ["ftp://host/x", "file:///etc/passwd", "no url", "http://", "http://[::/x"])
def test_what_is_no_address_is_refused(url, tmp_path):
    with pytest.raises(UsageError):
        fetched(url, tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_passwords_in_addresses_are_not_shown(tmp_path):
    assert shown_url("https://me:secret@host:8/x?y=1") == "https://host:8/x?y=1"
    with serving(CONTENT, Behaviour(status=403)) as server, pytest.raises(MissingError) as caught:
        fetched(server.url.replace("http://", "http://me:secret@"), tmp_path)
    assert "secret" not in str(caught.value)
    assert server.asked[0]["Authorization"].startswith("Basic ")


def test_the_proxy_of_the_environment_is_used(tmp_path, monkeypatch):
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with serving(CONTENT) as proxy:
        monkeypatch.setenv("http_proxy", proxy.base)
        assert fetched("http://no-such-host.invalid/file.bin", tmp_path).read_bytes() == CONTENT
        assert proxy.asked[0]["Host"] == "no-such-host.invalid"


BAD_PROXIES = [
    "socks9://host:1080",
    "http://",
    "http://:3128",
    "ftp://host:1",
    "http://host:99999999",
    "http://[::",
]


@pytest.mark.parametrize("proxy", BAD_PROXIES)
@pytest.mark.parametrize("variable", ["http_proxy", "all_proxy"])
def test_a_proxy_that_is_none_is_told_by_its_variable(proxy, variable, tmp_path, monkeypatch):
    for name in ("no_proxy", "http_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv(variable, proxy)
    with pytest.raises(UsageError, match="proxy of the environment") as caught:
        fetched("http://no-such-host.invalid/x", tmp_path)
    assert caught.value.where.startswith(f"{variable} ")
    assert "--url" not in str(caught.value)


def test_two_processes_do_not_fetch_the_same_file_at_once(tmp_path):
    with serving(CONTENT, Behaviour(stall_after=10**6)) as server:
        first = threading.Thread(target=fetched, args=(server, tmp_path))
        first.start()
        while not (tmp_path / "file.bin.part").exists() or not server.asked:
            time.sleep(0.01)
        with pytest.raises(LockedError, match="another process is writing"):
            fetched(server, tmp_path)
        first.join()
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_a_damaged_part_is_not_taken_for_the_file(tmp_path):
    (tmp_path / "file.bin.part").write_bytes(bytes(1000))
    with serving(CONTENT) as server:
        with pytest.raises(CorruptError, match="another file"):
            fetched(server, tmp_path)
        assert names_in(tmp_path) == []
        assert fetched(server, tmp_path).read_bytes() == CONTENT


def test_half_a_file_under_the_final_name_is_replaced(tmp_path):
    (tmp_path / "file.bin").write_bytes(CONTENT[:1000])
    with serving(CONTENT) as server:
        assert fetched(server, tmp_path).read_bytes() == CONTENT


def test_a_part_that_is_longer_than_the_file_is_thrown_away(tmp_path):
    (tmp_path / "file.bin.part").write_bytes(CONTENT + b"more")
    with serving(CONTENT) as server:
        assert fetched(server, tmp_path).read_bytes() == CONTENT


def test_a_disk_that_is_full_is_told_and_what_came_is_kept(tmp_path):
    code = (
        "import resource, sys; from pathlib import Path; sys.path.insert(0, sys.argv[3]);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20));"
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "from data.test_download import fetched;"
        "fetched(sys.argv[1], Path(sys.argv[2]))"
    )
    tests = os.path.dirname(os.path.dirname(__file__))  # noqa: PTH120
    with serving(CONTENT) as server:
        done = subprocess.run(
            [sys.executable, "-c", code, server.url, str(tmp_path), tests],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert "StorageError: cannot write" in done.stderr, done.stderr
        assert "ulimit -f" in done.stderr
        assert 0 < (tmp_path / "file.bin.part").stat().st_size <= 2**20
        assert fetched(server, tmp_path).read_bytes() == CONTENT
        assert "Range" in server.asked[-1]


def test_a_disk_without_room_is_told_before_anything_comes(tmp_path):
    with serving(CONTENT) as server, pytest.raises(StorageError, match="not enough space"):
        download(
            RemoteFile(url=server.url, name="x", size_bytes=10**18, sha256="", otherwise=""),
            tmp_path,
            progress=no_progress,
        )
    assert server.asked == []
    assert names_in(tmp_path) == []
