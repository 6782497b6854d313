"""docs/families/: each published preset stands on one page, with the numbers and commands that are true."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import typer
from typer.core import TyperGroup

from diffcli.cli.app import app
from diffcli.commands.memory import footprint
from diffcli.config.presets import list_presets
from diffcli.config.resolve import resolve
from diffcli.console.numbers import bytes_text

PAGES = sorted((Path(__file__).parents[1] / "docs" / "families").glob("*.md"))
GUIDANCE = PAGES[0].parents[1] / "guidance.md"
SAVING = ("training.precision=bf16", "model.checkpoint_blocks=true")


def rows_of(page, columns):
    """The rows of a page's tables of that many columns whose first cell is a name in backticks."""
    rows = [line.strip("| ").split(" | ") for line in page.read_text().splitlines() if line.startswith("| `")]
    return {row[0].strip("`"): row[1:] for row in rows if len(row) == columns}


def test_every_published_preset_is_introduced_on_one_page():
    introduced = [
        name for page in PAGES for name in rows_of(page, 4) if rows_of(page, 4)[name][0].endswith("pt`")
    ]
    assert sorted(introduced) == sorted(preset.name for preset in list_presets() if preset.published_file)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_tells_files_and_parameters(page):
    presets = {preset.name: preset for preset in list_presets()}
    introduced = {name: row for name, row in rows_of(page, 4).items() if row[0].endswith("pt`")}
    assert introduced
    for name, (file, parameters, _) in introduced.items():
        assert file.strip("`") == presets[name].published_file
        assert parameters == f"{presets[name].parameters:,}"
    assert set(rows_of(page, 5)) == set(introduced)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_tells_the_memory_that_a_dry_run_tells(page):
    # one of each page, since each takes seconds
    name, told = next(reversed(rows_of(page, 5).items()))
    needs = footprint(resolve(preset=name).config)
    saving = footprint(resolve(preset=name, overrides=SAVING).config)
    assert told == [
        bytes_text(needs.state_bytes),
        bytes_text(needs.checkpoint_bytes),
        bytes_text(needs.activation_bytes_per_image),
        bytes_text(saving.activation_bytes_per_image),
    ]


def commands_of(page):
    return [line.strip() for line in page.read_text().splitlines() if line.startswith("    diffcli ")]


def parsed(line):
    """A command line parsed as diffcli does, without running it; an exception where it knows a word not."""
    command = typer.main.get_command(app)
    words = shlex.split(line)[1:]
    while isinstance(command, TyperGroup):
        context = command.make_context(line, [], resilient_parsing=True)
        command = command.get_command(context, words[0])
        if command is None:
            raise ValueError(f"no command {words[0]}")
        words = words[1:]
    return command.make_context(line, words)


COMMANDS = [line for page in (*PAGES, GUIDANCE) for line in commands_of(page)]


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_of_a_page_is_one(line):
    presets = {preset.name for preset in list_presets()}
    assert parsed(line).params.get("preset") in (None, *presets)


def test_each_page_trains_and_says_what_was_not_run():
    for page in PAGES:
        lines = commands_of(page)
        assert any(line.startswith("diffcli train --preset ") for line in lines), page
        assert any(line.startswith("diffcli prepare ") for line in lines), page
        assert "nothing on this page but `--dry-run` was run" in page.read_text().replace("\n", " "), page
