"""How the website shows a symbol: its name, its docstring, and a table of its docments. Named as `renderer` by .ci/site.py."""

import inspect
import re
from types import GenericAlias

from fastcore.docments import DocmentTbl
from fastcore.foundation import L
from nbdev.showdoc import BasicMarkdownRenderer


def shown(value) -> str:
    "A type as it is written (`Tensor | None`, `list[Tensor]`, not their module's names), any other value as its text."
    if value is inspect.Parameter.empty:
        return ""
    if inspect.isclass(value) and not isinstance(value, GenericAlias):
        return value.__name__
    return value if isinstance(value, str) else re.sub(r"\b(?:\w+\.)+(?=\w)", "", str(value))


def starred(symbol, name) -> str:
    "The comment behind `*name` or `**name`, which the table of docments does not know."
    source = inspect.getsource(symbol.__init__ if inspect.isclass(symbol) else symbol)
    found = re.search(rf"^\s*\*\*?{name}\b[^#\n]*#\s*(.+)$", source, re.MULTILINE)
    return found[1] if found else ""


class Table(DocmentTbl):
    "The table of docments, with bars and stars inside a cell escaped: a bar would begin the next cell."

    def _cells(self, props) -> list[str]:
        values = [shown(props[c]) if c == "anno" else props[c] for c in self._columns]
        return L(values).map(lambda value: value.replace("|", r"\|").replace("*", r"\*") if isinstance(value, str) else value)

    def _row(self, nm, props):
        if not isinstance(props["docment"], str):
            props["docment"] = starred(self.obj, nm)
        return [nm, *self._cells(props)]

    @property
    def return_str(self):
        props = dict(self.dm["return"])
        if props["docment"] in {starred(self.obj, name) for name in self.params}:  # docments takes that for what is returned
            props["docment"] = ""
        cells = [f"**{cell}**" if isinstance(cell, str) and cell else "" for cell in self._cells(props)]
        return "| " + " | ".join(["**Returns**", *cells]) + " |"


class Reference(BasicMarkdownRenderer):
    "A heading that can be linked to, what the symbol is for, and its parameters."

    def _repr_markdown_(self) -> str:
        kind = "" if self.isfunc else "*class* "
        parts = [f"{'#' * self.title_level} {self.nm}", kind + (self.docs or ""), self._table()]
        return "\n\n".join(part for part in parts if part)

    def _table(self) -> str:
        try:
            return Table(self.sym)._repr_markdown_()
        except (TypeError, ValueError, AttributeError):  # a constant, or a class without a signature
            return ""
