"""How the library is built: floors that import only downwards, labels that fit together, a quick front door."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import facelightning
from facelightning import labels

PACKAGE = Path(facelightning.__file__).parent

FLOORS = (
    {"__main__"},
    {"commands", "reproduce"},
    {"cli"},
    {"callbacks"},
    {"tasks"},
    {"objectives"},
    {"data", "models", "losses", "metrics", "statistics", "figures"},
    {"labels", "configs", "checkpoint", "runs", "errors"},
)
"""From the roof to the ground: a part imports from the floors below its own; the ground's own parts may meet."""

FRONT_DOOR = {"data", "labels", "tasks"}
"""What ``facelightning/__init__.py`` offers."""


def floor_of(part: str) -> int:
    return next(number for number, floor in enumerate(FLOORS) if part in floor)


def imported_parts(path: Path) -> set[str]:
    """The parts of the package that a module imports."""
    parts: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        parts |= {name.split(".")[1] for name in names if name.startswith("facelightning.")}
    return parts


MODULES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    others = imported_parts(path) - {part}
    if part == "__init__":
        assert others <= FRONT_DOOR
        return
    ground = len(FLOORS) - 1
    for other in others:
        assert floor_of(other) > floor_of(part) or floor_of(other) == floor_of(part) == ground, (
            f"{part} imports {other}"
        )


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


def test_public_names() -> None:
    for name in facelightning.__all__:
        assert getattr(facelightning, name) is not None
    assert set(facelightning.__all__) <= set(dir(facelightning))
    with pytest.raises(AttributeError, match="nonsense"):
        facelightning.nonsense  # noqa: B018  # the access is what is tested
