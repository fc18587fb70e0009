"""The docstrings as Markdown: they are written for `help()`, with Sphinx's roles and footnotes."""

import re
from typing import Any

import griffe

REWRITTEN = (
    (r"^( *)Example:", r"\1Examples:"),  # the name of the section that shows code as code
    (r":\w+:`~?\.?(?:[\w.]+\.)?(\w+)`", r"`\1`"),  # :class:`~facelightning.models.LNet` is `LNet`
    (r" \[(\d)\]_", r"<sup>\1</sup>"),  # a footnote
    (r"^( *)\.\. \[(\d)\] ", r"\1<sup>\2</sup> "),
)


class Docstrings(griffe.Extension):
    """Rewrites each docstring before it is parsed."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite one."""
        if obj.docstring is not None:
            for pattern, replacement in REWRITTEN:
                obj.docstring.value = re.sub(pattern, replacement, obj.docstring.value, flags=re.MULTILINE)
