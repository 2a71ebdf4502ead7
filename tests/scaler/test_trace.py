"""Traces: files rightly and wrongly written, and the arrivals drawn from them."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rapp.errors import ConfigError
from scaler.errors import TraceError
from scaler.trace import ArrivalProcess, RateSteps, Trace

EVEN, POISSON = ArrivalProcess.EVEN, ArrivalProcess.POISSON


@pytest.fixture
def read(tmp_path: Path):
    """`read("t_s,rps\\n...")`: the trace in a file of this content."""

    def read(content: str, name: str = "trace.csv") -> Trace:
        (tmp_path / name.partition("#")[0]).write_text(content)
        return Trace.read(tmp_path / name)

    return read


class TestFiles:
    def test_a_rate_lasts_to_the_next_row_and_the_last_as_long_as_the_one_before(self, read):
        trace = read("t_s,rps\n10,2\n12,0\n16,3\n")
        assert (trace.start_s, trace.end_s) == (10, 20)
        np.testing.assert_allclose(trace.rates(["f"])["f"], [2, 2, 0, 0, 0, 0, 3, 3, 3, 3])
        np.testing.assert_allclose(trace.rates(["f"], step_s=5)["f"], [4 / 5, 12 / 5])

    def test_functions_have_their_own_rows(self, read):
        trace = read("function,t_s,rps\na,0,1\nb,0,5\na,4,2\nb,2,0\n")
        assert trace.functions == ("a", "b")
        rates = trace.rates(["a", "b", "c"])
        np.testing.assert_allclose(rates["a"], [1, 1, 1, 1, 2, 2, 2, 2])
        np.testing.assert_allclose(rates["b"], [5, 5, 0, 0, 0, 0, 0, 0])
        assert not rates["c"].any()

    def test_without_functions_the_load_is_that_of_each(self, read):
        arrivals = read("t_s,rps\n0,200\n10,200\n").arrivals(["a", "b"], POISSON)
        assert len(arrivals["a"]) == pytest.approx(4000, abs=300)
        assert set(arrivals["a"]).isdisjoint(arrivals["b"])

    def test_single_arrivals_come_when_they_came(self, read):
        trace = read("t_s\n3.5\n3.5\n4.25\n")
        for process in ArrivalProcess:
            np.testing.assert_allclose(trace.arrivals(["f"], process)["f"], [0.5, 0.5, 1.25])
        assert trace.duration_s == 2
        np.testing.assert_allclose(trace.rates(["f"])["f"], [2, 1])

    @pytest.mark.parametrize("name", ["w.json#busy", "w.json"])
    def test_workloads(self, read, name: str):
        content = {"busy": {"interval_s": 2, "rps": [3, 0.5], "source": "x"}}
        np.testing.assert_allclose(read(json.dumps(content), name).rates(["f"])["f"], [3, 3, 0.5, 0.5])
        np.testing.assert_allclose(
            read(json.dumps(content["busy"]), "one.json").rates(["f"])["f"][:2], [3, 3]
        )

    def test_blank_lines_and_a_byte_order_mark_are_no_rows(self, read):
        assert read("\ufefft_s,rps\n0,1\n\n5,1\n").duration_s == 10

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("", "is empty"),
            ("t_s,rps\n", "holds no row"),
            ("t_s,rp\n0,1\n", "line 1: unknown column 'rp' (near: rps)"),
            ("t_s,colour\n0,1\n", "unknown column 'colour'; known are t_s, rps, function"),
            ("t_s,t_s\n0,1\n", "column t_s twice"),
            ("rps\n1\n", "lacks the column t_s"),
            ("t_s,rps\n0,1\n5,-2\n", "line 3: rps is -2: it must be 0 or more"),
            ("t_s,rps\n0,1\n\n5,nan\n", "line 4: rps is nan"),
            ("t_s,rps\n0,1\n5,inf\n", "line 3: rps is inf"),
            ("t_s,rps\n-1,1\n5,1\n", "line 2: t_s is -1"),
            ("t_s,rps\n0,1\n5,1\n4,1\n", "line 4: t_s 4 does not come after 5"),
            ("t_s,rps\n0,1\n0,2\n", "line 3: t_s 0 does not come after 0"),
            ("t_s,rps,function\n0,1,a\n0,1,b\n5,1,b\n3,1,b\n7,1,a\n", "line 5: t_s 3 does not come after 5"),
            ("t_s\n5\n4\n", "line 3: t_s 4 does not come after 5"),
            ("t_s,rps\n0,1\n5,x\n", "line 3: could not convert string to float: 'x'"),
            ("t_s,rps\n0,1\n5\n", "line 3: 1 values for 2 columns"),
            ("t_s,rps\n0,1\n", "line 2: a single row has no length"),
            ("t_s,function\n0,\n", "line 2: function is empty"),
            ('t_s,rps\n0,"1\n', "is not valid CSV"),
        ],
    )
    def test_a_mistake_is_one_line_that_names_file_and_line(self, read, content: str, message: str):
        with pytest.raises(TraceError) as error:
            read(content)
        assert "trace.csv: " in str(error.value)
        assert message in str(error.value)
        assert "\n" not in str(error.value)

    @pytest.mark.parametrize(
        ("content", "name", "message"),
        [
            (
                '{"a": {"interval_s": 1, "rps": [1]}, "b": {}}',
                "w.json",
                "several workloads: name one as w.json#",
            ),
            ('{"a": {"interval_s": 1, "rps": [1]}}', "w.json#c", "no workload 'c'"),
            ('{"a": {"interval_s": 1}}', "w.json", "a: lacks rps"),
            ('{"a": {"interval_s": 0, "rps": [1]}}', "w.json", "interval_s is 0"),
            ('{"a": {"interval_s": 1, "rps": [1, -1]}}', "w.json", "rps[1] is -1"),
            ('{"a": {"interval_s": 1, "rps": [true]}}', "w.json", "rps[0] is True"),
            ('{"a": {"interval_s": 1, "rps": []}}', "w.json", "rps is empty"),
            ("[", "w.json", "is not valid JSON"),
            ("[]", "w.json", "is no workload"),
            ("", "w.txt", "neither .csv nor .json"),
        ],
    )
    def test_a_workload_that_is_none(self, read, content: str, name: str, message: str):
        with pytest.raises(TraceError) as error:
            read(content, name)
        assert message in str(error.value)

    def test_a_file_that_is_not_there(self, tmp_path: Path):
        with pytest.raises(TraceError, match="cannot be read: No such file"):
            Trace.read(tmp_path / "none.csv")

    def test_an_unknown_function_has_the_near_name(self, read):
        trace = read("t_s,rps,function\n0,1,clasify\n1,1,clasify\n")
        for ask in (trace.arrivals, trace.rates):
            with pytest.raises(TraceError, match=r"unknown function 'clasify' \(near: classify\)"):
                ask(["classify", "detect"])


class TestArrivals:
    def test_even_arrivals_are_spaced_evenly_inside_each_second(self):
        times = Trace.of_rates([4, 2, 0, 1]).arrivals(["f"], EVEN)["f"]
        np.testing.assert_allclose(times, [0.125, 0.375, 0.625, 0.875, 1.25, 1.75, 3.5])

    def test_even_arrivals_of_a_broken_rate_add_up(self):
        times = Trace.of_rates([0.3] * 1000).arrivals(["f"], EVEN)["f"]
        assert len(times) == 300
        np.testing.assert_allclose(np.diff(times), 1 / 0.3)

    def test_poisson_arrivals_have_the_counts_and_gaps_of_one(self):
        trace = Trace.of_rates([50.0] * 4000)
        times = trace.arrivals(["f"], POISSON, seed=3)["f"]
        counts = np.bincount(times.astype(int), minlength=4000)
        # Mean and variance of a Poisson count are 50; five standard errors.
        assert counts.mean() == pytest.approx(50, abs=5 * np.sqrt(50 / 4000))
        assert counts.var() == pytest.approx(50, rel=5 * np.sqrt(2 / 4000))
        # Exponential gaps: a share of exp(-1) is longer than the mean.
        gaps = np.diff(times)
        assert (gaps > 1 / 50).mean() == pytest.approx(np.exp(-1), abs=5 * 0.5 / np.sqrt(len(gaps)))
        assert abs(np.corrcoef(counts[:-1], counts[1:])[0, 1]) < 5 / np.sqrt(4000)

    @given(
        st.lists(st.floats(0, 50), min_size=2, max_size=12),
        st.sampled_from(ArrivalProcess),
        st.integers(0, 5),
    )
    def test_arrivals_are_ascending_and_where_there_is_a_rate(self, rps, process, seed):
        trace = Trace.of_rates(rps, interval_s=3)
        times = trace.arrivals(["f"], process, seed)["f"]
        assert np.all(np.diff(times) >= 0)
        assert np.all((times >= 0) & (times <= trace.duration_s))
        if process == EVEN:
            assert len(times) == pytest.approx(3 * sum(rps), abs=0.5 + 1e-9)
        resting = [place for place, rate in enumerate(rps) if rate == 0]
        # An arrival on an edge belongs to the step before it.
        assert not np.isin(np.ceil(times / 3) - 1, resting).any()

    def test_a_seed_repeats_and_another_differs(self):
        trace = Trace.of_rates([20.0] * 50)
        first, again, other = (trace.arrivals(["f"], POISSON, seed)["f"] for seed in (1, 1, 2))
        np.testing.assert_array_equal(first, again)
        assert set(first).isdisjoint(other)

    def test_another_function_changes_nothing_for_the_first(self):
        trace = Trace.of_rates([20.0] * 50)
        alone = trace.arrivals(["f"], POISSON)["f"]
        np.testing.assert_array_equal(alone, trace.arrivals(["e", "f", "g"], POISSON)["f"])

    def test_a_day_of_five_million_takes_seconds_not_minutes(self):
        trace = Trace.of_rates(np.random.default_rng(0).uniform(32, 96, 86_400))
        for process in ArrivalProcess:
            seconds = []
            for _ in range(3):
                before = time.thread_time()
                times = trace.arrivals(["f"], process)["f"]
                seconds.append(time.thread_time() - before)
            assert len(times) > 5_000_000
            # Some 0.5 s; a loop over arrivals would take tens.
            assert min(seconds) < 2.5


class TestOptions:
    def test_a_window_speaks_the_time_of_the_file(self, read):
        trace = read("t_s,rps\n100,1\n110,5\n120,2\n").window(108, 122)
        np.testing.assert_allclose(trace.rates(["f"])["f"], [1] * 2 + [5] * 10 + [2] * 2)
        assert len(trace.arrivals(["f"])["f"]) == 2 + 50 + 4

    def test_a_window_beside_the_trace_is_an_error(self, read):
        trace = read("t_s,rps\n100,1\n110,5\n")
        for window in ((0, 50), (200, None), (115, 105)):
            with pytest.raises(ConfigError, match="covers 100 to 120 s, nothing of it lies from"):
                trace.window(*window)

    def test_scale_and_repeat(self):
        trace = Trace.of_rates([1, 3]).scaled(2).repeated(3)
        np.testing.assert_allclose(trace.rates(["f"])["f"], [2, 6] * 3)
        np.testing.assert_array_equal(
            trace.arrivals(["f"])["f"], Trace.of_rates([2, 6] * 3).arrivals(["f"])["f"]
        )

    def test_a_scaled_record_keeps_its_bursts(self, read):
        burst = "\n".join(f"{second}\n" * count for second, count in ((0, 900), (10, 1), (20, 900)))
        trace = read(f"t_s\n{burst}\n")
        for scale in (0.3, 2.5):
            times = trace.scaled(scale).arrivals(["f"], seed=1)["f"]
            assert len(times) == pytest.approx(1801 * scale, rel=0.1)
            assert np.all(np.diff(times) >= 0)
            # Nothing between the bursts but copies of the last of a burst, which have room to spread.
            assert ((times > 0) & (times < 20) & (times != 10)).sum() <= 2 * 2
        np.testing.assert_allclose(trace.scaled(2).repeated(2).rates(["f"])["f"].sum(), 1801 * 4)

    @pytest.mark.parametrize("scale", [0, -1, float("nan"), float("inf")])
    def test_a_scale_that_is_none(self, scale: float):
        with pytest.raises(ConfigError, match="scale is"):
            Trace.of_rates([1]).scaled(scale)

    def test_no_repetition_is_an_error(self):
        with pytest.raises(ConfigError, match="repeat is 0"):
            Trace.of_rates([1]).repeated(0)

    @given(st.lists(st.floats(0, 9), min_size=1, max_size=9), st.floats(-5, 20), st.floats(0.1, 20))
    def test_a_window_holds_the_rate_and_no_more(self, rps, start, length):
        steps = RateSteps(np.arange(len(rps) + 1.0), np.array(rps))
        cut = steps.window(start, start + length)
        assert (cut.start_s, cut.end_s) == (start, start + length)
        assert np.all(np.diff(cut.edges_s) > 0)
        at = np.array([start, start + length])
        assert cut.expected(at)[1] == pytest.approx(np.diff(steps.expected(at))[0], abs=1e-9)


@pytest.mark.skipif("RAPP_TRACES_DIR" not in os.environ, reason="RAPP_TRACES_DIR is not set")
def test_the_public_traces_are_as_their_notice_says():
    folder = Path(os.environ.get("RAPP_TRACES_DIR", ""))
    azure = Trace.read(folder / "azure_llm2023_code_1s.csv")
    rates = azure.rates(["f"])["f"]
    assert (rates.mean().round(1), (rates.max() / rates.mean()).round()) == (2.6, 26)
    servegen = Trace.read(folder / "servegen_m_small_600s.csv")
    assert servegen.duration_s == 14 * 86_400
    assert servegen.rates(["f"], 600)["f"].mean() == pytest.approx(1174, abs=1)
