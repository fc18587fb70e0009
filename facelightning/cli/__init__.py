"""The command line: one parser for all commands."""

from facelightning.cli.arguments import options, own_data
from facelightning.cli.command import FaceCLI
from facelightning.cli.parser import FaceParser

__all__ = ["FaceCLI", "FaceParser", "options", "own_data"]
