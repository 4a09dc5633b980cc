"""In what order things are timed, and that they are."""

from benchmarks.timing import interleaved


def test_rounds_begin_with_each_in_turn():
    calls = []
    runs = {name: lambda name=name: calls.append(name) for name in "abc"}
    timed = [name for name, _ in interleaved(runs, repeats=4, device="cpu", warmup=2)]
    assert "".join(calls[:6]) == "abcabc"
    assert "".join(timed) == "".join(calls[6:]) == "abc" + "bca" + "cab" + "abc"


def test_times_are_those_of_the_runs(monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr("time.perf_counter", lambda: float(next(clock)))
    runs = {"one": lambda: None, "three": lambda: (next(clock), next(clock))}
    assert list(interleaved(runs, repeats=2, device="cpu", warmup=0)) == [
        ("one", 1.0),
        ("three", 3.0),
        ("three", 3.0),
        ("one", 1.0),
    ]


def test_what_comes_first_is_seen_before_the_rest_runs():
    """So that an interruption loses nothing."""
    calls = []
    times = interleaved({"a": lambda: calls.append(1)}, repeats=5, device="cpu", warmup=0)
    next(times)
    assert len(calls) == 1
