"""How the website shows a symbol: its name, its docstring, and a table of its docments. Named as `renderer` by .ci/site.py."""

from fastcore.docments import DocmentTbl
from fastcore.foundation import L
from nbdev.showdoc import BasicMarkdownRenderer


class Table(DocmentTbl):
    "The table of docments, with bars and stars inside a cell escaped."

    def _row(self, nm, props):
        return L(super()._row(nm, props)).map(lambda value: value.replace("|", r"\|").replace("*", r"\*") if isinstance(value, str) else value)


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
