"""What `runs repair` shows: each run that was not in order, as soon as it is looked at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from diffcli.console.rows import print_rows, printable, stdout_is_watched
from diffcli.console.terminal import print_json, print_next, print_notice, print_result
from diffcli.records.run_repair import Finding, RepairedRun, RepairReport
from diffcli.registry.json_records import encode

_SCHEMA = 1
_COLUMNS = ("id", "outcome", "found", "action")


def draw_repaired(runs: Iterable[RepairedRun], *, dry_run: bool) -> tuple[RepairedRun, ...]:
    """Draw runs while they are looked at, and return them."""
    if not stdout_is_watched():
        print_rows([_COLUMNS])
    drawn = []
    for run in runs:
        drawn.append(run)
        _draw_findings(run.id, run.findings, dry_run=dry_run)
    return tuple(drawn)


def draw_repair_end(report: RepairReport) -> None:
    """Draw what was found in the runs directory itself, how many runs came to what, and how to go on."""
    _draw_findings("", report.home_findings, dry_run=report.dry_run)
    outcomes = Counter(run.outcome for run in report.runs)
    counts = ", ".join(f"{count} {_told(outcome, report)}" for outcome, count in outcomes.items())
    looked_at = "1 run" if len(report.runs) == 1 else f"{len(report.runs)} runs"
    print_notice(f"looked at {looked_at}" + (f": {counts}" if counts else ""))
    commands = [run.next_command for run in report.runs if run.next_command]
    if report.dry_run:
        commands = ["diffcli runs repair"] if outcomes["mended"] else []
    print_next(*commands)


def print_repair_json(report: RepairReport) -> None:
    """The report as one JSON object."""
    print_json({"schema": _SCHEMA, **encode(report)})


def _told(outcome: str, report: RepairReport) -> str:
    return "to be mended" if outcome == "mended" and report.dry_run else outcome


def _draw_findings(name: str, findings: Sequence[Finding], *, dry_run: bool) -> None:
    if not stdout_is_watched():
        for finding in findings:
            print_rows([(name, finding.outcome, finding.what, finding.action)])
        return
    if findings:
        print_result(printable(name or "runs directory"))
    for finding in findings:
        would = "would be " if dry_run and finding.outcome == "mended" else ""
        print_result(printable(f"  {finding.what}: {would}{finding.action}"))
