"""How the library is built: floors that import only downwards, labels that fit together, a quick front door."""

import ast
import os
import platform
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
import yaml

import facelightning
from facelightning import labels

PACKAGE = Path(facelightning.__file__).parent
MODULES = {
    ".".join(("facelightning", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}

FLOORS = (
    {"__main__"},
    {"commands", "reproduce"},
    {"cli"},
    {"callbacks"},
    {"tasks"},
    {"prediction"},
    {"objectives"},
    {"data", "models", "losses", "metrics", "figures"},
    {"labels", "facts", "boxes", "configs", "card", "checkpoint", "hub", "runs", "errors"},
)
"""From the roof to the ground. A part imports from the floors below its own; only the ground's own parts may meet."""

FRONT_DOOR = {"data", "facts", "labels", "tasks"}
"""What ``facelightning/__init__.py`` offers."""

PRIVATE = {
    "facelightning.tasks.lightning_details": "Lightning",
    "facelightning.cli.parser": "argparse lists its options nowhere else",
}
"""Modules that read what others keep private, and whose it is."""


def imports(name: str) -> set[str]:
    """The modules of the package that a module imports: of ``from a import b``, ``a.b`` if that is a module."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} has a relative import"
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {one if one in MODULES else str(node.module) for one in inner}
    return {one for one in found if one in MODULES} - {name}


def floor_of(module: str) -> int:
    part = module.split(".")[1]
    return next(number for number, floor in enumerate(FLOORS) if part in floor)


def test_every_part_has_a_floor() -> None:
    parts = {name.split(".")[1] for name in MODULES if "." in name}
    assert parts == set().union(*FLOORS)
    files = {path.name for path in PACKAGE.iterdir() if path.suffix == ".py"}
    assert len(files) <= 12
    assert len(parts - {Path(file).stem for file in files}) <= 12


@pytest.mark.parametrize("name", MODULES)
def test_imports_point_down(name: str) -> None:
    if name == "facelightning":
        assert {module.split(".")[1] for module in imports(name)} <= FRONT_DOOR
        return
    for other in imports(name) - {"facelightning"}:
        same_part = name.split(".")[1] == other.split(".")[1]
        ground = floor_of(name) == floor_of(other) == len(FLOORS) - 1
        assert same_part or ground or floor_of(other) > floor_of(name), f"{name} imports {other}"


WITHOUT_LIGHTNING = {"models", "labels", "losses", "metrics", "figures", "configs", "checkpoint", "facts", "errors"}


@pytest.mark.parametrize("name", MODULES)
def test_networks_know_no_lightning_and_tasks_no_data(name: str) -> None:
    part = (*name.split("."), "")[1]
    if part == "tasks":
        assert not {other for other in imports(name) if other.startswith("facelightning.data")}
    if part in WITHOUT_LIGHTNING:
        nodes = list(ast.walk(ast.parse(MODULES[name].read_text())))
        named = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
        named += [str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)]
        assert not [module for module in named if module.partition(".")[0] == "lightning"]


def test_there_are_no_circles() -> None:
    list(TopologicalSorter({name: imports(name) for name in MODULES}).static_order())  # raises CycleError


@pytest.mark.parametrize("name", MODULES)
def test_modules_are_short(name: str) -> None:
    assert len(MODULES[name].read_text().splitlines()) <= 320


@pytest.mark.parametrize("name", sorted(MODULES.keys() - PRIVATE.keys()))
def test_what_others_keep_private_is_not_read(name: str) -> None:
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.Attribute) and re.match(r"_(?!_)", node.attr):
            owner = node.value.id if isinstance(node.value, ast.Name) else ast.dump(node.value)
            # what a class inherits is its own
            own = owner in ("self", "cls") or ast.unparse(node.value) == "super()"
            assert own, f"{name}, line {node.lineno}: {owner}.{node.attr}"


def test_the_code_of_reproduce_names_no_row() -> None:
    files = sorted((PACKAGE / "reproduce" / "published").glob("*.yaml"))
    rows = {
        row["name"]
        for file in files
        for table in yaml.safe_load(file.read_text())
        for row in table["rows"]
        if "name" in row
    }
    assert {"avg", "ssp_ssg", "jointnet"} <= rows
    for path in (PACKAGE / "reproduce").glob("*.py"):
        found = rows & {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)}
        assert not found, f"{path.name} names {found}"


def test_the_nine_groups_are_a_partition_of_the_attributes() -> None:
    grouped = [name for group in labels.ATTRIBUTE_GROUPS.values() for name in group]
    assert sorted(grouped) == sorted(labels.ATTRIBUTES)
    assert len(grouped) == len(set(grouped)) == 40
    sizes = {name: len(group) for name, group in labels.ATTRIBUTE_GROUPS.items()}
    # Wang, Su, Zhao, Table I
    assert sizes == {
        "hair": 10, "eye": 5, "ear": 1, "nose": 2, "mouth": 4, "beard": 6, "cheek": 2, "neck": 2, "global": 8
    }  # fmt: skip


@pytest.mark.parametrize("space", labels.LABEL_SPACES.values(), ids=str)
def test_label_spaces(space: labels.LabelSpace) -> None:
    assert len(space.colors) == len(set(space.colors)) == len(space) == len(set(space.classes))
    assert space.classes[0] == "background"
    mirrored = space.mirrored
    assert [mirrored[mirrored[i]] for i in range(len(space))] == list(range(len(space)))  # twice is nothing
    moved = {space.classes[i] for i in range(len(space)) if mirrored[i] != i}
    assert moved == {name for name in space.classes if name.startswith(("left_", "right_"))}


def test_the_seven_classes_unite_the_eleven() -> None:
    united = [name for names in labels.HELEN11_TO_7.values() for name in names]
    assert tuple(labels.HELEN11_TO_7) == labels.HELEN7.classes
    assert sorted(united) == sorted(labels.HELEN11.classes)
    parts = {name for part in labels.HELEN7.parts for name in labels.HELEN11_TO_7[part]}
    assert parts == set(labels.HELEN11.parts)


def test_every_attribute_has_regions_of_the_seven() -> None:
    assert tuple(labels.ATTRIBUTE_REGIONS) == labels.ATTRIBUTES
    assert all(set(regions) <= set(labels.HELEN7.classes) for regions in labels.ATTRIBUTE_REGIONS.values())


@pytest.mark.parametrize("flag", ["--help", "--version"])
def test_the_front_door_imports_no_torch(flag: str) -> None:
    code = f"import sys; from facelightning.__main__ import main; main([{flag!r}]); print('torch' in sys.modules)"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.splitlines()[-1] == "False"
    assert "facelightning" in output


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no such options")
@pytest.mark.parametrize(("chosen", "is_kept"), [({}, True), ({"MALLOC_ARENA_MAX": "8"}, False)])
def test_memory_that_a_step_frees_is_kept_for_the_next(chosen: dict[str, str], is_kept: bool) -> None:
    """Of ten steps the first alone asks the system for its 16,384 pages; unless the user has chosen otherwise."""
    code = """
import resource
from facelightning.__main__ import prepare
prepare("fit")
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    b"x" * 2**26
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MALLOC_")} | chosen
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert (int(done.stdout) < 3 * 2**14) == is_kept


def test_public_names() -> None:
    for name in facelightning.__all__:
        assert getattr(facelightning, name) is not None
    assert set(facelightning.__all__) <= set(dir(facelightning))
    with pytest.raises(AttributeError, match="nonsense"):
        facelightning.nonsense  # noqa: B018  # the access is what is tested
