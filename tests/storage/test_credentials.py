"""Passwords in URLs, with every character that is legal in them."""

import json
import subprocess
import sys
from collections.abc import Iterator
from urllib.parse import quote, unquote, urlsplit

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sqlalchemy.engine import URL, make_url

from recsys.storage import credentials
from recsys.storage.credentials import (
    hide_passwords_of,
    strip_password,
    with_password,
    without_passwords,
)


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    forget()
    yield
    forget()


def forget() -> None:
    """Make this a process that has seen no URL."""
    credentials._full_urls.clear()
    credentials._replacements.clear()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://search:pass@host:5432/runs", "postgresql://search@host:5432/runs"),
        ("postgresql+psycopg://search:p%40ss@host/runs?sslmode=require", "postgresql+psycopg://search@host/runs?sslmode=require"),
        ("postgresql://host/runs?user=search&password=pass&connect_timeout=3", "postgresql://host/runs?user=search&connect_timeout=3"),
        ("postgresql://search:it's@host/runs", "postgresql://search@host/runs"),
        ('postgresql://search:p"/#?%:ss@[::1]:5432/runs', "postgresql://search@[::1]:5432/runs"),
        ("mysql://:pass@/runs", "mysql://@/runs"),
        # the user of a web address may be a token
        ("http://search:it's@host:5000/runs", "http://host:5000/runs"),
        ("http://search:p@ss@[::1]:5000", "http://[::1]:5000"),
        ("https://token@host/runs?access_token=a&b=c#d", "https://host/runs?b=c#d"),
        # nothing to hide
        ("postgresql://search@host:5432/runs", "postgresql://search@host:5432/runs"),
        ("sqlite:////home/me/at@home.db", "sqlite:////home/me/at@home.db"),
        ("file:///home/me/at@home", "file:///home/me/at@home"),
        ("http://host:5000/runs", "http://host:5000/runs"),
    ],
)  # fmt: skip
def test_a_url_without_its_password(url: str, expected: str) -> None:
    message = f"connecting to {expected} failed: {expected!r}"
    assert without_passwords(f"connecting to {url} failed: '{url}'").replace('"', "'") == message
    assert strip_password(url) == expected
    assert with_password(expected) == url
    assert without_passwords(f"connecting to {url} failed: {url!r}").replace('"', "'") == message


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://search:p@ss@host/runs", "postgresql://***"),
        ("postgresql://search:pass@host/runs?options=@x", "postgresql://***"),
        ("postgresql://search:p@s/s@host/runs", "postgresql://***"),
        ("http://search:p/ss@host/runs", "http://***"),
        ("http://search:p?ss@host", "http://***"),
        ("http://search:p#ss@host", "http://***"),
        ("http://search:80/ss@host", "http://***"),
        ("http://search:[pass]@host", "http://***"),
    ],
)
def test_a_url_whose_password_has_no_clear_end_is_refused_and_not_shown(
    url: str, shown: str
) -> None:
    with pytest.raises(ValueError, match="must be a URL") as raised:
        strip_password(url)
    assert str(raised.value) == (
        "must be a URL in which the special characters of user and password are escaped, "
        f"but got {shown}. Write @ as %40, : as %3A and / as %2F."
    )
    assert without_passwords(f"--set tracking.uri={url}: no") == f"--set tracking.uri={shown}: no"


def test_text_without_a_password_is_unchanged() -> None:
    text = (
        "bob@home wrote http://host:5000/runs/me@home, s3://bucket/me@home and C:\\a@b; is a://b?"
    )
    assert without_passwords(text) == text
    assert strip_password("./me@home:x") == "./me@home:x"


def test_several_urls_in_one_text() -> None:
    text = '{"storage": "postgresql://a:1@h/d", "uri": "http://b:2@h", "mail": "c:3@h"}'
    assert (
        without_passwords(text)
        == '{"storage": "postgresql://a@h/d", "uri": "http://h", "mail": "c:3@h"}'
    )


def test_a_known_password_is_hidden_in_any_text() -> None:
    hide_passwords_of(
        [
            "--set=study.storage=mysql://u:one two three@h/d",
            "mysql://v:word@h/e",
            "no URL",
            "http://w:x y@h",
        ]
    )
    assert (
        without_passwords("connect('one two three'), one+two+three, one%20two%20three")
        == "connect('***'), ***, ***"
    )
    # A short one may be a word of the message.
    assert (
        without_passwords("a word of mysql+x://v:word@h/e, w:x y@h")
        == "a word of mysql+x://v@h/e, w:***@h"
    )


LEGAL = "!$&'()*+,;="
CHARACTERS = st.characters(codec="utf-8", exclude_categories=["Cs"])
HOSTS = ["host", "127.0.0.1", "::1", "a-b.example.com"]
MARK = "MARKED"


def written(text: str) -> Iterator[str]:
    """A message as programs write it."""
    yield from (
        text,
        f"cannot connect to {text}: no answer",
        f"got {text!r}.",
        json.dumps({"uri": text}),
        f"({text})",
    )


@given(
    st.text(CHARACTERS),
    st.text(CHARACTERS),
    st.sampled_from(HOSTS),
    st.sampled_from([None, 5432]),
    st.booleans(),
)
def test_databases_as_sqlalchemy_writes_them(
    user: str, password: str, host: str, port: int | None, in_query: bool
) -> None:
    forget()
    secret = f"{MARK}{password}{MARK}"
    if in_query:
        url = URL.create(
            "postgresql",
            host=host,
            port=port,
            database="d",
            query={"user": user or "u", "password": secret},
        )
    else:
        url = URL.create("postgresql", user, secret, host, port, "d")
    text = url.render_as_string(hide_password=False)
    assume(make_url(text) == url)  # SQLAlchemy itself does not read each of its URLs
    shown = strip_password(text)
    assert MARK not in shown
    left = make_url(shown)
    assert (left.username, left.host, left.port, left.database) == (url.username, host, port, "d")
    assert left.password is None
    assert "password" not in left.query
    assert with_password(shown) == text
    for message in written(text):
        assert MARK not in without_passwords(message)


@given(
    st.text(CHARACTERS, min_size=1), st.text(st.characters(codec="utf-8", exclude_characters="@"))
)
def test_databases_as_people_write_them(user: str, password: str) -> None:
    forget()
    text = f"postgresql://{quote(user, safe='')}:{MARK}{password}{MARK}@host/d"
    assert make_url(text).password == unquote(f"{MARK}{password}{MARK}")
    assert make_url(strip_password(text)) == URL.create("postgresql", user, None, "host", None, "d")
    for message in written(text):
        assert MARK not in without_passwords(message)


@given(
    st.text(CHARACTERS),
    st.text(CHARACTERS),
    st.sampled_from(HOSTS),
    st.sampled_from(["", ":80", ":80/x?y#z"]),
)
def test_web_addresses(user: str, password: str, host: str, rest: str) -> None:
    forget()
    # all characters that RFC 3986 permits in user and password without escapes
    login = f"{quote(user, safe=LEGAL)}:{quote(MARK + password + MARK, safe=LEGAL)}"
    place = f"{f'[{host}]' if ':' in host else host}{rest}"
    text = f"http://{login}@{place}"
    assert unquote(urlsplit(text).password or "") == f"{MARK}{password}{MARK}"
    for message in written(text):  # before the process knows the URL
        assert MARK not in without_passwords(message)
    assert strip_password(text) == f"http://{place}"
    assert with_password(f"http://{place}") == text
    for message in written(text):
        assert MARK not in without_passwords(message)


@given(
    st.text(CHARACTERS),
    st.sampled_from(["postgresql", "mysql+pymysql", "http", "https", "sqlite", "file", "s3"]),
)
def test_no_url_shows_the_text_before_an_at(password: str, scheme: str) -> None:
    forget()
    text = f"{scheme}://user:{MARK}{password}{MARK}@host/d"
    try:
        shown = strip_password(text)
    except ValueError as error:
        shown = str(error)
    assert MARK not in shown
    assert MARK not in without_passwords(f"got {text}.")


def test_neither_ps_nor_ray_sees_a_password_of_the_command_line() -> None:
    code = (
        "import ray._private.utils as utils, psutil\n"
        "from recsys.cluster import connection\n"
        "connection._hide_passwords_of_command_line()\n"
        "print(*psutil.Process().cmdline(), utils.get_entrypoint_name())\n"
    )
    argv = [
        sys.executable,
        "-c",
        code,
        "--set",
        "tracking.uri=http://bob:it's-a-M4RK@h:1",
        "--trials",
        "3",
    ]
    output = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=True).stdout
    assert "M4RK" not in output
    assert output.count("--set tracking.uri=http://h:1 --trials 3") == 2
