"""Passwords in URLs: kept aside for whoever connects, and taken out of whatever is shown, logged or written.

The ground floor. A config holds URLs without passwords; `with_password` returns them to the code that opens a connection in
this process. A URL without its password is still a URL: databases find it in places of their own, such as ~/.pgpass. Each URL is
parsed by the library that connects by it: SQLAlchemy for databases, `urllib` for all others.
"""

import json
import re
from collections.abc import Iterable
from urllib.parse import quote, quote_plus, unquote, unquote_plus, urlsplit

HIDDEN = "***"
_DATABASES = ("postgresql", "mysql", "mssql", "sqlite")
"""The schemes that Optuna and MLflow pass to SQLAlchemy."""
_SECRET_NAMES = ("password", "passwd", "pwd", "secret", "token", "key")
"""Parts of a query parameter's name that mark its value as a secret."""
_WORD_LENGTH = 8
"""Shorter passwords are hidden within URLs alone: elsewhere they could be a word of the message."""
_SCHEME = re.compile(r"[A-Za-z][\w+.-]*://")
_IN_TEXT = re.compile(_SCHEME.pattern + r"\S+")
_CLOSING = "\"'`.,;:)]}>"

_given: dict[str, str] = {}
"""The URLs of this process: without password -> as given."""
_hidden: dict[str, str] = {}
"""Pattern of a text that this process must not show -> the text to show in its place."""


def strip_password(url: str) -> str:
    """Return a URL without its password, which is kept for `with_password`; a path is returned as it is.

    Raises:
        ValueError: if it is unclear where user and password end.
    """
    try:
        shown, _ = _split(url, strict=True)
    except ValueError:
        raise ValueError(
            "must be a URL in which the special characters of user and password are escaped, but got "
            f"{_hide(url)}. Write @ as %40, : as %3A and / as %2F."
        ) from None
    if shown != url:
        _hide(url)
        _given[shown] = url
    return shown


def with_password(url: str) -> str:
    """Return the URL with its password if this process knows one, else the URL as it is."""
    return _given.get(url, url)


def hide_passwords_of(texts: Iterable[str]) -> None:
    """Hide, from now on, the password of the URL that each text ends with: a command's arguments, or an environment's values."""
    for text in texts:
        if (found := _SCHEME.search(text)) is not None:
            _hide(text[found.start() :])


def without_passwords(text: str) -> str:
    """Return the text without this process's known passwords and without those of any other URL in it."""
    for pattern in sorted(_hidden, key=len, reverse=True):  # a whole URL before its password
        text = re.sub(pattern, _hidden[pattern].replace("\\", r"\\"), text)
    return _IN_TEXT.sub(_without_password, text)


def _without_password(found: re.Match[str]) -> str:
    url = found[0].rstrip(_CLOSING)
    try:
        shown, _ = _split(url)
    except ValueError:
        shown = _scheme(url)
    return shown + found[0][len(url) :]


def _hide(url: str) -> str:
    """Note all that a message must not contain of a URL, and return the URL as it may be shown."""
    try:
        shown, secrets = _split(url, strict=True)
    except ValueError:
        shown, secrets = _scheme(url), set()
    if shown != url:
        for form in _forms(url):
            _hidden[re.escape(form)] = shown
    for form in {form for secret in secrets for form in _forms(secret)} - {""}:
        escaped = re.escape(form)
        _hidden[escaped if len(form) >= _WORD_LENGTH else f"(?<=:){escaped}(?=@)"] = HIDDEN
    return shown


def _forms(secret: str) -> set[str]:
    """A text as libraries write it: as it is, percent-encoded, in Python's quotes, in JSON."""
    encoded = {secret, quote(secret, safe=""), quote(secret, safe=" +"), quote_plus(secret)}
    return {form for text in encoded for form in (text, repr(text)[1:-1], json.dumps(text)[1:-1])}


def _scheme(url: str) -> str:
    return f"{url.partition('://')[0]}://{HIDDEN}"


def _split(url: str, *, strict: bool = False) -> tuple[str, set[str]]:
    """A URL without its secrets, and the secrets, as written and decoded.

    A secret is cut out of the text; then the library is asked whether the rest is the same URL without it.

    Args:
        url: a URL, or a path.
        strict: whether an @ in the path of a web address is refused, as it may end a password with a slash in it.

    Raises:
        ValueError: if the library can't parse the URL, or it is unclear where user and password end.
    """
    if _SCHEME.match(url) is None or not ("@" in url or "?" in url):
        return url, set()
    is_database = url.partition("://")[0].partition("+")[0].lower() in _DATABASES
    return _split_database(url) if is_database else _split_web(url, strict)


def _split_database(url: str) -> tuple[str, set[str]]:
    """As `_split`; the user stays."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        parsed = make_url(url)
        head, _, rest = url.partition("://")
        secrets = set()
        if parsed.password is not None:
            user, _, after = rest.partition(":")
            password, _, place = after.partition("@")
            secrets = {password, parsed.password}
            rest = f"{user}@{place}"
        before, _, query = rest.partition("?")
        kept, more = _cut_query(query)
        shown = f"{head}://{before}{'?' * bool(kept)}{kept}"
        same = make_url(shown)
    except ArgumentError as error:
        raise ValueError(str(error)) from None
    wanted = {name: value for name, value in parsed.query.items() if not _is_secret(name)}
    if same != parsed._replace(password=None, query=same.query) or dict(same.query) != wanted:
        raise ValueError("a password that can't be cut out")
    if parsed.get_backend_name() != "sqlite" and shown.count("@") > (parsed.username is not None):
        raise ValueError("more than one @")
    return shown, secrets | more


def _split_web(url: str, strict: bool) -> tuple[str, set[str]]:
    """As `_split`; the user goes as well, as it may be a token."""
    parsed = urlsplit(url)
    login, at, host = parsed.netloc.rpartition("@")
    kept, secrets = _cut_query(parsed.query)
    shown = url.replace(f"//{parsed.netloc}", f"//{host}", 1) if at else url
    if secrets:
        shown = shown.replace(f"?{parsed.query}", f"{'?' * bool(kept)}{kept}", 1)
    same = urlsplit(shown)
    if same != parsed._replace(netloc=host, query=kept) or (same.port, same.hostname) != (
        parsed.port,
        parsed.hostname,
    ):
        raise ValueError("a password that can't be cut out")
    if "@" in shown and parsed.netloc and (strict or at or shown.count("://") > 1):
        raise ValueError("more than one @")
    user, _, password = login.partition(":")
    secrets |= {password or user, unquote(password or user), login} if at else set()
    return shown, secrets


def _cut_query(query: str) -> tuple[str, set[str]]:
    """A query without its secret parameters, and their values, as written and decoded."""
    parts = query.split("&")
    secret = [part for part in parts if _is_secret(unquote_plus(part.partition("=")[0]))]
    values = {part.partition("=")[2] for part in secret}
    return "&".join(part for part in parts if part not in secret), values | {
        unquote_plus(value) for value in values
    }


def _is_secret(name: str) -> bool:
    return any(word in name.lower() for word in _SECRET_NAMES)
