import dataclasses
import importlib
import json
import math
import pkgutil
import re
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tdcompress import records
from tdcompress.codec import VERSION, UnknownKeyError, check_format, decode, decode_file, decode_json, encode
from tdcompress.errors import ArtifactError
from tdcompress.records.latency import RowLatency
from tdcompress.records.report import Row


@dataclass(frozen=True, kw_only=True)
class Inner:
    x: float
    kind: Literal["a", "b"] = "a"


@dataclass(frozen=True, kw_only=True)
class Outer:
    n: int
    inner: Inner
    many: tuple[Inner, ...] = ()
    pair: tuple[int, str] | None = None
    table: dict[str, tuple[float, ...]] = dataclasses.field(default_factory=dict)
    either: int | str = 0
    free: Any = None

    def __post_init__(self) -> None:
        if self.n < 0:
            raise ValueError(f"n: {self.n} is out of range")


finite = st.floats(allow_nan=False, allow_infinity=False)
inners = st.builds(Inner, x=finite, kind=st.sampled_from(["a", "b"]))
outers = st.builds(
    Outer,
    n=st.integers(0, 10**30),
    inner=inners,
    many=st.lists(inners, max_size=3).map(tuple),
    pair=st.none() | st.tuples(st.integers(), st.text()),
    table=st.dictionaries(st.text(), st.lists(finite, max_size=3).map(tuple), max_size=3),
    either=st.integers() | st.text(),
    free=st.none() | st.booleans() | st.text(),
)


@given(outers)
def test_a_record_survives_json(record):
    assert decode(Outer, json.loads(json.dumps(encode(record), allow_nan=False))) == record


def test_a_value_that_fits_none_of_several_types_is_refused_with_its_place_said_once():
    with pytest.raises(ValueError, match=r"^either: int needed, not 0\.5; or str needed, not 0\.5$"):
        decode(Outer, {"n": 1, "inner": {"x": 0.5}, "either": 0.5})


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"inner": {"x": 1.0}}, "n: missing"),
        ({"n": 1}, "inner: missing"),
        ({"n": 1, "inner": {}}, "inner.x: missing"),
        ({"n": "1", "inner": {"x": 1.0}}, "n: int needed, not '1'"),
        ({"n": True, "inner": {"x": 1.0}}, "n: int needed, not True"),
        ({"n": 1, "inner": {"x": True}}, "inner.x: float needed, not True"),
        ({"n": 1, "inner": {"x": math.nan}}, "inner.x: nan is not a finite number"),
        ({"n": 1, "inner": {"x": 10**400}}, "inner.x: "),
        ({"n": 1, "inner": {"x": 1.0, "kind": "c"}}, "inner.kind: 'c' is none of 'a', 'b'"),
        ({"n": 1, "inner": {"x": 1.0}, "many": [{"x": 1.0}, {"x": "y"}]}, "many[1].x: float needed"),
        ({"n": 1, "inner": {"x": 1.0}, "many": {}}, "many: a list is needed"),
        ({"n": 1, "inner": {"x": 1.0}, "pair": [1]}, "pair: 2 values are needed, not 1"),
        ({"n": 1, "inner": {"x": 1.0}, "table": []}, "table: a table is needed"),
        ({"n": 1, "inner": {"x": 1.0}, "table": {"k": ["v"]}}, "table.k[0]: float needed"),
        ({"n": 1, "inner": {"x": 1.0}, "either": 1.5}, "either: "),
        ({"n": 1, "inner": 3}, "inner: a table is needed"),
        ({"n": -1, "inner": {"x": 1.0}}, "n: -1 is out of range"),
        ([], ": a table is needed"),
    ],
)
def test_a_wrong_value_says_where(value, said):
    with pytest.raises(ValueError, match=f"^{re.escape(said)}"):
        decode(Outer, value)


def test_an_unknown_field_carries_its_path_and_the_known_ones():
    with pytest.raises(UnknownKeyError) as caught:
        decode(Outer, {"n": 1, "inner": {"x": 1.0, "y": 2}}, "top")
    assert caught.value.path == "top.inner.y"
    assert caught.value.known == ("x", "kind")


def test_ints_are_read_as_floats_where_a_float_is_meant():
    assert decode(Inner, {"x": 3}) == Inner(x=3.0)
    assert type(decode(Inner, {"x": 3}).x) is float


@pytest.mark.parametrize("value", [math.nan, math.inf, object(), {"a": -math.inf}, [b"x"], {1, 2}])
def test_what_json_has_no_word_for_is_refused(value):
    with pytest.raises(TypeError, match="cannot be written as JSON"):
        encode(value)


def test_every_record_is_frozen_and_keyword_only():
    modules = [importlib.import_module(f"tdcompress.records.{module.name}") for module in pkgutil.iter_modules(records.__path__)]
    found = (kind for module in modules for kind in vars(module).values())
    kinds = [kind for kind in found if isinstance(kind, type) and dataclasses.is_dataclass(kind)]
    assert {"Row", "Report", "TrainRecord"} <= {kind.__name__ for kind in kinds}
    for kind in kinds:
        assert kind.__dataclass_params__.frozen
        assert all(field.kw_only for field in dataclasses.fields(kind))


def test_a_row_has_every_field_that_readers_of_report_json_rely_on():
    row = {field.name for field in dataclasses.fields(Row)}
    assert row >= {
        "id", "method", "options", "granularity", "fraction", "keep_per_filter", "scope", "seed", "accuracy_masked",
        "accuracy_shrunk", "accuracy_stored", "accuracy_onnx", "parameters_total", "parameters_nonzero", "sparsity_prunable",
        "sparsity_model", "onnx_bytes", "dense_onnx_bytes", "onnx_file", "latency",
    }  # fmt: skip
    latency = {field.name for field in dataclasses.fields(RowLatency)}
    assert latency >= {
        "host", "backend", "provider", "threads", "batch", "p50_ns", "ratio_to_dense", "ratio_low", "ratio_high", "claim",
    }  # fmt: skip


def test_a_field_of_older_versions_is_passed_over_and_any_other_unknown_one_is_not():
    @dataclass(frozen=True, kw_only=True)
    class Slimmer(Inner):
        RETIRED: ClassVar[frozenset[str]] = frozenset({"old"})

    assert decode(Slimmer, {"x": 1.0, "old": [True]}) == Slimmer(x=1.0)
    with pytest.raises(UnknownKeyError, match="older: unknown key"):
        decode(Slimmer, {"x": 1.0, "older": True})
    assert {"selectable"} == Row.RETIRED


@dataclass(frozen=True, kw_only=True)
class Stamped:
    schema: int = field(default=3, metadata=VERSION)
    inner: Inner


def test_the_version_of_a_file_has_to_be_there_and_is_looked_at_first():
    stamped = Stamped(inner=Inner(x=1.0))
    assert decode_json(Stamped, json.dumps(encode(stamped))) == stamped
    for values, said in (
        ({"inner": {"x": 1.0}}, "names no schema"),
        ({"schema": 4, "new": 1}, "schema 4, this version reads 3"),
        ({"schema": 3.0, "inner": {"x": 1.0}}, "schema 3.0, this version reads 3"),
        ({"schema": True}, "schema True, this version reads 3"),
        ({"schema": None}, "schema None, this version reads 3"),
    ):
        with pytest.raises(ValueError, match=said):
            decode_json(Stamped, json.dumps(values), "file")
    with pytest.raises(ValueError, match=r"schema '1+\.\.\., this"):
        check_format({"schema": "1" * 5000}, "schema", 3)
    for values in ([], None, "schema"):
        with pytest.raises(ValueError, match="names no schema"):
            check_format(values, "schema", 3)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, r"inner\.json: is missing; run the recipe again"),
        (b"{", "damaged, or of another version"),
        (b"\xff\xff", "damaged, or of another version"),
        (b"\xff\xff", "not UTF-8 text"),
        (b"[" * 200_000, "nested too deeply"),
        (b'{"x": ' * 200_000, "nested too deeply"),
        (b'{"x": ' + b"[" * 900 + b"]" * 900 + b"}", "inner.x: float needed|nested too deeply"),
        (b"1" * 5000, "inner: a table is needed|digits"),
        (b'{"x": "one"}', "inner.x: float needed"),
    ],
)
def test_a_file_that_is_no_record_is_told_by_its_name(tmp_path, content, said):
    path = tmp_path / "inner.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ArtifactError, match=said) as caught:
        decode_file(Inner, path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    path.write_text('{"x": 1}')
    assert decode_file(Inner, path) == Inner(x=1.0)


def test_a_folder_in_place_of_a_record_is_told(tmp_path):
    with pytest.raises(ArtifactError, match=r"Is a directory|Permission denied"):
        decode_file(Inner, tmp_path)


def test_a_list_is_read_as_a_list():
    assert decode(list[dict[str, Any]], [{"a": 1}, {}]) == [{"a": 1}, {}]
    assert decode(list[int], []) == []
    with pytest.raises(ValueError, match=r"x\[1\]: int needed, not 'b'"):
        decode(list[int], [1, "b"], "x")
    with pytest.raises(ValueError, match="x: a list is needed"):
        decode(list[int], {"a": 1}, "x")


@pytest.mark.parametrize(
    ("kind", "value", "said"),
    [
        (tuple[str, ...], "engine", """a list is needed, not 'engine'; write bench.backend = ["engine"]"""),
        (list[int], 3, "a list is needed, not 3; write bench.backend = [3]"),
        (tuple[float, ...], 3, "a list is needed, not 3; write bench.backend = [3]"),
        (tuple[int, ...], "x", "a list is needed, not 'x'"),  # not an entry either
        (tuple[float, float], 3.0, "a list is needed, not 3.0"),
    ],
)
def test_a_single_value_is_shown_as_the_list_that_is_needed(kind, value, said):
    with pytest.raises(ValueError, match=f"^{re.escape(f'bench.backend: {said}')}$"):
        decode(kind, value, "bench.backend")
