"""Times of every unit, width and form are compared exactly, from the file to the held-out item."""

import math
import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.config.sections import DataConfig
from recsys.data.preprocessing.buckets import read_bucket
from recsys.data.preprocessing.first_pass import merge, summarise
from recsys.data.preprocessing.second_pass import encode
from recsys.data.preprocessing.split_strategies import leave_one_out
from recsys.data.preprocessing.time_encoding import (
    TimeRange,
    choose_encoding,
    describe_times,
    range_of,
)
from recsys.data.processed import load
from recsys.data.readers.formats import list_fragments
from recsys.data.readers.times import Times, find_form, from_floats, from_integers, parse_times
from recsys.data.sources.files import DataFile
from recsys.data.sources.layouts import find_source
from recsys.data.splits import TEST
from tests.data.conftest import Prepare

INT64 = st.integers(-(2**63), 2**63 - 1)
# Numbers so large that neighbours are equal as floats of 64 bits.
LARGE = st.integers(0, 40).map(lambda step: 637_134_336_000_000_000 + step)
MOMENT = st.tuples(st.integers(-62_135_596_800, 253_402_300_799), st.integers(0, 999_999_999))
NEAR = st.tuples(st.sampled_from([-1, 0, 1_600_000_000]), st.integers(0, 3) | st.just(999_999_999))


def in_order(n: int, task: Callable[..., Any], *shared: Any) -> list[Any]:
    return [task(number, *shared) for number in range(n)]


def held_out(path: Path) -> list[int]:
    """Return the items of test and of validation, after both passes over a file of one user."""
    with tempfile.TemporaryDirectory() as folder:
        fragments = list_fragments(find_source(DataConfig(source=str(path))), None)
        summary = merge(summarise(fragment, None) for fragment in fragments)
        ids = summary.users[0], summary.items[0]
        encoding = choose_encoding(list(summary.time_ranges.values()))
        encode(
            in_order,
            fragments=fragments,
            threshold=None,
            ids=ids,
            encoding=encoding,
            work=Path(folder),
            n_buckets=1,
        )
        rows = read_bucket(Path(folder), 0, len(ids[1])).rows
    split = leave_one_out(rows.user, rows.positive, rows.time, rows.order)
    return [ids[1][rows.item[split == code][0]].as_py() for code in (TEST, TEST - 1)]


def last_two(times: Sequence[Any]) -> list[int]:
    return sorted(range(len(times)), key=lambda place: (times[place], place))[-1:-3:-1]


def check_csv(texts: Sequence[str], times: Sequence[Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.csv"
        path.write_text(
            "user,item,time\n" + "".join(f"1,{item},{text}\n" for item, text in enumerate(texts))
        )
        assert held_out(path) == last_two(times)


def check_parquet(column: pa.Array, times: Sequence[Any], **options: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.parquet"
        table = pa.table({"user": [1] * len(column), "item": range(len(column)), "time": column})
        pq.write_table(table, path, row_group_size=2, **options)
        assert held_out(path) == last_two(times)


def some(values: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(values, min_size=3, max_size=8)


@given(some(INT64) | some(LARGE))
def test_integers_order_as_they_are(times: list[int]) -> None:
    check_csv([str(time) for time in times], times)
    for column in (
        pa.array(times, pa.int64()),
        pa.array([str(time) for time in times]),
        pa.array(times, pa.decimal128(38, 0)),
    ):
        check_parquet(column, times)


@given(
    st.sampled_from(["int8", "int16", "int32", "uint8", "uint16", "uint32", "uint64"]), st.data()
)
def test_integers_of_every_width(kind: str, data: st.DataObject) -> None:
    bounds = np.iinfo(kind)
    times = data.draw(some(st.integers(int(bounds.min), min(int(bounds.max), 2**63 - 1))))
    check_parquet(pa.array(times, kind), times)


@given(some(st.floats(-1e15, 1e15) | st.floats(1.6e9, 1.6e9 + 1e-6)))
def test_floats_order_as_they_are(times: list[float]) -> None:
    check_csv([repr(time) for time in times], times)
    check_parquet(pa.array(times, pa.float64()), times)


@given(some(st.integers(-(2**53), 2**53) | st.integers(0, 9).map(lambda step: 1.6e9 + step / 8)))
def test_integers_among_floats(times: list[float]) -> None:
    # Each chunk is a line: a chunk with an integer does not see the fractions of the others.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("recsys.data.readers.text.CHUNK_BYTES", 8)
        check_csv([repr(time) for time in times], times)


def iso(moment: tuple[int, int], digits: int, zone: str) -> str:
    seconds, nanoseconds = moment
    date = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)).replace(tzinfo=None)
    fraction = f"{nanoseconds:09d}"[:digits]
    return f"{date.isoformat()}{'.' * (digits > 0)}{fraction}{zone}"


@given(
    some(st.tuples(MOMENT, st.integers(0, 7))) | some(st.tuples(NEAR, st.integers(0, 9))),
    st.sampled_from(["", "Z"]),
)
def test_iso_dates_of_any_number_of_digits(
    drawn: list[tuple[tuple[int, int], int]], zone: str
) -> None:
    texts = [iso(moment, digits, zone) for moment, digits in drawn]
    times = [
        (seconds, nanoseconds // 10 ** (9 - digits) * 10 ** (9 - digits))
        for (seconds, nanoseconds), digits in drawn
    ]
    check_csv(texts, times)
    check_parquet(pa.array(texts), times)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@given(some(MOMENT) | some(NEAR), st.sampled_from([None, "UTC", "Europe/Paris"]))
def test_timestamps_of_every_unit(
    unit: str, moments: list[tuple[int, int]], zone: str | None
) -> None:
    per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    ticks = [
        seconds * per_second + nanoseconds // (10**9 // per_second)
        for seconds, nanoseconds in moments
    ]
    ticks = [max(-(2**63), min(tick, 2**63 - 1)) for tick in ticks]
    check_parquet(pa.array(ticks, pa.timestamp(unit, zone)), ticks)


@given(some(MOMENT))
def test_int96_beyond_the_range_of_nanoseconds(moments: list[tuple[int, int]]) -> None:
    ticks = [seconds * 10**6 + nanoseconds // 1000 for seconds, nanoseconds in moments]
    check_parquet(pa.array(ticks, pa.timestamp("us")), ticks, use_deprecated_int96_timestamps=True)


@given(
    some(
        st.integers(0, 5).map(lambda step: 1_600_000_000_000_000_000 + step)
        | st.integers(-(2**62), 2**62)
    )
)
def test_int96_has_nanoseconds(ticks: list[int]) -> None:
    check_parquet(pa.array(ticks, pa.timestamp("ns")), ticks, use_deprecated_int96_timestamps=True)


def test_dates_and_categories_in_parquet() -> None:
    days = [18_000, 18_002, 18_001, -3]
    check_parquet(pa.array(days, pa.date32()), days)
    texts = ["2020-01-03", "2020-01-01T00:00:00.000000001", "2020-01-01", "2020-01-02"]
    check_parquet(pa.array(texts).dictionary_encode(), [3, 1.5, 1, 2])
    check_parquet(
        pa.array(["1.5", "1.25", "1.75"], pa.string()).cast(pa.decimal128(9, 2)), [1.5, 1.25, 1.75]
    )


@pytest.mark.parametrize(
    ("text", "form", "expected"),
    [
        (" 7 ", "number", Fraction(7)),
        ("-9223372036854775808", "number", Fraction(-(2**63))),
        ("637134336000000041.0", "number", Fraction(637134336000000041)),
        ("1.5e3", "number", Fraction(1500)),
        ("9223372036854775808", None, None),
        ("1e19", None, None),
        ("nan", None, None),
        ("2020-01-01", "date", Fraction(1_577_836_800)),
        ("2020-01-01 00:00:00.1", "date", Fraction(15_778_368_001, 10)),
        ("1969-12-31T23:59:59.9999999Z", "zoned date", Fraction(-1, 10**7)),
        (
            "9999-12-31T23:59:59.9999999+00:00",
            "zoned date",
            Fraction(253_402_300_800) - Fraction(1, 10**7),
        ),
        ("2020-01-01T02:00:00.000000001+02:00", "zoned date", 1_577_836_800 + Fraction(1, 10**9)),
        ("2020-01-01T00:00:00.1234567891", None, None),
        ("9999-12-31.5", None, None),
        ("9999-12-31T23:59.5", None, None),
        ("0001-13-01T00:00:00.5", None, None),
        ("yesterday", None, None),
        ("", None, None),
    ],
)
def test_one_time(text: str, form: Any, expected: Fraction | None) -> None:
    assert find_form(text) == form
    if form is None:
        return
    times = parse_times(pa.array([text]), form)
    assert times is not None
    fraction = 0.0 if times.fraction is None else float(times.fraction[0])
    assert (
        int(times.whole[0])
        + (Fraction(int(fraction), 10**9) if times.is_date else Fraction(fraction))
        == expected
    )


def ranges(*columns: Times | None) -> list[TimeRange]:
    return [
        range_of(DataFile(f"{name}.csv"), times)
        for name, times in zip("abc", columns, strict=False)
        if times is not None
    ]


def numbers(*values: int) -> Times | None:
    return from_integers(pa.array(values, pa.int64()))


def dates(*texts: str) -> Times | None:
    return parse_times(pa.array(texts), "date")


@pytest.mark.parametrize(
    ("per_second", "start", "unit"),
    [
        (1, 0, "seconds"),
        (10**3, 0, "milliseconds"),
        (10**6, 0, "microseconds"),
        (10**7, 621_355_968_000_000_000, ".NET ticks"),
        (10**9, 0, "nanoseconds"),
    ],
)
@pytest.mark.parametrize(
    ("second", "shown"),
    [(1_600_000_000, "2020-09-13 12:26:40"), (820_454_400, "1996-01-01 00:00:00")],
)
def test_the_unit_is_recognised(
    per_second: int, start: int, unit: str, second: int, shown: str
) -> None:
    found = ranges(numbers(start + second * per_second, start))
    assert describe_times(found) == f"times are {unit}, 1970-01-01 00:00:00 to {shown}"


def test_numbers_without_a_unit_and_dates() -> None:
    assert (
        describe_times(ranges(numbers(3, 20_200_101)))
        == "times are numbers of no known unit, 3 to 20200101"
    )
    assert (
        describe_times(ranges(from_floats(np.array([0.5, 2]))))
        == "times are numbers of no known unit, 0.5 to 2"
    )
    found = ranges(dates("2020-01-01", "2021-01-01T00:00:01.5"))
    assert describe_times(found) == "times are dates, 2020-01-01 00:00:00 to 2021-01-01 00:00:01"
    assert choose_encoding([]) is None


def test_floats_below_zero() -> None:
    times = [-math.inf, *sorted([-1e15, -1.5, -1.25, -1.0, -1e-300, -0.0, 1e-300, 0.5, 3.0, 1e15])][
        1:
    ]
    column = from_floats(np.array(times))
    assert column is not None
    encoding = choose_encoding(ranges(column))
    assert encoding is not None
    assert (np.diff(encoding.encode(column)) > 0).all()


SECONDS, MILLISECONDS = numbers(1_600_000_000), numbers(1_600_000_000_000)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            (SECONDS, numbers(7), MILLISECONDS),
            "c.csv: must have seconds as times like a.csv, but got milliseconds. Convert the "
            "times of one file.",
        ),
        (
            (SECONDS, dates("2020-01-01")),
            "b.csv: must have seconds as times like a.csv, but got dates. Convert the times of "
            "one file.",
        ),
        (
            (numbers(7), dates("2020-01-01")),
            "a.csv: must have dates as times like b.csv, but got numbers. Convert the times of "
            "one file.",
        ),
        (
            (from_floats(np.array([0.5])), numbers(2**53 + 1)),
            "b.csv: must have only whole numbers as times if they exceed 2^53, but some times "
            "have fractions. Round them.",
        ),
        (
            (dates("2020-01-01T00:00:00.123456789"), dates("9999-12-31")),
            "b.csv: must have times that fit into 64 bits with 9 digits of a second, but got "
            "9999-12-31 00:00:00 to "
            "9999-12-31 00:00:00. Correct or round the times.",
        ),
    ],
)
def test_unlike_times(columns: tuple[Times | None, ...], message: str) -> None:
    with pytest.raises(ValueError, match="must have") as caught:
        choose_encoding(ranges(*columns))
    assert str(caught.value) == message


def test_a_given_split_of_two_units(prepared: Prepare, tmp_path: Path) -> None:
    for name, unit in (("train", 1), ("test", 1000)):
        rows = "".join(
            f"{user},{user + step},{(1_600_000_000 + step) * unit}\n"
            for user in range(3)
            for step in range(3)
        )
        (tmp_path / f"{name}.csv").write_text("user,item,time\n" + rows)
    files = {"train": str(tmp_path / "train.csv"), "test": str(tmp_path / "test.csv")}
    with pytest.raises(
        ValueError,
        match=r"^test\.csv: must have seconds as times like train\.csv, but got milliseconds\.",
    ):
        prepared(None, {"data.files": files})


def test_a_file_without_times_among_others(prepared: Prepare, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    ids = {"user": [1, 1, 2], "item": [1, 2, 3]}
    pq.write_table(pa.table({**ids, "time": [1, 2, 3]}), tmp_path / "folder" / "a.parquet")
    pq.write_table(pa.table(ids), tmp_path / "folder" / "b.parquet")
    with pytest.raises(
        ValueError,
        match=r"^b\.parquet: must have times like a\.parquet, but has no column with times\. Name "
        r"it",
    ):
        prepared(tmp_path / "folder", {"data.split": "random"})


def test_ticks_in_all_splits(prepared: Prepare, tmp_path: Path) -> None:
    # 30 interactions one tick apart, in random order: as floats they would have four times.
    step = np.random.default_rng(0).permutation(30)
    rows = [f"{t % 3},{t},{637_134_336_000_000_000 + t}" for t in step]
    # The first pair has a duplicate one tick later with a low rating: the later one counts.
    text = (
        "user,item,time,rating\n"
        + "".join(f"{row},5\n" for row in rows)
        + "0,0,637134336000000031,1\n"
    )
    (tmp_path / "data.csv").write_text(text)
    processed = prepared(
        tmp_path / "data.csv", {"data.split": "temporal", "data.test_fraction": 0.2}
    )
    test = load(processed, "test", negatives=False).held_out
    assert test is not None
    assert sorted(test.item.tolist()) == [25, 26, 27, 28, 29]
    assert processed.manifest.notes == [
        "times are .NET ticks, 2020-01-01 00:00:00 to 2020-01-01 00:00:00"
    ]
