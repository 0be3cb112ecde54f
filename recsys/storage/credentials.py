"""Passwords in URLs: stored for connections, and hidden in all that is printed, logged or written.

A config holds URLs without passwords. Code that opens a connection calls `with_password`, which
knows the passwords that this process was given. A URL without its password still works where a
database finds the password elsewhere, such as in ~/.pgpass. Each URL is parsed by the library that
connects with it: SQLAlchemy for databases, `urllib` for others.
"""

import json
import re
from collections.abc import Iterable
from urllib.parse import quote, quote_plus, unquote, unquote_plus, urlsplit

from recsys.errors import InputError

HIDDEN = "***"
_DATABASES = ("postgresql", "mysql", "mssql", "sqlite")
"""Schemes that Optuna and MLflow pass to SQLAlchemy."""
_SECRET_NAMES = ("password", "passwd", "pwd", "secret", "token", "key")
"""Words in a query parameter's name that mark its value as a secret."""
_MIN_LENGTH = 8
"""Length of the shortest password that is hidden everywhere. A shorter one may be a common
word, and is hidden in URLs only."""
_SCHEME = re.compile(r"[A-Za-z][\w+.-]*://")
_IN_TEXT = re.compile(_SCHEME.pattern + r"\S+")
_CLOSING_CHARACTERS = "\"'`.,;:)]}>"

_full_urls: dict[str, str] = {}
"""URL without its password -> the URL with it, for the URLs that this process was given."""
_replacements: dict[str, str] = {}
"""Pattern of a text to hide -> the text to show instead."""


def strip_password(url: str) -> str:
    """Return a URL without its password, which is stored for `with_password`.

    Args:
        url: a URL, or a path, which is returned unchanged.

    Raises:
        InputError: without a place, if it is unclear where user and password end.
    """
    try:
        shown, _ = _split(url, strict=True)
    except ValueError:
        line = (
            "must be a URL in which the special characters of user and password are escaped, "
            f"but got {_hide(url)}. Write @ as %40, : as %3A and / as %2F."
        )
        raise InputError.listing("", [line]) from None
    if shown != url:
        _hide(url)
        _full_urls[shown] = url
    return shown


def with_password(url: str) -> str:
    """Return the URL with its password if this process knows one, else the URL unchanged."""
    return _full_urls.get(url, url)


def hide_passwords_of(texts: Iterable[str]) -> None:
    """Hide the password of the URL at the end of each text from now on.

    Args:
        texts: arguments of a command, or values of environment variables.
    """
    for text in texts:
        if (found := _SCHEME.search(text)) is not None:
            _hide(text[found.start() :])


def without_passwords(text: str) -> str:
    """Return the text without passwords: those known to this process, and those in its URLs."""
    for pattern in sorted(_replacements, key=len, reverse=True):  # URLs before passwords
        text = re.sub(pattern, _replacements[pattern].replace("\\", r"\\"), text)
    return _IN_TEXT.sub(_without_password, text)


def _without_password(match: re.Match[str]) -> str:
    url = match[0].rstrip(_CLOSING_CHARACTERS)
    try:
        shown, _ = _split(url)
    except ValueError:
        shown = _scheme_only(url)
    return shown + match[0][len(url) :]


def _hide(url: str) -> str:
    """Hide a URL's password from now on, and return the URL without it."""
    try:
        shown, secrets = _split(url, strict=True)
    except ValueError:
        shown, secrets = _scheme_only(url), set()
    if shown != url:
        for form in _forms(url):
            _replacements[re.escape(form)] = shown
    for form in {form for secret in secrets for form in _forms(secret)} - {""}:
        escaped = re.escape(form)
        _replacements[escaped if len(form) >= _MIN_LENGTH else f"(?<=:){escaped}(?=@)"] = HIDDEN
    return shown


def _forms(secret: str) -> set[str]:
    """Return a secret as libraries may print it: percent-encoded, quoted or in JSON."""
    encoded = {secret, quote(secret, safe=""), quote(secret, safe=" +"), quote_plus(secret)}
    return {form for text in encoded for form in (text, repr(text)[1:-1], json.dumps(text)[1:-1])}


def _scheme_only(url: str) -> str:
    return f"{url.partition('://')[0]}://{HIDDEN}"


def _split(url: str, *, strict: bool = False) -> tuple[str, set[str]]:
    """Return a URL without its secrets, and the secrets, both as written and decoded.

    Each secret is cut out of the text. The library then parses the rest, which must be the same URL
    without the secrets.

    Args:
        url: a URL, or a path.
        strict: refuse an @ in the path of a web address: the @ may end a password with a slash.

    Raises:
        ValueError: if the library can't parse the URL, or it is unclear where user and password
            end.
    """
    if _SCHEME.match(url) is None or not ("@" in url or "?" in url):
        return url, set()
    is_database = url.partition("://")[0].partition("+")[0].lower() in _DATABASES
    return _split_database(url) if is_database else _split_web(url, strict)


def _split_database(url: str) -> tuple[str, set[str]]:
    """Split the URL of a database, which keeps its user (see `_split`)."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        parsed = make_url(url)
        head, _, rest = url.partition("://")
        secrets = set()
        if parsed.password is not None:
            user, _, after = rest.partition(":")
            password, _, address = after.partition("@")
            secrets = {password, parsed.password}
            rest = f"{user}@{address}"
        before, _, query = rest.partition("?")
        public_query, more = _cut_query(query)
        shown = f"{head}://{before}{'?' * bool(public_query)}{public_query}"
        reparsed = make_url(shown)
    except ArgumentError as error:
        raise ValueError(str(error)) from None
    wanted = {name: value for name, value in parsed.query.items() if not _is_secret(name)}
    expected = parsed._replace(password=None, query=reparsed.query)
    if reparsed != expected or dict(reparsed.query) != wanted:
        raise ValueError("a password that can't be cut out")
    if parsed.get_backend_name() != "sqlite" and shown.count("@") > (parsed.username is not None):
        raise ValueError("more than one @")
    return shown, secrets | more


def _split_web(url: str, strict: bool) -> tuple[str, set[str]]:
    """Split a web address, which loses its user too: it may be a token (see `_split`)."""
    parsed = urlsplit(url)
    login, at, host = parsed.netloc.rpartition("@")
    query, secrets = _cut_query(parsed.query)
    shown = url.replace(f"//{parsed.netloc}", f"//{host}", 1) if at else url
    if secrets:
        shown = shown.replace(f"?{parsed.query}", f"{'?' * bool(query)}{query}", 1)
    reparsed = urlsplit(shown)
    same_host = (reparsed.hostname, reparsed.port) == (parsed.hostname, parsed.port)
    if reparsed != parsed._replace(netloc=host, query=query) or not same_host:
        raise ValueError("a password that can't be cut out")
    if "@" in shown and parsed.netloc and (strict or at or shown.count("://") > 1):
        raise ValueError("more than one @")
    user, _, password = login.partition(":")
    secrets |= {password or user, unquote(password or user), login} if at else set()
    return shown, secrets


def _cut_query(query: str) -> tuple[str, set[str]]:
    """Return a query without its secret parameters, and their values as written and decoded."""
    parameters = query.split("&")
    secret = [text for text in parameters if _is_secret(unquote_plus(text.partition("=")[0]))]
    values = {text.partition("=")[2] for text in secret}
    public = "&".join(text for text in parameters if text not in secret)
    return public, values | {unquote_plus(value) for value in values}


def _is_secret(name: str) -> bool:
    return any(word in name.lower() for word in _SECRET_NAMES)
