"""What `runs import` and `runs export` show."""

from __future__ import annotations

from diffcli.console.numbers import bytes_text
from diffcli.console.rows import print_rows, printable
from diffcli.console.terminal import print_json, print_next, print_notice
from diffcli.records.interchange import ExportedRun, ImportedRun
from diffcli.registry.json_records import encode

_SCHEMA = 1


def show_imported(imported: ImportedRun, *, as_json: bool) -> None:
    """The new run: its id, what it is of, how far it is, its weights, its directory."""
    print_notice(printable(f"preset {imported.preset}: {imported.how}"))
    for notice in imported.notices:
        print_notice(printable(notice))
    if as_json:
        print_json({"schema": _SCHEMA, **encode(imported)})
        return
    row = (
        imported.run_id,
        imported.preset,
        f"step {imported.step}/{imported.total_steps}",
        ", ".join(imported.weights) + (", optimizer" if imported.optimizer else ""),
        str(imported.directory),
    )
    print_rows([row])
    print_next(*_next_commands(imported))


def show_exported(exported: ExportedRun, *, as_json: bool) -> None:
    """The files with their sizes, and what to know of them."""
    for notice in exported.notices:
        print_notice(printable(notice))
    if as_json:
        print_json({"schema": _SCHEMA, **encode(exported)})
        return
    print_rows([(str(file.path), bytes_text(file.size_bytes)) for file in exported.files])


def _next_commands(imported: ImportedRun) -> list[str]:
    run = imported.run_id
    is_guide = imported.kind == "classifier"
    commands = [f"diffcli sample RUN --classifier {run}" if is_guide else f"diffcli sample {run}"]
    if imported.resumable:
        more = "" if imported.step < imported.total_steps else " --steps N"
        commands.append(f"diffcli train --resume {run} --data DIR{more}")
    return [*commands, f"diffcli train --from {run} --data DIR"]
