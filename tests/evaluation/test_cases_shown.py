"""Which cases a report shows."""

from hypothesis import given
from hypothesis import strategies as st

from wys.evaluation.cases_shown import EACH, places


@given(st.integers(1, 40))
def test_the_cases_shown_are_both_ends_and_the_middle(count: int) -> None:
    order = [str(i) for i in range(count)]
    shown = places(order)
    names = [place for place, _ in shown]
    cases = [int(case) for _, case in shown]
    assert cases == sorted(set(cases)), "each once, in their order"
    assert names == sorted(names, key=["Best", "Median", "Worst"].index)
    assert names[0] == "Best" and cases[0] == 0
    if count > 1:
        assert names[-1] == "Worst" and cases[-1] == count - 1
        assert names.count("Best") == names.count("Worst") <= EACH
    if count > 2:
        middle = [case for name, case in zip(names, cases, strict=True) if name == "Median"]
        assert middle and abs(sum(middle) / len(middle) - (count - 1) / 2) <= 0.5
