import pytest

from recsys.credentials import without_passwords


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://search:pass@host:5432/runs", "postgresql://search@host:5432/runs"),
        ("postgresql+psycopg://search:p%40ss@host/runs?sslmode=require", "postgresql+psycopg://search@host/runs?sslmode=require"),
        ("postgresql://host/runs?user=search&password=pass&connect_timeout=3", "postgresql://host/runs?user=search&password=&connect_timeout=3"),
        # what should have been escaped
        ("postgresql://search:p@ss@host/runs", "postgresql://search@host/runs"),
        ("postgresql://search:p/ss@host/runs", "postgresql://search@host/runs"),
        ("mysql://search:p:ss@host/runs", "mysql://search@host/runs"),
        # the user of a web address may be a token
        ("http://search:pass@host:5000/runs", "http://host:5000/runs"),
        ("https://token@host/runs", "https://host/runs"),
        ("s3://key:sec/ret@bucket/prefix", "s3://key@bucket/prefix"),
        # nothing to hide
        ("postgresql://search@host:5432/runs", "postgresql://search@host:5432/runs"),
        ("sqlite:////home/me/at@home.db", "sqlite:////home/me/at@home.db"),
        ("http://host:5000/runs/me@home", "http://host:5000/runs/me@home"),
        ("s3://bucket/prefix/me@home", "s3://bucket/prefix/me@home"),
    ],
)  # fmt: skip
def test_a_url_without_its_password(url: str, expected: str) -> None:
    assert without_passwords(url) == expected
    assert without_passwords(f"connecting to {url} failed: {url!r}") == f"connecting to {expected} failed: {expected!r}"


def test_several_urls_in_one_line() -> None:
    text = '{"storage": "postgresql://a:1@h/d", "uri": "http://b:2@h", "mail": "c:3@h"}'
    assert without_passwords(text) == '{"storage": "postgresql://a@h/d", "uri": "http://h", "mail": "c:3@h"}'
