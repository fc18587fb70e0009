"""Configuration files: found by name, read as dictionaries."""

from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from facelightning.errors import ConfigurationError


def config_folder() -> Path:
    """Where the bundled configurations lie: inside an installed package, beside it in a checkout."""
    package = Path(str(files("facelightning")))
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def find_config(name: str, folder: Path) -> Path:
    """The file that a configuration's name means: an own file first, then a bundled one.

    Args:
        name: A path, relative to ``folder``, or the name of a bundled configuration.
        folder: Where relative paths start.

    Raises:
        ConfigurationError: If there is neither; the message lists the bundled ones.
    """
    bundled = config_folder()
    for path in (folder / name, bundled / name, bundled / f"{name}.yaml"):
        if path.is_file():
            return path.resolve()
    known = ", ".join(sorted(path.relative_to(bundled).as_posix() for path in bundled.rglob("*.yaml")))
    raise ConfigurationError(f"configuration {name} is not in {folder}; bundled ones are: {known}")


def read_config(path: Path) -> dict[str, Any]:
    """A configuration file as a dictionary, or one clear sentence."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"configuration {path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise ConfigurationError(f"configuration {path} must hold keys and values, not a {type(content).__name__}")
    return content
