"""Passwords in URLs: taken out of whatever is shown, logged or written.

The ground floor. A URL without its password is a URL still: databases find it in places of their own, such as ~/.pgpass.
"""

import re

_WEB = re.compile(r"\b(https?)://[^\s/?#\"'<>,]*@", re.IGNORECASE)
"""Of a web address the user goes too: it may be a token."""
_OTHER = re.compile(r"\b(?!https?:)([a-z][a-z0-9+.-]*)://([^\s/?#:@\"'<>]*):[^\s@\"'<>]*(?:@[^\s/?#@\"'<>]*)*@", re.IGNORECASE)
"""Of a database the user stays. A password may hold what should have been escaped."""
_QUERY = re.compile(r"([?&;][\w.-]*(?:password|passwd|pwd|secret|token|key)[\w.-]*=)[^&;#\s\"'<>]*", re.IGNORECASE)


def without_passwords(text: str) -> str:
    """The text with the password taken out of each URL in it."""
    return _QUERY.sub(r"\1", _OTHER.sub(r"\1://\2@", _WEB.sub(r"\1://", text)))
