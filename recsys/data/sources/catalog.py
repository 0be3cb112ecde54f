"""Catalog of data sets with names: one is in the package, the others are downloaded once.

`RECSYS_CACHE` sets the folder of the downloads, `RECSYS_DOWNLOADS` the URL of a mirror.
"""

import logging
import os
from pathlib import Path

from recsys.errors import InputError
from recsys.storage.files import write_atomically

EMBEDDED = "ml-latest-small"

CATALOG = {
    "ml-100k": "0e33842e24a9c977be4e0107933c0723",
    "ml-1m": "c4d9eecfca2ab87c1945afe126590906",
    "ml-10m": "ce571fd55effeba0271552578f2648bd",
    "ml-20m": "cd245b17a1ae2cc31bb14903e1204af3",
    "ml-25m": "6b51fb2759a8657d3bfcbfc42b592ada",
    "ml-32m": "d472be332d4daa821edc399621853b57",
}
"""MD5 of the zip of each data set to download, as GroupLens publishes it."""

_DOWNLOADS = "https://files.grouplens.org/datasets/movielens"

_log = logging.getLogger(__name__)


def find_embedded() -> Path:
    """Return the folder of the packaged data: 671 users, 9,066 movies, 100,004 ratings."""
    return Path(__file__).parents[1] / EMBEDDED


def find_download(name: str) -> Path:
    """Return the zip of a data set in the user's cache; download it if it is missing.

    Raises:
        InputError: if the download fails or its checksum is wrong; no file is left behind.
    """
    import pooch

    cache = Path(os.environ.get("RECSYS_CACHE") or pooch.os_cache("recsys"))
    target = cache / f"{name}.zip"
    if target.exists():
        return target
    url = f"{os.environ.get('RECSYS_DOWNLOADS') or _DOWNLOADS}/{name}.zip"
    _log.info("Downloading %s to %s", url, target)
    with write_atomically(target) as temporary:
        problem = _download(url, temporary, CATALOG[name])
        if problem is not None:
            raise InputError(
                url,
                "must be downloadable",
                found=problem,
                remedy=f"Try again, or download {name}.zip by hand and pass its path as "
                "data.source.",
            )
    return target


def _download(url: str, target: Path, md5: str) -> str | None:
    """Download `url` to `target`. Return the problem, None if there is none."""
    import pooch
    import requests

    pooch.get_logger().setLevel(logging.WARNING)
    try:
        shows_bar = _log.isEnabledFor(logging.WARNING)  # not with -q
        pooch.HTTPDownloader(progressbar=shows_bar, timeout=30)(url, str(target), None)
    except requests.HTTPError as error:
        answer = error.response
        status = "an error" if answer is None else f"{answer.status_code} {answer.reason}"
        return f"the server answered {status}"
    except requests.exceptions.ChunkedEncodingError:
        return "the transfer was interrupted"
    except requests.RequestException as error:
        return f"there is no connection to the server ({type(error).__name__})"
    found = pooch.file_hash(str(target), alg="md5")
    return None if found == md5 else f"its MD5 is {found} where {md5} is expected"
