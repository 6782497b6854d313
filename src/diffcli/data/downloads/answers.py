"""What a server's answer means for a download: go on, try again, start anew, or give up with clear words."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from urllib.parse import urlsplit

import requests
import urllib3

from diffcli.errors import CorruptError, DiffcliError, MissingError, StorageError, UsageError

_GONE = (404, 410)
_WANTS_LOGIN = (401, 402, 403, 407, 451)
_PASSING = (408, 425, 429, 500, 502, 503, 504)
_WHOLE, _PART, _NO_SUCH_RANGE = 200, 206, 416
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-\d+/(?P<total>\d+|\*)")
_NO_RANGE_HERE = re.compile(r"bytes \*/(?P<total>\d+|\*)")
# more are no size of a file, and may be more than int() takes
_DIGITS = 18


class CutError(Exception):
    """An attempt that ended early; another may bring more. kind: the error if none does."""

    def __init__(self, reason: str, *, kind: type[DiffcliError] = StorageError) -> None:
        super().__init__(reason)
        self.reason = reason
        self.kind = kind


class RestartError(Exception):
    """The server has no continuation of what is there."""


def check_answer(answer: requests.Response, *, start: int, size_bytes: int, otherwise: str) -> None:
    """Return when the body is the file from `start` (206) or from its beginning (200).

    Errors: CutError, RestartError, MissingError, CorruptError.
    """
    status = answer.status_code
    if status in _PASSING:
        raise CutError(f"the server answers {_status_text(answer)}")
    if status == _NO_SUCH_RANGE and start:
        _check_total(answer, _NO_RANGE_HERE, size_bytes, otherwise)
        raise RestartError
    if status in _GONE:
        raise _dead(answer, "the link is dead", otherwise)
    if status in _WANTS_LOGIN:
        raise _dead(answer, "the server wants a login, or keeps the file to itself", otherwise)
    if status not in (_WHOLE, _PART):
        raise _dead(answer, "the server does not give the file", otherwise)
    if "html" in answer.headers.get("Content-Type", ""):
        raise MissingError(
            f"{_place(answer)} is a web page, not the file",
            where="the link may be dead, or the server may want a login first",
            remedy=otherwise,
        )
    if status == _PART:
        _check_range(answer, start, size_bytes, otherwise)
    else:
        _check_length(answer, size_bytes, otherwise)


@contextlib.contextmanager
def cuts_told(url: str) -> Iterator[None]:
    """Turn what requests and urllib3 raise into CutError, or an error when no other attempt can help."""
    host = urlsplit(url).hostname or url
    try:
        yield
    except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema) as error:
        if _is_of_the_proxy(error):
            raise _unusable_proxy(url, error) from error
        raise UsageError(f"{host} is no address of a server", where="--url", remedy=str(error)) from error
    except requests.exceptions.TooManyRedirects as error:
        raise MissingError(f"{host} sends from place to place without end") from error
    except requests.exceptions.SSLError as error:
        raise CutError(f"no safe connection to {host}: {_innermost(error)}", kind=MissingError) from error
    except requests.exceptions.ProxyError as error:
        raise CutError(
            f"the proxy does not connect to {host}: {_innermost(error)}", kind=MissingError
        ) from error
    except (requests.exceptions.Timeout, urllib3.exceptions.TimeoutError) as error:
        raise CutError(f"{host} is silent") from error
    except requests.exceptions.ConnectionError as error:
        raise CutError(f"{host} cannot be reached: {_innermost(error)}", kind=MissingError) from error
    except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError) as error:
        raise CutError(f"{host} cut the connection") from error


def _check_range(answer: requests.Response, start: int, size_bytes: int, otherwise: str) -> None:
    _check_total(answer, _CONTENT_RANGE, size_bytes, otherwise)
    found = _CONTENT_RANGE.match(answer.headers.get("Content-Range", ""))
    if found is not None and int(found[1]) == start:
        return
    if not start:
        # asking for the beginning once more would bring the same
        raise CutError("the server sends a part of the file where all of it was asked for")
    raise RestartError


def _check_total(
    answer: requests.Response, pattern: re.Pattern[str], size_bytes: int, otherwise: str
) -> None:
    """CorruptError when the range of an answer says that the whole has another size."""
    found = pattern.match(answer.headers.get("Content-Range", ""))
    if found is not None and found["total"] not in ("*", str(size_bytes)):
        raise _other_file(answer, found["total"], size_bytes, otherwise)


def _check_length(answer: requests.Response, size_bytes: int, otherwise: str) -> None:
    claimed = answer.headers.get("Content-Length", "")
    if claimed.isdecimal() and int(claimed[:_DIGITS]) != size_bytes:
        raise _other_file(answer, claimed, size_bytes, otherwise)


def _other_file(answer: requests.Response, claimed: str, size_bytes: int, otherwise: str) -> CorruptError:
    return CorruptError(
        f"{_place(answer)} is another file than the published one",
        where=f"it has {int(claimed[:_DIGITS]):,} bytes, the published one {size_bytes:,}",
        remedy=otherwise,
    )


def _is_of_the_proxy(error: requests.exceptions.RequestException) -> bool:
    # the address was parsed before; what is parsed while the connection is made is that of a proxy
    cause = error.args[0] if error.args else None
    return (
        isinstance(error, requests.exceptions.InvalidProxyURL)
        or isinstance(cause, urllib3.exceptions.LocationValueError)
        or "SOCKS" in str(error)
    )


def _unusable_proxy(url: str, error: requests.exceptions.RequestException) -> UsageError:
    scheme = urlsplit(url).scheme
    names = (f"{scheme}_proxy", f"{scheme}_proxy".upper(), "all_proxy", "ALL_PROXY")
    name = next((name for name in names if os.environ.get(name)), names[0])
    socks = "SOCKS" in str(error)
    return UsageError(
        "the proxy of the environment cannot be used",
        where=f"{name} names a SOCKS proxy" if socks else f"{name} holds no address of a proxy",
        remedy=f"pip install 'requests[socks]', or set {name} to an HTTP proxy"
        if socks
        else f"set {name} to an address such as http://proxy:8080, or unset it",
    )


def _dead(answer: requests.Response, meaning: str, otherwise: str) -> MissingError:
    return MissingError(
        f"{_place(answer)}: {meaning}", where=f"it answers {_status_text(answer)}", remedy=otherwise
    )


def _status_text(answer: requests.Response) -> str:
    return f"{answer.status_code} {answer.reason or ''}".strip()


def _place(answer: requests.Response) -> str:
    """Where the last redirect led."""
    parts = urlsplit(answer.url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _innermost(error: BaseException) -> str:
    """What the system said, below the layers of libraries."""
    seen: BaseException = error
    while True:
        inner = getattr(seen, "reason", None)
        if not isinstance(inner, BaseException):
            inner = seen.__cause__ or next(
                (part for part in seen.args if isinstance(part, BaseException)), None
            )
        if inner is None:
            break
        seen = inner
    if isinstance(seen, OSError) and seen.strerror:
        return seen.strerror.lower()
    return str(seen).rpartition(": ")[2][:100] or type(seen).__name__
