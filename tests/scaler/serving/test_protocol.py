"""The protocol as bytes: what is read, what is refused, and that nothing else ever comes out."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaler.serving.network import ServedNetwork, lay_out
from scaler.serving.protocol import infer_answer, most_body_bytes, parse_infer
from scaler.serving.requests import BadRequestError

MAX_BATCH = 3
DTYPES = ["bool", "int8", "uint8", "int16", "int32", "uint32", "int64", "uint64", "float32", "float64"]


def network(*inputs: tuple[str, str, tuple[int, ...]], batched: bool = True) -> ServedNetwork:
    placed, outputs, size = lay_out(list(inputs), [("y", "float32", (2,))])
    return ServedNetwork(Path("net.onnx"), batched, placed, outputs, size, 100.0)


TWO = network(("a", "float32", (2, 3)), ("b", "int64", (1,)))


def described(name: str, datatype: str, shape: list[int], **more: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, **more}


def binary(name: str, datatype: str, array: Any) -> dict[str, Any]:
    return described(name, datatype, list(array.shape), parameters={"binary_data_size": array.nbytes})


def request(inputs: list[Any], *values: Any, **more: Any) -> tuple[bytes, bytes]:
    head = json.dumps({"inputs": inputs, **more}).encode()
    return head + b"".join(one.tobytes() for one in values), str(len(head)).encode()


A, B = np.arange(12, dtype=np.float32).reshape(2, 2, 3), np.array([[7], [9]])
GOOD = request([binary("b", "INT64", B), binary("a", "FP32", A)], B, A)


class TestReading:
    def test_values_follow_in_the_order_of_the_request(self) -> None:
        call = parse_infer(*GOOD, TWO, MAX_BATCH)
        assert call.samples == 2
        assert [bytes(one) for one in call.values] == [A.tobytes(), B.tobytes()]
        assert [(tensor.name, wish) for tensor, wish in call.outputs] == [("y", False)]

    def test_json_and_binary_may_be_mixed(self) -> None:
        listed = [described("a", "FP32", [2, 2, 3], data=A.tolist()), binary("b", "INT64", B)]
        call = parse_infer(*request(listed, B), TWO, MAX_BATCH)
        assert [bytes(one) for one in call.values] == [A.tobytes(), B.tobytes()]

    @settings(deadline=None)
    @given(dtype=st.sampled_from(DTYPES), samples=st.integers(1, MAX_BATCH), seed=st.integers(0, 99))
    def test_json_says_the_same_as_binary(self, dtype: str, samples: int, seed: int) -> None:
        one = network(("x", dtype, (3,)))
        random = np.random.default_rng(seed)
        span = np.iinfo(dtype) if np.dtype(dtype).kind in "iu" else None
        values = random.normal(size=(samples, 3)) if span is None else random.integers(
            span.min, span.max, (samples, 3), dtype, endpoint=True
        )  # fmt: skip
        x = (values > 0) if dtype == "bool" else values.astype(dtype)
        datatype = one.inputs[0].datatype
        in_json = request([described("x", datatype, [samples, 3], data=x.ravel().tolist())])
        for body, length in (in_json, request([binary("x", datatype, x)], x)):
            (got,) = parse_infer(body, length, one, MAX_BATCH).values
            assert bytes(got) == x.tobytes()
            assert len(body) <= most_body_bytes(one, MAX_BATCH, binary=True)

    def test_timeout_and_id(self) -> None:
        body, length = request(
            [binary("b", "INT64", B), binary("a", "FP32", A)], B, A, id="q", parameters={"timeout": 2500}
        )
        call = parse_infer(body, length, TWO, MAX_BATCH)
        assert (call.id, call.timeout_s) == ("q", 0.0025)

    def test_a_network_without_a_batch_has_one_sample(self) -> None:
        one = network(("x", "float32", (2,)), batched=False)
        x = np.ones(2, np.float32)
        assert parse_infer(*request([binary("x", "FP32", x)], x), one, 1).samples == 1
        wrong = np.ones((1, 2), np.float32)
        with pytest.raises(BadRequestError, match="shape"):
            parse_infer(*request([binary("x", "FP32", wrong)], wrong), one, 1)


class TestRefusals:
    @pytest.mark.parametrize(
        ("words", "body", "length"),
        [
            ("no valid JSON", b"{", None),
            ("no JSON object", b"[]", None),
            ("inputs must be", b"{}", None),
            ("Content-Length is 'x'", GOOD[0], b"x"),
            ("Content-Length is '-1'", GOOD[0], b"-1"),
            ("Content-Length is 99999", GOOD[0], b"99999"),
            ("no valid JSON", GOOD[0], b"5"),
            ("ends after 40 of its 48", GOOD[0][:-8], GOOD[1]),
            ("3 bytes of the body", GOOD[0] + b"abc", GOOD[1]),
            ("given twice", *request([binary("a", "FP32", A)] * 2, A, A)),
            ("b is missing", *request([binary("a", "FP32", A)], A)),
            ("no input 7", *request([{**binary("a", "FP32", A), "name": 7}], A)),
            ("others have 2", *request([binary("a", "FP32", A), binary("b", "INT64", B[:1])], A, B[:1])),
            ("whole numbers", *request([described("a", "FP32", [True, 2, 3]), binary("b", "INT64", B)], B)),
            ("whole numbers", *request([described("a", "FP32", [2.0, 2, 3]), binary("b", "INT64", B)], B)),
            ("batch 4000000000", *request([described("a", "FP32", [4_000_000_000, 2, 3])])),
            ("batch -1", *request([described("a", "FP32", [-1, 2, 3])])),
        ],
    )
    def test_one_sentence_says_what_is_wrong(self, words: str, body: bytes, length: bytes | None) -> None:
        with pytest.raises(BadRequestError) as caught:
            parse_infer(body, length, TWO, MAX_BATCH)
        reason = caught.value.fault.reason
        # The first input is looked at first; a case may lack the second.
        assert words in reason or "is missing" in reason, reason
        assert "\n" not in reason
        assert len(reason) < 300

    @pytest.mark.parametrize(
        ("dtype", "data"),
        [
            ("int8", [1, 2, 300]), ("uint8", [1, 2, -3]), ("int32", [1, 2, 0.5]), ("float32", ["1"] * 3),
            ("float32", [1, 2]), ("float32", [[1], [2, 3]]), ("bool", [0, 1, 0]), ("float32", [None, 1, 2]),
            ("float32", {"a": 1}), ("int64", [1, 2, 1 << 70]), ("float32", [True, False, True]),
            ("uint64", [1, 2, 1 << 64]), ("float32", [1, 2, 1e300]),
        ],
    )  # fmt: skip
    def test_json_values_of_another_kind(self, dtype: str, data: Any) -> None:
        one = network(("x", dtype, (3,)))
        body, length = request([described("x", one.inputs[0].datatype, [1, 3], data=data)])
        with pytest.raises(BadRequestError):
            parse_infer(body, length, one, MAX_BATCH)

    def test_a_boolean_is_0_or_1(self) -> None:
        one, x = network(("x", "bool", (3,))), np.array([[0, 1, 2]], np.uint8)
        with pytest.raises(BadRequestError, match="neither 0 nor 1"):
            parse_infer(*request([binary("x", "BOOL", x)], x), one, MAX_BATCH)


KEYS = ["name", "shape", "datatype", "data", "parameters", "inputs", "outputs", "id"]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 5) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(
        ["name", "shape", "datatype", "data", "parameters", "binary_data_size", "inputs", "outputs", "id"]
    ), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


class TestFuzz:
    @settings(max_examples=200, deadline=None)
    @given(body=st.binary(max_size=200), length=st.none() | st.binary(max_size=4) | st.integers(0, 300))
    def test_any_bytes(self, body: bytes, length: Any) -> None:
        length = str(length).encode() if isinstance(length, int) else length
        with pytest.raises(BadRequestError):
            parse_infer(body, length, TWO, MAX_BATCH)

    @settings(max_examples=150, deadline=None)
    @given(data=st.data())
    def test_any_json_in_any_place_of_a_good_request(self, data: st.DataObject) -> None:
        """It is refused, or it is still whole: as many bytes as the samples need."""
        head = orjson.loads(GOOD[0][: int(GOOD[1])])
        for _ in range(data.draw(st.integers(1, 2))):
            inputs = head["inputs"] if isinstance(head.get("inputs"), list) else []
            target = data.draw(st.sampled_from([head, *(one for one in inputs if isinstance(one, dict))]))
            target[data.draw(st.sampled_from(KEYS))] = data.draw(json_values)
        text = json.dumps(head).encode()
        body = text + GOOD[0][int(GOOD[1]) :]
        try:
            call = parse_infer(body, str(len(text)).encode(), TWO, MAX_BATCH)
        except BadRequestError:
            return
        assert 1 <= call.samples <= MAX_BATCH
        for tensor, values in zip(TWO.inputs, call.values, strict=True):
            assert values.nbytes == call.samples * tensor.size

    @settings(max_examples=100, deadline=None)
    @given(place=st.integers(0, len(GOOD[0]) - 1), value=st.integers(0, 255), cut=st.integers(0, 60))
    def test_a_good_request_with_a_wrong_byte_or_end(self, place: int, value: int, cut: int) -> None:
        body = bytearray(GOOD[0])
        body[place] = value
        try:
            parse_infer(bytes(body[: len(body) - cut]), GOOD[1], TWO, MAX_BATCH)
        except BadRequestError:
            return
        assert cut == 0


class TestAnswers:
    def test_samples_come_in_order(self) -> None:
        y = np.arange(4, dtype=np.float32).reshape(2, 2)
        slots = [memoryview(bytes(TWO.outputs[0].offset) + row.tobytes()) for row in y]
        call = parse_infer(*GOOD, TWO, MAX_BATCH)
        text, length = asyncio.run(infer_answer("net", call, TWO, slots))
        assert length is None
        assert json.loads(text)["outputs"] == [
            {"name": "y", "datatype": "FP32", "shape": [2, 2], "data": [0.0, 1.0, 2.0, 3.0]}
        ]

    def test_json_says_no_nan(self) -> None:
        slots = [memoryview(bytes(TWO.outputs[0].offset) + np.array([np.nan, 1], np.float32).tobytes())] * 2
        with pytest.raises(BadRequestError, match="not finite"):
            asyncio.run(infer_answer("net", parse_infer(*GOOD, TWO, MAX_BATCH), TWO, slots))
