"""A metric of several runs as a column, in which a mark tells whatever is not like most of it."""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from diffcli.records.run_metrics import Difference, MetricCell, MetricColumn, MetricResult
from diffcli.registry.comparison import differences


def shown_result(results: Sequence[MetricResult], metric: str) -> MetricResult | None:
    """The number that stands for a run: of its newest checkpoint that has one, the newest evaluation's."""
    found = [result for result in results if result.name == metric]
    return max(found, key=_newness, default=None)


def _newness(result: MetricResult) -> tuple[int, datetime, str]:
    checkpoint = -1 if result.checkpoint is None else result.checkpoint
    return checkpoint, result.started_at.astimezone(UTC), result.evaluation


@dataclass(eq=False)
class Marks:
    """a, b, c and so on, the same for the same differences, in whatever columns of a table they are."""

    _given: dict[tuple[Difference, ...], str] = field(default_factory=dict)

    def column(self, metric: str, results: Sequence[MetricResult | None]) -> MetricColumn:
        """The column of one metric; the most frequent comparison key has no mark, of equals the newest."""
        usual = _usual([result for result in results if result is not None])
        cells = tuple(
            self._cell(result, usual) if result is not None and usual is not None else None
            for result in results
        )
        return MetricColumn(
            name=metric, comparison_key=usual.comparison_key if usual is not None else None, cells=cells
        )

    def _cell(self, result: MetricResult, usual: MetricResult) -> MetricCell:
        if result.comparison_key == usual.comparison_key:
            return MetricCell(result=result, mark="", differences=())
        found = differences(result, usual)
        if found not in self._given:
            self._given[found] = _letters(len(self._given))
        return MetricCell(result=result, mark=self._given[found], differences=found)


def _usual(results: Sequence[MetricResult]) -> MetricResult | None:
    """One of those that have no mark."""
    count = Counter(result.comparison_key for result in results)
    return max(results, key=lambda result: (count[result.comparison_key], result.started_at), default=None)


def _letters(number: int) -> str:
    """a to z, then aa and so on."""

    def backwards(left: int) -> Iterator[str]:
        while left >= 0:
            yield string.ascii_lowercase[left % 26]
            left = left // 26 - 1

    return "".join(reversed([*backwards(number)]))
