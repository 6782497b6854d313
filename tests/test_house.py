"""The rules of the house: who may import whom, what each library is for, and what only one place may do."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

import diffcli

PACKAGE = Path(diffcli.__file__).parent
PROJECT = Path(__file__).parents[1]

# ---- the directions of import (docs/DESIGN.md, section 3) ----

# open to all that may import torch; randomness is torch
WITHOUT_TORCH = {"errors", "records", "config", "durable"}
LEAVES = WITHOUT_TORCH | {"randomness"}

MAY_IMPORT = {
    "__main__": {"cli"},
    "cli": {"commands", "console", "config", "records", "errors"},
    "console": {"registry", "config", "records", "errors"},
    "commands": LEAVES
    | {"training", "sampling", "evaluation", "interchange", "data", "models", "diffusion", "images"}
    | {"registry", "workers", "parts", "plots"},
    "training": LEAVES | {"data", "models", "diffusion", "workers"},
    "sampling": LEAVES | {"diffusion", "images", "workers", "parts"},
    "evaluation": LEAVES | {"diffusion", "images", "workers", "parts"},
    "interchange": LEAVES | {"models"},
    "data": LEAVES | {"images"},
    "models": LEAVES,
    "diffusion": LEAVES,
    "images": LEAVES,
    "workers": {"config", "errors"},
    "plots": {"errors", "records", "durable"},
    "registry": WITHOUT_TORCH,
    "config": {"errors"},
    "parts": {"errors", "durable"},
    "durable": {"errors"},
    "records": set(),
    "errors": set(),
    "randomness": {"errors"},
}

# what loads slowly, and who may load it; cli and console reach it only through commands, inside functions
HEAVY = {"commands", "training", "sampling", "evaluation", "interchange", "data", "models", "diffusion"}
MAY_USE = {
    "typer": {"cli"},
    "rich": {"console"},
    "tomli": {"config"},
    "torch": HEAVY | {"images", "randomness", "workers"},
    "accelerate": {"workers"},
    "numpy": HEAVY | {"images"},
    "PIL": {"data", "images", "evaluation"},
    "safetensors": {"commands", "training", "interchange", "evaluation", "models"},
    "requests": {"data"},
    "urllib3": {"data"},
    "lmdb": {"data"},
    "scipy": {"data"},
    "matplotlib": {"plots"},
}
# urllib3 does the work of requests, and raises some of its errors
DISTRIBUTION_OF = {"PIL": "pillow", "urllib3": "requests"}

# ---- what only one place may do ----

# a model's files are data, never programs
NEVER_IMPORTED = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
ARRAY_FILES = {"np.load", "np.save", "numpy.load", "numpy.save"}
# inside these packages every random number comes from randomness/, except that ...
DRAWS = re.compile(
    r"random\b.*|secrets\b.*|(np|numpy)\.random\b.*"
    r"|torch\.(rand|randn|randint|randperm|normal|bernoulli|multinomial|poisson)(_like)?"
    r"|torch\.(Generator|seed|default_generator)"
    r"|.*\.(normal|uniform|bernoulli|random|exponential|cauchy|geometric|log_normal)_"
    r"|.*\binit\.(xavier|kaiming|trunc_normal|orthogonal|sparse).*"
    r"|(F|nn|torch|nn\.functional|torch\.nn)\.\w*[Dd]ropout\w*"
)
# ... dropout and the initial weights take torch's generator, which is seeded in the places below
DRAW_IN = {"models/dropout.py", "models/pools.py"}
SEED_IN = {"training", "commands"}


@dataclass(frozen=True, kw_only=True)
class Import:
    """One imported name: where it stands, and the parts of the dotted name."""

    place: str
    owner: str
    parts: tuple[str, ...]

    @property
    def name(self) -> str:
        return ".".join(self.parts)


@dataclass(frozen=True, kw_only=True)
class Mention:
    """A dotted name somewhere in a file, and the call it is called in, if it is called."""

    place: str
    owner: str
    path: str
    name: str
    call: ast.Call | None


def owner_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@cache
def trees() -> dict[Path, ast.Module]:
    return {path: ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))}


@cache
def imports() -> tuple[Import, ...]:
    """All imports, also those inside functions and those for type checkers."""
    found = []
    for path, tree in trees().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}:{node.lineno}: a relative import hides its direction"
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            else:
                continue
            place, owner = f"{path.relative_to(PACKAGE)}:{node.lineno}", owner_of(path)
            found += [Import(place=place, owner=owner, parts=tuple(name.split("."))) for name in names]
    return tuple(found)


@cache
def mentions() -> tuple[Mention, ...]:
    """All dotted names, such as `torch.randn` or `x.normal_`."""
    found = []
    for path, tree in trees().items():
        calls = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Name | ast.Attribute):
                mention = Mention(
                    place=f"{path.relative_to(PACKAGE)}:{node.lineno}",
                    owner=owner_of(path),
                    path=str(path.relative_to(PACKAGE)),
                    name=ast.unparse(node),
                    call=calls.get(id(node)),
                )
                found.append(mention)
    return tuple(found)


def ours(found: Import) -> str | None:
    """The part of the house that is imported, if it is one."""
    if found.parts[0] != "diffcli" or found.parts[1] in ("__version__", found.owner):
        return None
    return found.parts[1]


def test_the_table_names_every_part_of_the_house():
    assert {owner_of(path) for path in trees()} - {"__init__"} <= set(MAY_IMPORT)
    assert len(trees()) > 90


def test_imports_go_one_way():
    wrong = [
        f"{found.place}: {found.owner} -> {ours(found)}"
        for found in imports()
        if ours(found) and ours(found) not in MAY_IMPORT[found.owner]
    ]
    assert not wrong


def test_the_table_has_no_circles():
    left = dict(MAY_IMPORT)
    while left:
        free = [name for name, targets in left.items() if not targets & set(left)]
        assert free, f"a circle among {sorted(left)}"
        for name in free:
            del left[name]


def test_training_sampling_and_evaluation_do_not_know_each_other():
    three = {"training", "sampling", "evaluation"}
    assert all(not MAY_IMPORT[name] & three for name in set(MAY_IMPORT) - {"commands"})


def test_libraries_are_used_where_they_belong():
    wrong = [
        f"{found.place}: {found.parts[0]} in {found.owner}"
        for found in imports()
        if found.parts[0] not in {"diffcli", *sys.stdlib_module_names}
        and found.owner not in MAY_USE.get(found.parts[0], set())
    ]
    assert not wrong


def test_each_library_is_a_dependency_and_each_dependency_is_used():
    with (PROJECT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    required = {distribution(line) for line in project["dependencies"]}
    extras = {distribution(line) for lines in project["optional-dependencies"].values() for line in lines}
    used = {DISTRIBUTION_OF.get(name, name) for name in MAY_USE}
    assert required <= used <= required | extras
    assert {found.parts[0] for found in imports()} >= set(MAY_USE)


def distribution(requirement: str) -> str:
    return re.match(r"[\w-]+", requirement)[0]


def test_within_sampling_only_the_archive_writer_knows_of_other_processes():
    wrong = [
        found.place
        for found in imports()
        if found.owner == "sampling"
        and (ours(found) == "workers" or found.parts[0] == "accelerate")
        and not found.place.startswith("sampling/archive.py")
    ]
    assert not wrong


def test_nothing_is_unpickled():
    assert not [found.place for found in imports() if found.parts[0] in NEVER_IMPORTED]
    # imported by themselves they would be called by names that are not looked for here
    assert not [found.place for found in imports() if found.name in {"torch.load"} | ARRAY_FILES]
    # of published files, at one place, which takes tensors and nothing else
    loads = [found for found in mentions() if found.name == "torch.load"]
    assert [found.path for found in loads] == ["interchange/tensor_files.py"]
    assert keyword(loads[0], "weights_only") is True
    arrays = [found for found in mentions() if found.name in ARRAY_FILES]
    assert len(arrays) >= 3
    assert not [found.place for found in arrays if keyword(found, "allow_pickle") is not False]


def keyword(found: Mention, name: str) -> object:
    """The constant that a call gives for a keyword; an error when the name is mentioned and not called."""
    assert found.call is not None, found.place
    given = {argument.arg: argument.value for argument in found.call.keywords}.get(name)
    return given.value if isinstance(given, ast.Constant) else None


def test_nothing_is_imported_by_a_name_made_up_at_run_time():
    dynamic = {"importlib.import_module", "import_module", "__import__", "exec", "eval", "compile"}
    assert not [found.place for found in mentions() if found.name in dynamic and found.call]


def test_random_bits_come_from_one_place():
    wrong = [
        f"{found.place}: {found.name}"
        for found in (*mentions(), *imports())
        if DRAWS.fullmatch(found.name) and found.owner != "randomness"
    ]
    assert {line.partition(":")[0] for line in wrong} == DRAW_IN, wrong


def test_torch_is_seeded_where_a_step_and_a_network_begin():
    seeding = [found for found in mentions() if found.name.endswith("manual_seed")]
    assert {found.owner for found in seeding} <= SEED_IN
    assert seeding


def test_only_the_console_writes_to_the_screen():
    streams = ("sys.stdout.write", "sys.stderr.write", "sys.__stdout__", "sys.__stderr__")
    wrong = [
        found.place
        for found in mentions()
        if found.owner != "console" and ((found.name == "print" and found.call) or found.name in streams)
    ]
    assert not wrong


def test_every_package_says_in_one_line_what_it_is():
    for directory in {path.parent for path in trees()}:
        tree = ast.parse((directory / "__init__.py").read_text())
        assert ast.get_docstring(tree), directory
        assert "\n" not in ast.get_docstring(tree), directory
        assert len(tree.body) == (2 if directory == PACKAGE else 1), directory


# ---- what is there at once ----

COUNTED = ("torch", "numpy", "accelerate", "PIL")
MAIN = f"""
import atexit, sys
from diffcli.__main__ import main
atexit.register(lambda: print("LOADED", [name for name in {COUNTED} if name in sys.modules], file=sys.stderr))
main()
"""


@pytest.mark.parametrize(
    ("arguments", "completing", "shown"),
    [
        (["--help"], None, "runs"),
        (["--version"], None, diffcli.__version__),
        (["train", "--help"], None, "--preset"),
        (["sample", "--help"], None, "--ddim"),
        (["train", "--list-presets"], None, "lsun_bedroom"),
        (["runs", "ls"], None, "preset"),
        (["runs", "ls", "--json"], None, "schema"),
        ([], "diffcli ", "sample"),
        ([], "diffcli train --preset cif", "cifar10"),
    ],
)
def test_torch_is_not_loaded_before_it_is_needed(arguments, completing, shown, tmp_path):
    environment = dict(os.environ)
    if completing is not None:
        environment |= {
            "_DIFFCLI_COMPLETE": "complete_bash",
            "COMP_WORDS": completing,
            "COMP_CWORD": str(completing.count(" ")),
        }
    done = subprocess.run(
        [sys.executable, "-c", MAIN, *arguments],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert shown in done.stdout
    assert done.stderr.splitlines()[-1] == "LOADED []"
