"""The benches' option groups."""

import pytest

from wys.apps.bench_options import CaseOptions


@pytest.mark.parametrize("split", ["test", "validation"])
def test_settings_are_never_found_on_the_cases_that_are_measured(split) -> None:
    options = CaseOptions(cases=4, seed=2, seeds=3, split=split)
    found = options.to_choose_on(7)
    assert found.split == "validation" and found.count == 7
    assert split != "validation" or found.seed not in options.all_seeds
