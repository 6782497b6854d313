"""Where the Inception weights come from, and what is told when they do not come."""

from __future__ import annotations

import hashlib
import io
import pwd

import pytest
import torch

from diffcli.commands.inception_weights import PUBLISHED, cache_directory, find_inception
from diffcli.data.downloads.download import Patience
from diffcli.data.downloads.remote_file import RemoteFile
from diffcli.errors import CorruptError, MissingError, UsageError
from diffcli.records.datasets import PrepareListener
from http_server import Behaviour, serving
from inception_formula import formula_weights, weights_of_openai
from traps import TRAPS, Trap

QUICK = Patience(connect_seconds=2, silence_seconds=0.3, attempts=2, first_pause_seconds=0.01)


@pytest.fixture(autouse=True)
def nothing_of_this_machine(monkeypatch, tmp_path):
    monkeypatch.delenv("DIFFCLI_INCEPTION", raising=False)
    monkeypatch.setenv("DIFFCLI_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def content() -> bytes:
    """A file as pytorch-fid's was saved: before torch 1.6."""
    file = io.BytesIO()
    torch.save(formula_weights(trained_gamma=True), file, _use_new_zipfile_serialization=False)
    return file.getvalue()


def remote(url: str, content: bytes) -> RemoteFile:
    return RemoteFile(
        url=url,
        name=PUBLISHED.name,
        size_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        otherwise="",
    )


def test_what_is_published():
    # torch's convention: the name ends in the first digits of the hash
    assert PUBLISHED.name == f"pt_inception-2015-12-05-{PUBLISHED.sha256[:8]}.pth"
    assert PUBLISHED.url.startswith("https://")
    assert PUBLISHED.url.endswith(f"/{PUBLISHED.name}")


def test_they_are_fetched_once_and_verified(content, tmp_path):
    notices = []
    with serving(content, Behaviour(cut_after=10**6), Behaviour()) as server:
        published = remote(server.url, content)
        listener = PrepareListener(notice=notices.append)
        first = find_inception(None, listener=listener, published=published, patience=QUICK)
        assert len(server.asked) == 2
        assert "Range" in server.asked[1]
        again = find_inception(None, published=published, patience=QUICK)
        assert len(server.asked) == 2
    assert first.path == again.path == tmp_path / "cache" / PUBLISHED.name
    assert first.sha256 == published.sha256
    assert (first.layout, first.published) == ("pytorch-fid", True)
    assert "fetching the Inception weights (96 MB)" in notices[0]
    weights = formula_weights(trained_gamma=True)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in first.tensors.items())


def test_a_flag_comes_before_the_environment_and_that_before_the_cache(tmp_path, monkeypatch):
    flag, variable = tmp_path / "flag.pt", tmp_path / "variable.pth"
    monkeypatch.setenv("DIFFCLI_INCEPTION", str(variable))
    with serving(b"") as server:
        with pytest.raises(MissingError, match=r"variable\.pth") as caught:
            find_inception(None, published=remote(server.url, b"x"))
        assert caught.value.where == "DIFFCLI_INCEPTION"
        with pytest.raises(MissingError, match=r"flag\.pt") as caught:
            find_inception(flag, published=remote(server.url, b"x"))
        assert caught.value.where == "--weights"
        torch.save(weights_of_openai(), flag)
        found = find_inception(flag, published=remote(server.url, b"x"))
        assert server.asked == []
    assert (found.path, found.layout, found.published) == (flag, "openai", False)
    assert found.sha256 == hashlib.sha256(flag.read_bytes()).hexdigest()


def test_without_a_network_it_is_said_what_to_do(tmp_path):
    # a port that nobody listens on
    published = remote("http://127.0.0.1:9/weights.pth", b"x")
    with pytest.raises(MissingError) as caught:
        find_inception(None, published=published, patience=QUICK)
    told = str(caught.value)
    assert "http://127.0.0.1:9/weights.pth cannot be fetched" in told
    assert f"put it at {tmp_path / 'cache' / PUBLISHED.name}" in told
    assert "DIFFCLI_INCEPTION, or --weights of eval" in told
    assert "--features pixels needs no weights" in told


def test_another_file_at_the_url_is_refused(content):
    other = bytes(len(content))
    with serving(content) as server, pytest.raises(CorruptError, match="another file than the published"):
        find_inception(None, published=remote(server.url, other), patience=QUICK)


def test_what_was_damaged_in_the_cache_is_not_taken(tmp_path):
    path = tmp_path / "cache" / PUBLISHED.name
    path.parent.mkdir()
    path.write_bytes(bytes(1000))
    with serving(b"") as server:
        with pytest.raises(CorruptError, match="is not the published file") as caught:
            find_inception(None, published=remote(server.url, bytes(999) + b"1"), patience=QUICK)
        assert server.asked == []
    assert caught.value.where.startswith("its SHA-256 is 541b3e9d")
    assert "delete it" in caught.value.remedy


@pytest.mark.parametrize("trap", ["a.pt", "legacy.pt", "a.pkl"])
def test_weights_that_would_run_code_run_none(trap, tmp_path):
    (tmp_path / trap).write_bytes(TRAPS[trap](Trap(tmp_path / "canary")))
    with pytest.raises(CorruptError):
        find_inception(tmp_path / trap)
    assert not (tmp_path / "canary").exists()


def test_a_program_of_torchscript_is_refused(tmp_path):
    torch.jit.save(torch.jit.script(torch.nn.ReLU()), tmp_path / "program.pt")
    with pytest.raises(CorruptError, match="is a program of TorchScript, not weights"):
        find_inception(tmp_path / "program.pt")


def test_another_network_is_refused(tmp_path):
    torch.save({"input_blocks.0.0.weight": torch.zeros(3)}, tmp_path / "w.pt")
    with pytest.raises(CorruptError, match="no Inception network"):
        find_inception(tmp_path / "w.pt")


def test_the_cache_is_where_the_user_keeps_such_things(monkeypatch, tmp_path):
    assert cache_directory() == tmp_path / "cache"
    monkeypatch.delenv("DIFFCLI_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_directory() == tmp_path / "xdg" / "diffcli"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_directory() == tmp_path / ".cache" / "diffcli"


def test_a_user_without_a_home_is_told_of_the_variable(monkeypatch):
    for name in ("DIFFCLI_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    # as in a container whose user is a bare number
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)
    with pytest.raises(UsageError, match="this user has no home directory") as caught:
        find_inception(None)
    assert "set DIFFCLI_CACHE to a directory, or name the file with --weights" in caught.value.remedy
