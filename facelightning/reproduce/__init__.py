"""``facelightning reproduce``: the papers' tables, published numbers beside ours."""

from facelightning.reproduce.command import main, reproduce

__all__ = ["main", "reproduce"]
