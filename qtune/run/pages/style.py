"""How the pages look: one sheet, light and dark, and the frame around a body."""

from __future__ import annotations

from html import escape

STYLE = """
:root { color-scheme: light dark; --back: #f5f6f8; --card: #fff; --ink: #1b2430; --quiet: #5b6776;
  --line: #e3e7ec; --grid: #e6eaee; --soft: #f0f2f5; --good: #0b7a53; --good-back: #def3e9;
  --bad: #b3261e; --bad-back: #fbe4e2; --warn: #8a5300; --warn-back: #fdf0d9;
  --c1: #2f6fb3; --c2: #d9730d; --c3: #0b8a62; --c4: #8250c4; --c5: #c2334d; --c6: #0f8b9d; }
@media (prefers-color-scheme: dark) { :root { --back: #11151a; --card: #191f26; --ink: #e4e9ef;
  --quiet: #93a0ae; --line: #2a323c; --grid: #2b343e; --soft: #212932; --good: #5fd3a0;
  --good-back: #12392a; --bad: #ff8f86; --bad-back: #47201d; --warn: #f2b866; --warn-back: #40300f;
  --c1: #6aa9ee; --c2: #f5a04c; --c3: #46c99a; --c4: #b391f0; --c5: #f27d92; --c6: #4fc6d6; } }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, "Segoe UI", "Helvetica Neue", Arial, sans-serif; margin: 0 auto;
  color: var(--ink); background: var(--back); padding: 28px 20px 64px; max-width: 1080px; }
h1 { font-size: 25px; line-height: 1.25; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 17px; margin: 34px 0 10px; } h3 { font-size: 14px; margin: 18px 0 4px; }
p { margin: 4px 0; } .quiet { color: var(--quiet); } b { font-weight: 600; }
header { margin-bottom: 16px; } header p { color: var(--quiet); }
.badge { display: inline-block; font-size: 13px; font-weight: 600; padding: 2px 10px;
  border-radius: 99px; margin-left: 10px; vertical-align: 4px; background: var(--warn-back);
  color: var(--warn); white-space: nowrap; }
.badge.good { background: var(--good-back); color: var(--good); }
.badge.bad { background: var(--bad-back); color: var(--bad); }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 14px 18px; margin: 12px 0; overflow-x: auto; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(185px, 1fr)); gap: 12px; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 12px 16px; } .tile span { display: block; color: var(--quiet); font-size: 13px; }
.tile b { display: block; font-size: 18px; font-variant-numeric: tabular-nums;
  overflow-wrap: anywhere; line-height: 1.3; }
.say { border-radius: 10px; padding: 10px 16px; margin: 12px 0; background: var(--warn-back);
  color: var(--warn); overflow-wrap: anywhere; }
.say.bad { background: var(--bad-back); color: var(--bad); } .say p { margin: 3px 0; }
.figures { display: grid; grid-template-columns: 1fr 1fr; gap: 12px; }
.figure { background: var(--card); border: 1px solid var(--line); border-radius: 10px; margin: 0;
  padding: 12px 12px 6px; min-width: 0; } .wide { grid-column: 1 / -1; }
figcaption { padding: 0 6px 6px; display: flex; flex-wrap: wrap; gap: 2px 14px;
  align-items: baseline; font-size: 14px; } figcaption b { font-size: 15px; }
.key { color: var(--quiet); font-size: 13px; white-space: nowrap; }
.key::before { content: ""; display: inline-block; width: 16px; height: 0; margin-right: 6px;
  border-top: 3px solid var(--k); vertical-align: 4px; }
.key.pale::before { opacity: .4; } .key.limit::before { border-top-style: dashed; }
.key.dots::before { width: 9px; height: 9px; border: 0; border-radius: 9px; background: var(--k);
  vertical-align: 0; }
svg { display: block; width: 100%; height: auto; font-family: inherit; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
td, th { padding: 5px 16px 5px 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); } th { font-weight: 600; color: var(--quiet); }
tr:last-child td { border-bottom: 0; } td:last-child, th:last-child { padding-right: 0; }
.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.k { white-space: nowrap; } td { overflow-wrap: anywhere; } .good { color: var(--good); }
.bad { color: var(--bad); } td.good, td.bad { font-weight: 600; }
.ci { color: var(--quiet); font-size: 12px; display: block; } .more { color: var(--quiet); }
.bars { width: 38%; min-width: 130px; } .bars div { height: 8px; border-radius: 3px; margin: 3px 0;
  background: var(--c1); min-width: 1px; } .bars div.second { background: var(--c2); }
pre, .text { white-space: pre-wrap; overflow-wrap: anywhere; font: 13px/1.55 ui-monospace,
  "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; margin: 0; }
.sample { display: grid; grid-template-columns: 1fr 1fr 1fr; gap: 10px; margin-top: 8px; }
.sample > div { background: var(--soft); border-radius: 8px; padding: 8px 12px; min-width: 0; }
.sample span { display: block; color: var(--quiet); font-size: 12.5px; }
.sample .right { box-shadow: inset 3px 0 0 var(--good); }
summary { cursor: pointer; color: var(--quiet); padding: 2px 0; } details pre { margin-top: 8px; }
pre i { font-style: normal; color: var(--quiet); } pre .asked { font-weight: 600; }
footer { color: var(--quiet); font-size: 13px; margin-top: 32px; }
@media (max-width: 720px) { .figures, .sample { grid-template-columns: 1fr; }
  body { padding: 18px 12px 48px; } .card { padding: 10px 12px; } }
@media print { :root { --back: #fff; } .card, .figure, .tile { break-inside: avoid; } }
"""


def page(title: str, body: str, *, more: str = "") -> str:
    """A whole HTML page that needs no other file, no script and no network; `more` is added to
    its sheet."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}{more}</style></head>\n"
        f"<body>\n{body}\n</body></html>\n"
    )
