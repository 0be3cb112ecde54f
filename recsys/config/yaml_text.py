"""Parser of YAML with limits: a small text must not cost much time or memory.

`files` reads config files with it.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, SequenceNode

from recsys.errors import InputError

MAX_CHARACTERS = 1 << 18
MAX_VALUES = 10_000
"""Maximum names and values of a text. Values that an alias repeats are counted each time."""
MAX_LEVELS = 20
_LEVELS = "levels of nesting"


def parse_yaml(text: str, place: str) -> Any:
    """Parse YAML 1.2, in which 1e-4 is a number and `no` is text.

    Args:
        text: the YAML.
        place: its origin, for errors.

    Raises:
        InputError: if the text is not YAML or has a tag that constructs an object, with the line;
            if it exceeds a limit of this module.
    """
    _require(len(text), MAX_CHARACTERS, "characters", place)
    # The scanner takes quadratic time in the depth of brackets. The count includes brackets in
    # strings and comments, hence the factor.
    _require(_open_brackets(text) // 5, MAX_LEVELS, _LEVELS, place)
    yaml = YAML(typ="safe", pure=True)
    with _explained(place):
        node = yaml.compose(text)
    if node is None:
        return None
    n_values, n_levels = _extent(node)
    _require(n_levels, MAX_LEVELS, _LEVELS, place)
    _require(n_values, MAX_VALUES, "names and values", place)
    with _explained(place):
        return yaml.constructor.construct_document(node)


@contextmanager
def _explained(place: str) -> Iterator[None]:
    """Raise errors of ruamel as an `InputError` with a place and a remedy."""
    try:
        yield
    except RecursionError:
        _require(MAX_LEVELS + 1, MAX_LEVELS, _LEVELS, place)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{place}, line {mark.line + 1}, column {mark.column + 1}" if mark else place
        problem = " ".join(str(error.problem or error.context).split())
        raise InputError(where, "must be valid YAML", problem, "Correct the line.") from None
    except (YAMLError, ValueError) as error:
        raise InputError(
            place, "must be valid YAML", " ".join(str(error).split()), "Correct it."
        ) from None


def _open_brackets(text: str) -> int:
    """Return the greatest depth of brackets."""
    n_open = most = 0
    for bracket in re.findall(r"[\[\]{}]", text):
        n_open = n_open + 1 if bracket in "[{" else max(0, n_open - 1)
        most = max(most, n_open)
    return most


def _extent(root: Node) -> tuple[int, int]:
    """Count the names and values of a tree, and its levels, until one count exceeds its limit."""
    n_values, n_levels, waiting = 1, 1, [(root, 1)]
    while waiting and n_values <= MAX_VALUES and n_levels <= MAX_LEVELS:
        node, level = waiting.pop()
        n_levels = max(n_levels, level)
        children: list[Node] = []
        if isinstance(node, SequenceNode):
            children = node.value
        elif isinstance(node, MappingNode):
            children = [child for pair in node.value for child in pair]
        n_values += len(children)
        waiting += [(child, level + 1) for child in children]
    return n_values, n_levels


def _require(number: int, limit: int, unit: str, place: str) -> None:
    if number > limit:
        raise InputError(
            place, f"must have at most {limit:,} {unit}", "more", "Shorten it."
        ) from None
