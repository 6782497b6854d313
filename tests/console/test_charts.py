"""A curve as text: how high its columns are, and what has none."""

from __future__ import annotations

import math

from diffcli.console.charts import PLAIN_EIGHTHS, ChartSize, logarithmic_chart

SIZE = ChartSize(columns=6, lines=2)


def test_equal_ratios_are_equal_steps():
    assert logarithmic_chart([1.0, 10.0, 100.0, 1000.0], SIZE) == ["1000   ▃█", "   1 ▁▆██"]


def test_more_values_than_columns_are_averaged():
    size = ChartSize(columns=3, lines=2)
    assert logarithmic_chart([1.0, 3.0, 2.0, 2.0, 7.0, 9.0], size) == ["8   █", "2 ▁▁█"]


def test_what_is_not_finite_or_not_above_zero_has_no_column():
    values = [math.nan, 1.0, 0.0, math.inf, 100.0, -math.inf]
    assert logarithmic_chart(values, SIZE) == ["100     █", "  1  ▁  █"]
    assert logarithmic_chart([0.0, math.nan], SIZE) == []
    assert logarithmic_chart([], SIZE) == []


def test_equal_values_are_a_line():
    assert logarithmic_chart([2.0, 2.0], SIZE) == ["2 ", "2 ▁▁"]


def test_a_plain_terminal_gets_plain_letters():
    assert logarithmic_chart([1.0, 50.0, 1000.0], SIZE, eighths=PLAIN_EIGHTHS) == ["1000  .#", "   1 .##"]
