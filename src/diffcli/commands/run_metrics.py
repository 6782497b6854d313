"""The list of runs with numbers of their evaluations, sorted by one if that is asked for."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from diffcli.commands.runs import sizes_are_shown
from diffcli.config.suggest import did_you_mean, nearest
from diffcli.errors import StorageError, UsageError
from diffcli.records.run_metrics import MeasuredListing, MetricColumn, MetricResult, UnreadableEvaluation
from diffcli.records.runs import RunRow
from diffcli.registry.comparison import results_of
from diffcli.registry.evaluation_records import evaluations_of
from diffcli.registry.listing import list_runs
from diffcli.registry.metric_columns import Marks, shown_result
from diffcli.registry.metric_names import full_name, larger_is_better
from diffcli.registry.paths import RunPaths
from diffcli.registry.size import size_on_disk

# of every run, whatever was evaluated
_ORDERS = ("loss", "step", "age", "size")
_LARGEST_FIRST = frozenset({"step", "size"})


@dataclass(frozen=True, kw_only=True)
class MeasuredListingRequest:
    """Which runs, of `home`, with which metrics in columns.

    limit: None for all; sort: a metric, which has its column then, or loss, step, age, size; None: the newest
    first; reverse: the best last.
    """

    home: Path
    limit: int | None
    metrics: tuple[str, ...] = ()
    sort: str | None = None
    reverse: bool = False


def list_measured_runs(request: MeasuredListingRequest) -> MeasuredListing:
    """The newest `limit` runs, or of all runs the first by `sort`; sizes only in short lists.

    UsageError for a metric that no run has.
    """
    order = None if request.sort is None else full_name(request.sort)
    asked = [*map(full_name, request.metrics), *([order] if order and order not in _ORDERS else [])]
    limit = request.limit
    listing = list_runs(request.home, limit=limit if order is None else None, sizes=order == "size")
    known = _KnownResults(home=request.home)
    rows: Sequence[RunRow] = listing.runs
    columns: tuple[MetricColumn, ...] = ()
    if asked:
        known.read(rows)
        _check_names(request, asked, known)
    if order is not None:
        rows = _sorted(rows, order, known, reverse=request.reverse)[:limit]
    if asked:
        marks = Marks()
        columns = tuple(
            marks.column(name, [known.shown(row.id, name) for row in rows]) for name in dict.fromkeys(asked)
        )
    return MeasuredListing(
        home=request.home,
        total_runs=listing.total_runs,
        sorted_by=order,
        reverse=request.reverse,
        runs=tuple(_with_size(row, request.home) if sizes_are_shown(limit) else row for row in rows),
        columns=columns,
        unreadable=tuple(known.unreadable),
    )


@dataclass(kw_only=True, eq=False)
class _KnownResults:
    """The numbers of runs whose evaluations were read, and what could not be read of them."""

    home: Path
    unreadable: list[UnreadableEvaluation] = field(default_factory=list)
    _results: dict[str, tuple[MetricResult, ...]] = field(default_factory=dict)

    @property
    def names(self) -> frozenset[str]:
        """Of all metrics found."""
        return frozenset(result.name for results in self._results.values() for result in results)

    def read(self, rows: Iterable[RunRow]) -> None:
        """The evaluations of runs that were not read before."""
        for row in rows:
            if row.id not in self._results:
                self._results[row.id] = tuple(self._read(row.id))

    def shown(self, run: str, metric: str) -> MetricResult | None:
        """The number that stands for a run."""
        return shown_result(self._results[run], metric)

    def _read(self, run: str) -> Iterable[MetricResult]:
        paths = RunPaths(self.home / run)
        try:
            evaluations = evaluations_of(paths)
        except StorageError as error:
            self.unreadable.append(
                UnreadableEvaluation(run=run, name=paths.evaluations.name, reason=error.what)
            )
            return
        for evaluation in evaluations:
            if evaluation.problem is not None:
                self.unreadable.append(
                    UnreadableEvaluation(run=run, name=evaluation.name, reason=evaluation.problem)
                )
            yield from results_of(evaluation)


def _check_names(request: MeasuredListingRequest, asked: Sequence[str], known: _KnownResults) -> None:
    """UsageError for a metric that no run has, shown or not; an empty home has no runs to lack it."""
    if known.names.issuperset(asked):
        return
    told = tuple(known.unreadable)
    every = list_runs(request.home, limit=None, sizes=False).runs
    known.read(every)
    # what is wrong with runs that are not shown is nobody's question
    known.unreadable[:] = told
    missing = [name for name in asked if name not in known.names]
    if not (missing and every):
        return
    name, order = missing[0], request.sort is not None and full_name(request.sort) == missing[0]
    there = (*sorted(known.names), *(_ORDERS if order else ()))
    listed = f"there are {', '.join(there)}" if known.names else "nothing is evaluated yet: diffcli eval RUN"
    raise UsageError(
        f"no run in {request.home} has a result named {name!r}",
        where="--sort" if order else "--metric",
        remedy="\n".join(line for line in (did_you_mean(nearest(name, there)), listed) if line),
    )


def _sorted(rows: Sequence[RunRow], order: str, known: _KnownResults, *, reverse: bool) -> Sequence[RunRow]:
    """The best first, last with `reverse`; then runs without the number; of equals the newest first."""
    largest_first = order in _LARGEST_FIRST or larger_is_better(order)
    sign = -1 if largest_first != reverse else 1

    def place(row: RunRow) -> tuple[bool, float]:
        number = _number(row, order, known)
        return (True, 0.0) if number is None or math.isnan(number) else (False, sign * number)

    return sorted(rows, key=place)


def _number(row: RunRow, order: str, known: _KnownResults) -> float | None:
    match order:
        case "loss":
            return row.loss
        case "step":
            return row.step
        case "age":
            return row.age_seconds
        case "size":
            return row.size_bytes
    found = known.shown(row.id, order)
    return None if found is None else found.value


def _with_size(row: RunRow, home: Path) -> RunRow:
    if row.size_bytes is not None:
        return row
    return dataclasses.replace(row, size_bytes=size_on_disk(home / row.id))
