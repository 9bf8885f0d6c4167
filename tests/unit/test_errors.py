"""check and connect_error: OSErrors as asyncio's users expect them, with cause and cure."""

from __future__ import annotations

import errno

import pytest

from vppaio.vcl.errors import Unusable, check, connect_error


def test_good_results_pass():
    assert check(0, "listen") == 0
    assert check(7, "listen", "10.0.0.1:80") == 7


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (errno.ECONNRESET, ConnectionResetError),
        (errno.ECONNREFUSED, ConnectionRefusedError),
        (errno.EPIPE, BrokenPipeError),
        (errno.EACCES, PermissionError),
        (errno.ETIMEDOUT, TimeoutError),
        (errno.EADDRINUSE, OSError),
    ],
)
def test_negative_results_raise_their_subclass_and_name_call_and_detail(code, kind):
    with pytest.raises(kind) as caught:
        check(-code, "listen", "10.0.0.1:80")
    assert caught.value.errno == code
    assert "(listen 10.0.0.1:80)" in str(caught.value)


def test_no_detail_no_gap():
    with pytest.raises(OSError, match=r"\(epoll_create\)$"):
        check(-errno.EINVAL, "epoll_create")


def test_cure_depends_on_the_stack():
    with pytest.raises(OSError, match="VPP has no interface with that address"):
        check(-errno.EADDRNOTAVAIL, "listen", "192.0.2.1:80", stack="vpp")
    with pytest.raises(OSError, match="this stack has no interface") as caught:
        check(-errno.EADDRNOTAVAIL, "listen", "192.0.2.1:80", stack="host")
    assert "VPP" not in str(caught.value)
    with pytest.raises(OSError, match="heap_size"):
        check(-errno.ENOMEM, "session_create", stack="vpp")


def test_connect_error_keeps_what_vcl_knows():
    error = connect_error(errno.ECONNREFUSED, 0.1, ("10.0.0.1", 80))
    assert isinstance(error, ConnectionRefusedError)
    assert str(error) == f"[Errno {errno.ECONNREFUSED}] Connect call failed ('10.0.0.1', 80)"


@pytest.mark.parametrize(
    ("elapsed_s", "code"), [(0.0, errno.EHOSTUNREACH), (29, errno.EHOSTUNREACH), (66, errno.ETIMEDOUT)]
)
def test_connect_error_tells_silence_from_an_answer(elapsed_s, code):
    error = connect_error(errno.EFAULT, elapsed_s, ("10.0.0.1", 80))
    assert error.errno == code
    assert isinstance(error, TimeoutError) == (code == errno.ETIMEDOUT)
    assert "('10.0.0.1', 80)" in str(error)


def test_unusable_becomes_the_exception_for_users():
    assert isinstance(Unusable("x", errno.ENOENT, "gone", "get it").as_error(), FileNotFoundError)
    assert str(Unusable("x", errno.ENOENT, "gone", "get it").as_error()) == "[Errno 2] gone; get it"
    assert isinstance(Unusable("x", errno.EINVAL, "wrong", "correct it").as_error(), ValueError)
