"""Configuration files: found by name, read as dictionaries; the files they extend, and their recipes."""

from collections.abc import Iterable
from contextlib import suppress
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from facelightning.errors import ConfigurationError, quoted


def config_folder() -> Path:
    """The folder of the bundled configurations: inside an installed package, beside it in a git checkout."""
    package = Path(str(files("facelightning")))
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def suggestion(name: str, known: Iterable[str]) -> str:
    """A hint at what to use instead of an unknown name.

    Example:
        >>> suggestion("sgs", ["avg", "ssg"])
        'did you mean ssg?'
    """
    names = sorted(known)
    close = get_close_matches(name, names, 1)
    return f"did you mean {close[0]}?" if close else f"there are {', '.join(names)}"


def find_config(name: str, folder: Path) -> Path:
    """The file of a configuration: the user's own file first, then a bundled one.

    Args:
        name: A path, relative to ``folder``, or the name of a bundled configuration.
        folder: Where relative paths start.

    Raises:
        ConfigurationError: If neither exists; the message lists the bundled ones.
    """
    bundled = config_folder()
    for path in (folder / name, bundled / name, bundled / f"{name}.yaml"):
        with suppress(OSError):  # a name that no file system takes
            if path.is_file():
                return path.resolve()
    if name in {path.name for path in (bundled / "recipes").iterdir()}:
        raise ConfigurationError(f"{name} is a recipe, which changes a configuration: add --recipe {name}")
    paths = (path.relative_to(bundled) for path in (*bundled.glob("*.yaml"), *bundled.glob("overlays/*.yaml")))
    hint = suggestion(name.removesuffix(".yaml"), (path.with_suffix("").as_posix() for path in paths))
    raise ConfigurationError(f"configuration {quoted(name)} is neither in {folder} nor bundled; {hint}")


MAX_VALUES = 100_000
"""The most that a configuration may hold: a few hundred bytes of YAML aliases can stand for more than any memory."""


def _size(value: Any, known: dict[int, float]) -> float:
    """How many values something loaded from YAML holds, with every alias unfolded; infinite if it holds itself."""
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in known:
        known[id(value)] = float("inf")
        items = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_size(item, known) for item in items)
    return known[id(value)]


def load_yaml(text: str) -> Any:
    """The plain values that a YAML text holds; raises :class:`yaml.YAMLError` if it is none.

    Example:
        >>> load_yaml("image_size: [218, 178]")
        {'image_size': [218, 178]}
    """
    # PyYAML's loader in Python, which it has everywhere, takes ten times as long
    return yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def read_config(path: Path) -> dict[str, Any]:
    """Read a configuration file; raises :class:`ConfigurationError` if it is not a YAML dictionary."""
    try:
        content = load_yaml(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = quoted(" ".join(str(error).split()), 120)
        raise ConfigurationError(f"configuration {path} is not YAML: {reason}") from None
    if _size(content, {}) > MAX_VALUES:
        raise ConfigurationError(f"configuration {path} unfolds to more than {MAX_VALUES} values: use fewer aliases")
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ConfigurationError(f"configuration {path} must hold keys and values, not a {type(content).__name__}")
    return content


def chain(path: Path) -> list[tuple[Path, dict[str, Any]]]:
    """A configuration and every file that it extends, base first: later files override earlier ones.

    ``extends`` names a file relative to its own, or a bundled one. It is not among the returned keys.

    Raises:
        ConfigurationError: If a file is missing or broken, or extends itself.
    """
    found: list[tuple[Path, dict[str, Any]]] = []
    base: str | None = str(path.resolve())
    while base is not None:
        path = find_config(base, path.parent)
        if path in (known := [file for file, _ in found]):
            circle = " extends ".join(str(file) for file in (*known, path))
            raise ConfigurationError(f"configuration {circle}: this is a circle; remove one `extends`")
        content = read_config(path)
        base = content.pop("extends", None)
        if not isinstance(base, str | None):
            raise ConfigurationError(f"configuration {path}: extends must be one name, not {quoted(str(base))}")
        found.append((path, content))
    return found[::-1]


def recipe_folder(recipe: str) -> Path:
    """The folder of a recipe, with one file for each configuration that it changes.

    Raises:
        ConfigurationError: If there is no such recipe; the message lists all recipes.
    """
    recipes = config_folder() / "recipes"
    if not recipe or not (recipes / recipe).is_dir():
        known = (path.name for path in recipes.iterdir())
        raise ConfigurationError(f"no recipe is named {recipe}; {suggestion(recipe, known)}")
    return recipes / recipe


def find_recipe(recipe: str, config: Path) -> Path | None:
    """The recipe's file for a configuration, or else for the nearest one that the configuration extends.

    Args:
        recipe: Name of a bundled recipe.
        config: The configuration's file.

    Returns:
        The file; ``None`` if the recipe does not cover the configuration.

    Raises:
        ConfigurationError: If there is no such recipe.

    Example:
        >>> find_recipe("small", config_folder() / "ssp.yaml").name
        'avg.yaml'
    """
    folder = recipe_folder(recipe)
    names = [file.name for file, _ in reversed(chain(config))]
    return next((folder / name for name in names if (folder / name).is_file()), None)
