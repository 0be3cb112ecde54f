"""Small YAML texts that would cost much time or memory: each is refused by a limit."""

import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from recsys.config.files import read_yaml
from recsys.config.yaml_text import MAX_CHARACTERS, MAX_LEVELS, MAX_VALUES, parse_yaml


def bomb(first: str, level: str, n_levels: int = 8) -> str:
    """Return a text whose levels each repeat the level below nine times.

    In `level`, `{0}` is the level's own anchor and `{1}` nine aliases of the level below.
    """
    lines = [f"a0: &a0 {first}"]
    for number in range(1, n_levels):
        lines.append(level.format(f"a{number}", ", ".join([f"*a{number - 1}"] * 9)))
    return "\n".join(lines)


LISTS = bomb("[1, 1, 1]", "{0}: &{0} [{1}]")
VALUES = f"must have at most {MAX_VALUES:,} names and values, but got more. Shorten it."
LEVELS = f"must have at most {MAX_LEVELS} levels of nesting, but got more. Shorten it."
CHARACTERS = f"must have at most {MAX_CHARACTERS:,} characters, but got more. Shorten it."

COSTLY = {
    "lists of lists": (LISTS, VALUES),
    "mappings of mappings": (bomb("{x: 1}", "{0}: &{0} {{x: [{1}]}}"), VALUES),
    "mappings that take others in": (bomb("{x: 1}", "{0}: &{0} {{<<: [{1}]}}"), VALUES),
    "a list as a name": (f"{LISTS}\n? *a7\n: 1", VALUES),
    "many values": (f"[{'1,' * MAX_VALUES}]", VALUES),
    "900 brackets": ("[" * 900 + "]" * 900, LEVELS),
    "100,000 brackets": ("[" * 100_000, LEVELS),
    "one level too many": ("[" * (MAX_LEVELS + 1) + "]" * (MAX_LEVELS + 1), LEVELS),
    "lists in lists by indentation": ("- " * 5_000, LEVELS),
    "a list that holds itself": ("a: &a [*a]", LEVELS),
    "a long text": (f"a: {'x' * MAX_CHARACTERS}", CHARACTERS),
}


@contextmanager
def memory_below(limit: int) -> Iterator[None]:
    """Fail if the block holds more bytes than this at a time."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", COSTLY)
def test_costly_texts_are_refused(name: str) -> None:
    text, expected = COSTLY[name]
    with memory_below(64 << 20), pytest.raises(ValueError, match="must have at most") as caught:
        parse_yaml(text, "c.yaml")
    assert str(caught.value) == f"c.yaml: {expected}"


def test_a_huge_file_is_read_up_to_the_limit_only(tmp_path: Path) -> None:
    with (tmp_path / "c.yaml").open("wb") as file:
        file.truncate(1 << 40)  # a sparse file takes no space on the disk
    with memory_below(64 << 20), pytest.raises(ValueError, match="must have at most") as caught:
        read_yaml(tmp_path / "c.yaml")
    assert str(caught.value) == f"{tmp_path / 'c.yaml'}: {CHARACTERS}"


def test_texts_within_the_limits() -> None:
    assert parse_yaml("a: &a {x: 1}\nb: {<<: *a, y: *a}", "") == {
        "a": {"x": 1},
        "b": {"x": 1, "y": {"x": 1}},
    }
    deep = parse_yaml("[" * MAX_LEVELS + "]" * MAX_LEVELS, "")
    for _ in range(MAX_LEVELS - 1):
        (deep,) = deep
    assert deep == []
    assert len(parse_yaml(f"[{'1,' * (MAX_VALUES - 1)}]", "")) == MAX_VALUES - 1
