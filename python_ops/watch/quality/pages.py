"""Makes Data Docs pages that need no network: removes scripts and what a page would fetch, and adds a style."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from python_ops.watch.quality.verdicts import Verdict

KEEP = 50
"""Runs of a source whose pages are kept."""

_ELSEWHERE = re.compile(
    r"<script\b.*?</script>|<link[^>]*\bhref=[\"']https?://[^>]*>"
    r"|<img[^>]*\bsrc=[\"']https?://[^>]*>|<footer\b.*?</footer>",
    re.DOTALL | re.IGNORECASE,
)
_MARK = "<style id='own'>"
_STYLE = (
    _MARK
    + """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; padding: 1rem; max-width: 75rem; }
h1 { font-size: 1.3rem; } a { color: light-dark(#0969da, #6cb0ee); }
ol { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: .5rem; } ul { padding-left: 1.2rem; }
table { border-collapse: collapse; width: 100%; margin: .5rem 0 1rem; }
th, td { text-align: left; vertical-align: top; padding: .35rem .6rem; border-bottom: 1px solid #8884; }
td { overflow-wrap: anywhere; } .list td:not(:nth-child(3)) { white-space: nowrap; }
.collapse:not(.show) { display: none; }
.fa-check-circle::before { content: "\\2713\\a0 holds"; color: light-dark(#1a7f37, #4cc38a); font-style: normal; }
.fa-times::before { content: "\\2717\\a0 not so"; color: light-dark(#cf222e, #f2776d); font-style: normal; }
.fa-exclamation-triangle::before { content: "!\\a0 not judged"; color: light-dark(#9a6700, #e2b13c); }
.card.mb-3, .modal, [data-toggle=collapse] { display: none; }
</style>"""
)


def make_own(pages: Iterable[Path]) -> None:
    """Removes from pages their scripts, which need libraries of other hosts, and everything else from other hosts."""
    for page in pages:
        text = page.read_text(encoding="utf-8")
        if _MARK not in text:
            own = _ELSEWHERE.sub("", text).replace("</head>", f"{_STYLE}</head>", 1)
            page.write_text(own, encoding="utf-8")


def write_index(folder: Path, verdicts: Sequence[Verdict]) -> Path:
    """Writes the list of judged batches, the newest first, each with its page."""
    links: dict[str, dict[int, str]] = {}
    for page in sorted((folder / "validations").glob("*/batch */*/*.html")):
        source, run = page.relative_to(folder / "validations").parts[:2]
        links.setdefault(source, {})[int(run.split()[1])] = quote(str(page.relative_to(folder)))
    jinja = Environment(
        loader=PackageLoader(__package__, "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    newest = sorted(verdicts, key=lambda verdict: (verdict.at, verdict.source), reverse=True)
    text = jinja.get_template("index.html.j2").render(verdicts=newest, links=links, style=Markup(_STYLE))
    path = folder / "index.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def prune(*folders: Path) -> None:
    """Removes all but the newest runs below each folder."""
    for folder in folders:
        runs = sorted(path for path in folder.glob("*") if path.is_dir())
        for old in runs[:-KEEP]:
            shutil.rmtree(old)
