"""The page around the content: one file, nothing fetched, readable on a phone and in the dark."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence

from vwkit.report.markup import Html, join, tag

__all__ = ["definitions", "page", "section", "table"]

# The browser itself refuses everything from elsewhere, and every script but a page's own one.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

# Colours: Okabe and Ito's palette, which colour-blind people can tell apart, darkened where it is
# text. Right and wrong are told by a sign and a line style, too.
_STYLE = """
:root{color-scheme:light dark;--paper:#f6f6f4;--card:#fff;--ink:#1d2327;--soft:#5a646b;
--line:#dfe1de;--grid:#e9ebe8;--blue:#0072b2;--blue-soft:#cfe3ef;--red:#c31;--green:#007a5a;
--well:#eeefec}
@media (prefers-color-scheme:dark){:root{--paper:#14181b;--card:#1c2125;--ink:#e8eaeb;
--soft:#a5afb5;--line:#333b41;--grid:#2a3136;--blue:#56b4e9;--blue-soft:#23414f;--red:#ff7058;
--green:#2fbf93;--well:#262c31}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);
font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","Liberation Sans",sans-serif;
-webkit-text-size-adjust:100%}
main,header,footer{max-width:1160px;margin:0 auto;padding:0 20px}
header{padding-top:40px;padding-bottom:8px}
h1{font-size:2.1rem;line-height:1.15;margin:0;letter-spacing:-.02em;overflow-wrap:anywhere}
h2{font-size:1.25rem;line-height:1.3;margin:0 0 4px;letter-spacing:-.01em}
h3{font-size:.95rem;line-height:1.4;margin:0;font-weight:600;overflow-wrap:anywhere}
p{margin:0 0 12px;max-width:70ch}
.lead{color:var(--soft);font-size:1.08rem;margin:8px 0 0;max-width:none;overflow-wrap:anywhere}
.lead b{color:var(--ink);font-weight:600}
.arrow{color:var(--blue);padding:0 .35em}
.note{color:var(--soft);font-size:.92rem;max-width:82ch}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(128px,1fr));gap:12px;
margin:24px 0 0;padding:0}
.tile{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:12px 14px}
.tile dt{color:var(--soft);font-size:.82rem}
.tile dd{margin:0;font-size:1.5rem;font-weight:650;letter-spacing:-.02em;line-height:1.25;
font-variant-numeric:tabular-nums}
.tile dd small{font-size:.82rem;font-weight:400;color:var(--soft);letter-spacing:0;
display:block;line-height:1.35}
.tile.best dd{color:var(--blue)}
section{background:var(--card);border:1px solid var(--line);border-radius:12px;
padding:20px 24px 22px;margin:18px 0}
.columns{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,380px),1fr));
gap:12px 32px;align-items:start}
figure{margin:10px 0 0}
figcaption{font-size:.92rem;font-weight:600;margin-bottom:4px}
.scroll{overflow-x:auto;margin:12px 0 0}
table{border-collapse:collapse;width:100%;font-size:.94rem}
th{text-align:left;font-weight:600;color:var(--soft);font-size:.82rem;white-space:nowrap}
th,td{padding:7px 16px 7px 0;border-bottom:1px solid var(--line);vertical-align:baseline}
th:last-child,td:last-child{padding-right:0}
tbody tr:last-child td{border-bottom:0}
td.number,th.number{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
td.wide{width:45%;min-width:56px}
td.name{overflow-wrap:break-word}
.meter{display:block;height:10px;border-radius:5px;background:var(--well);overflow:hidden}
.meter i{display:block;height:100%;min-width:2px;background:var(--blue);border-radius:5px}
.facts{display:grid;grid-template-columns:auto 1fr;gap:4px 18px;margin:12px 0 0;font-size:.94rem}
.facts dt{color:var(--soft)}
.facts dd{margin:0;font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
.chart{display:block;width:100%;height:auto;max-width:560px}
.chart text{font-size:13px;fill:var(--soft);font-variant-numeric:tabular-nums}
.chart .label{fill:var(--ink)}
.chart .mid{text-anchor:middle}.chart .end{text-anchor:end}
.chart .grid{stroke:var(--grid)}.chart .axis{stroke:var(--soft)}
.chart .line{fill:none;stroke:var(--blue);stroke-width:2.2;stroke-linejoin:round}
.chart .dot{fill:var(--card);stroke:var(--blue);stroke-width:2}
.chart .bar{fill:var(--blue)}
.word{display:grid;grid-template-columns:150px 1fr;gap:4px 16px;padding:10px 0;
border-top:1px solid var(--line);align-items:center}
.word p{margin:0;font-size:.86rem;color:var(--soft);line-height:1.35}
.patches{display:flex;flex-wrap:wrap;gap:5px}
.patches img{width:88px;height:88px;border-radius:5px;display:block;background:var(--well)}
.query{padding:14px 0 4px;border-top:1px solid var(--line)}
.query>.note{margin:0 0 8px}
.pictures{display:grid;grid-template-columns:repeat(auto-fill,minmax(138px,1fr));gap:12px;
list-style:none;margin:8px 0 6px;padding:0}
.pictures li{min-width:0}
.frame{aspect-ratio:4/3;background:var(--well);border-radius:7px;overflow:hidden;
border:3px solid transparent;display:flex;align-items:center;justify-content:center}
.frame img{width:100%;height:100%;object-fit:contain;display:block}
.frame span{font-size:.8rem;color:var(--soft);padding:4px;text-align:center}
.asked .frame{border-color:var(--red)}
.right .frame{border-color:var(--green)}
.wrong .frame{border-color:var(--red);border-style:dashed}
.says{font-size:.8rem;line-height:1.35;margin:4px 1px 0;color:var(--soft);
font-variant-numeric:tabular-nums}
.says b{color:var(--ink);font-weight:600}
.right .sign{color:var(--green)}.wrong .sign,.asked .sign{color:var(--red)}
.sign i{font-style:normal}.sign{font-weight:700;white-space:nowrap}
.id{display:-webkit-box;-webkit-box-orient:vertical;-webkit-line-clamp:2;overflow:hidden;
overflow-wrap:anywhere;unicode-bidi:isolate}
details{margin:14px 0 0}
summary{cursor:pointer;font-weight:600;color:var(--blue);width:fit-content;border-radius:4px}
:focus-visible{outline:3px solid var(--blue);outline-offset:3px}
pre{background:var(--well);border-radius:8px;padding:14px 16px;overflow:auto;margin:12px 0 0;
font:.84rem/1.5 ui-monospace,"SF Mono",Menlo,Consolas,"DejaVu Sans Mono",monospace;max-height:34rem}
footer{color:var(--soft);font-size:.86rem;padding-top:6px;padding-bottom:40px}
@media (max-width:640px){
.sign i{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
header{padding-top:24px}main,header,footer{padding-left:14px;padding-right:14px}
h1{font-size:1.7rem}section{padding:16px 16px 18px}
.tiles{grid-template-columns:repeat(2,1fr);gap:8px}
.tile{padding:10px 12px}.tile dd{font-size:1.3rem}
.chart text{font-size:16px}
.word{grid-template-columns:1fr}
.patches img{width:calc(25% - 4px);height:auto;aspect-ratio:1;min-width:0}
.pictures{grid-template-columns:repeat(3,1fr);gap:8px}
.asked{grid-column:1/-1;max-width:70%}
td.wide{min-width:40px}th,td{padding-right:10px}}
@media print{body{background:#fff}section,.tile{break-inside:avoid}}
"""


def page(
    title: str,
    lead: Html,
    body: Iterable[Html | None],
    *,
    top: Html | None = None,
    style: str = "",
    script: str = "",
) -> str:
    """Return a whole page.

    Parameters
    ----------
    title : str
        The page's name and heading.
    lead : Html
        What stands below it.
    body : sections
    top : Html, optional
        What stands below the lead, above the sections.
    style : str
        CSS for this kind of page, after what all pages share.
    script : str
        JavaScript that runs when the page is there. It is fixed text of the program's own: nothing that
        comes from files may be put into it; data belong into the page's elements, escaped.
    """
    policy = _POLICY
    if script:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        policy += f"; script-src 'sha256-{digest}'"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", f"{title} · vwkit"),
        tag("style", Html(_STYLE + style)),
    )
    content = tag(
        "body",
        tag("header", tag("h1", title), tag("p", lead, class_="lead"), top),
        tag("main", *body),
        tag("footer", "Made by vwkit. This page is one file and fetches nothing."),
        tag("script", Html(script)) if script else None,
    )
    return f"<!doctype html>\n{tag('html', head, content, lang='en')}\n"


def section(title: str, *content: object, note: object = None) -> Html:
    """Return a part of the page under a heading."""
    said = None if note is None else tag("p", note, class_="note")
    return tag("section", tag("h2", title), said, *content)


def table(
    name: str, head: Sequence[str], rows: Iterable[Sequence[object]], numbers: Iterable[int] = ()
) -> Html:
    """Return a table called `name`; the columns in `numbers` are aligned right."""
    right = set(numbers)

    # A column without a heading holds bars.
    kinds = ["number" if i in right else "name" if text else "wide" for i, text in enumerate(head)]
    top = join(
        tag("th", text, scope="col", class_=kind) if text else tag("td", class_=kind)
        for text, kind in zip(head, kinds, strict=True)
    )
    lines = [
        tag("tr", *(tag("td", cell, class_=kind) for cell, kind in zip(row, kinds, strict=True)))
        for row in rows
    ]
    inner = tag("table", tag("thead", tag("tr", top)), tag("tbody", *lines))
    # Focusable, so that a keyboard can scroll it where it is wider than the screen.
    return tag("div", inner, class_="scroll", tabindex="0", role="region", aria_label=name)


def definitions(pairs: Iterable[tuple[str, object]]) -> Html:
    """Return names and values below each other."""
    return tag(
        "dl", *(join([tag("dt", name), tag("dd", value)]) for name, value in pairs), class_="facts"
    )
