"""Databases by URL, such as postgresql://user@host/name: which ones there are, and whether one answers.

The ground floor. The record of a study and MLflow may each lie in one.
"""

DATABASES = ("postgresql", "mysql")
"""Those that many machines can share; SQLite, on a disk of the driver's machine, is what there is without a URL."""
_CONNECT_SECONDS = 5


def is_shared_database(url: str) -> bool:
    """Whether a URL names a database that many machines can share."""
    scheme, found, _ = url.partition("://")
    return bool(found) and scheme.partition("+")[0] in DATABASES


def knock(url: str) -> None:
    """Open a database once: those who use it would try for minutes.

    Raises:
        ConnectionError: if it does not answer or lets nobody in.
    """
    import sqlalchemy

    try:
        engine = sqlalchemy.create_engine(url, connect_args={"connect_timeout": _CONNECT_SECONDS})
        with engine.connect():
            pass
        engine.dispose()
    except ImportError as error:
        raise ConnectionError(f"{error}; PostgreSQL's driver comes with the extra postgresql") from None
    except (sqlalchemy.exc.SQLAlchemyError, ValueError) as error:
        raise ConnectionError(str(error).splitlines()[0]) from None
