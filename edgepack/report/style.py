"""The report page's style sheet: light, dark, phone and print."""

from typing import Final

STYLE_SHEET: Final = """
:root {
  color-scheme: light dark;
  --paper: #ffffff; --panel: #f6f7f9; --ink: #16191d; --muted: #565d68;
  --rule: #dfe2e7; --grid: #e6e8ec; --faint: #a9b1bd; --accent: #0b5cad;
  --good: #1a6e35; --good-paper: #e7f4ea; --warn: #8a5200; --warn-paper: #fdf3e0;
  --bad: #a8201a; --bad-paper: #fdeceb;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #121519; --panel: #1a1e24; --ink: #e9ebee; --muted: #a2a9b4;
    --rule: #2d333b; --grid: #262b32; --faint: #5f6a78; --accent: #79b4ff;
    --good: #6fd08c; --good-paper: #15291b; --warn: #f0b757; --warn-paper: #2e2412;
    --bad: #ff9089; --bad-paper: #351a18;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif;
  font-variant-numeric: tabular-nums; overflow-wrap: anywhere;
}
main, header, footer { max-width: 66rem; margin: 0 auto; padding: 0 1.5rem; }
header { padding-top: 3rem; }
.over { margin: 0 0 .5rem; color: var(--muted); font-size: .875rem; letter-spacing: .01em; }
h1 {
  margin: 0; max-width: 46rem; font-size: clamp(1.5rem, 1.1rem + 1.9vw, 2.25rem);
  font-weight: 650; line-height: 1.2; letter-spacing: -.018em; text-wrap: balance;
}
h2 {
  margin: 3.5rem 0 .25rem; padding-top: 1.25rem; border-top: 1px solid var(--rule);
  font-size: 1.3rem; font-weight: 650; line-height: 1.3; letter-spacing: -.01em;
}
h3 { margin: 2rem 0 .5rem; font-size: 1rem; font-weight: 650; }
p { margin: .5rem 0; max-width: 44rem; }
.lead { color: var(--muted); }
.tiles {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr));
  gap: 1px; margin: 2rem 0 0; padding: 0; overflow: hidden;
  border: 1px solid var(--rule); border-radius: .625rem;
}
.tiles > div { padding: 1rem 1.125rem 1.125rem; box-shadow: 0 0 0 1px var(--rule); }
.tiles dt { color: var(--muted); font-size: .8125rem; }
.tiles dd { margin: 0; }
.tiles .value {
  margin: .2rem 0 .15rem; font-size: 1.5rem; font-weight: 620; line-height: 1.2;
  letter-spacing: -.015em;
}
.tiles .detail { color: var(--muted); font-size: .8125rem; line-height: 1.4; }
.notices { margin: 1.25rem 0 0; padding: 0; list-style: none; }
.notices > li {
  margin: .5rem 0 0; padding: .65rem 1rem; border-radius: .5rem;
  border-left: 4px solid var(--faint); background: var(--panel);
}
.notices ul { margin: .25rem 0 0; padding-left: 1.1rem; }
.notices .warning { border-color: var(--warn); background: var(--warn-paper); }
.notices .fault { border-color: var(--bad); background: var(--bad-paper); }
.notices strong { font-weight: 650; }
.warning > strong { color: var(--warn); }
.fault > strong { color: var(--bad); }
/* A shade at the right edge tells that a table goes on; it is covered where the table ends. */
.scroll { max-width: 100%; overflow-x: auto; margin: .75rem 0 1rem;
  background:
    linear-gradient(to left, var(--paper) 1rem, transparent) right / 2rem 100% no-repeat local,
    linear-gradient(to left, var(--faint), transparent) right / .5rem 100% no-repeat scroll; }
.scroll:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
table { width: 100%; border-collapse: collapse; font-size: .9rem; line-height: 1.4; }
caption { padding: 0 0 .5rem; color: var(--muted); font-size: .8125rem; text-align: left; }
caption > span, .notes > td > div { position: sticky; left: 0; display: inline-block;
  max-width: calc(100vw - 2rem); }
th, td { padding: .5rem .75rem; border-bottom: 1px solid var(--rule); text-align: left;
  vertical-align: top; overflow-wrap: normal; }
th:first-child, td:first-child { padding-left: 0; }
th:last-child, td:last-child { padding-right: 0; }
thead th { color: var(--muted); font-size: .8125rem; font-weight: 500; vertical-align: bottom; }
tbody th .interval { font-weight: 400; }
tbody th { font-weight: 500; overflow-wrap: anywhere; min-width: 8rem; }
tbody th.ordinal { min-width: 3rem; }
td.text { overflow-wrap: anywhere; min-width: 9rem; }
td.unknown { color: var(--muted); }
.number { text-align: right; white-space: nowrap; }
thead .number { white-space: normal; }
.interval { display: block; color: var(--muted); font-size: .8125rem; }
tr.chosen > *, tr.chosen + tr.notes > * {
  background: color-mix(in srgb, var(--accent) 8%, transparent); }
tr.chosen > :first-child { font-weight: 650; }
tr.skipped > * { color: var(--muted); }
.badge {
  display: inline-block; padding: .05rem .55rem; border-radius: 1rem; background: var(--panel);
  color: var(--ink); font-size: .8125rem; font-weight: 550; white-space: nowrap;
}
.badge.good { background: var(--good-paper); color: var(--good); }
.badge.warning { background: var(--warn-paper); color: var(--warn); }
.badge.fault { background: var(--bad-paper); color: var(--bad); }
tr.noted > * { border-bottom: 0; }
tr.notes > td { padding-top: 0; overflow-wrap: anywhere; }
.why { display: block; margin-top: .2rem; color: var(--muted); font-size: .8125rem; }
.notes .why { margin: 0; }
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 26rem), 1fr));
  gap: 1rem 2rem; margin: 1rem 0; }
figure { margin: 0; min-width: 0; }
figure svg { display: block; width: 100%; max-width: 32rem; height: auto; }
figcaption { margin-top: .35rem; color: var(--muted); font-size: .8125rem; line-height: 1.45; }
.legend { margin: -.25rem 0 1.5rem; padding: 0; list-style: none; color: var(--muted);
  font-size: .8125rem; line-height: 1.45; }
.legend li { display: inline-block; margin-right: 1.25rem; }
.legend svg { width: 24px; height: 20px; vertical-align: -5px; }
pre { overflow-x: auto; padding: .75rem 1rem; border-radius: .5rem; background: var(--panel);
  font: .8125rem/1.5 ui-monospace, "SF Mono", "Cascadia Mono", Menlo, monospace;
  white-space: pre-wrap; }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr));
  gap: 0 2.5rem; }
.columns > * { min-width: 0; }
details { margin: 1rem 0; }
summary { cursor: pointer; font-size: .9rem; color: var(--accent); }
code { font: .8125rem/1.5 ui-monospace, "SF Mono", "Cascadia Mono", Menlo, monospace;
  overflow-wrap: anywhere; }
footer { margin-top: 4rem; padding-top: 1rem; padding-bottom: 3rem; color: var(--muted);
  font-size: .8125rem; }
footer p { border-top: 1px solid var(--rule); padding-top: 1rem; max-width: none; }
@media (max-width: 60rem) {
  th, td { padding-left: .35rem; padding-right: .35rem; }
  td.text { min-width: 7rem; }
}
@media (max-width: 40rem) {
  main, header, footer { padding-left: 1rem; padding-right: 1rem; }
  header { padding-top: 1.75rem; }
  h2 { margin-top: 2.5rem; }
  .tiles { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  .tiles > div { padding: .8rem .9rem; }
  .tiles .value { font-size: 1.25rem; }
  th, td { padding: .4rem .35rem; }
  tbody th { min-width: 7.5rem; }
  td.text { min-width: 6.5rem; }
  /* Wide tables become a block a row: its name, then each cell below its column's name. */
  .wide, .wide caption, .wide tbody { display: block; }
  .wide thead { position: absolute; width: 1px; height: 1px; overflow: hidden;
    clip-path: inset(50%); }
  .wide tr { display: grid; grid-template-columns: repeat(auto-fill, minmax(6.25rem, 1fr));
    padding: .35rem 0; border-bottom: 1px solid var(--rule); }
  .wide tr.noted { padding-bottom: 0; border-bottom: 0; }
  .wide tr.notes { display: block; padding-top: 0; }
  .wide th, .wide td { padding: .2rem 0; border-bottom: 0; text-align: left; min-width: 0;
    white-space: normal; }
  .wide .badge { white-space: normal; }
  .wide tbody th { grid-column: 1 / -1; }
  .wide td::before { display: block; color: var(--muted); font-size: .75rem; }
  .wide .ordinal::before { content: var(--c1) " "; }
  .wide td:nth-child(2)::before { content: var(--c2); }
  .wide td:nth-child(3)::before { content: var(--c3); }
  .wide td:nth-child(4)::before { content: var(--c4); }
  .wide td:nth-child(5)::before { content: var(--c5); }
  .wide td:nth-child(6)::before { content: var(--c6); }
  .wide td:nth-child(7)::before { content: var(--c7); }
  .wide td:nth-child(8)::before { content: var(--c8); }
  .wide td:nth-child(9)::before { content: var(--c9); }
  .wide .notes td { display: block; }
  .wide td:empty { display: none; }
  .wide td.text:nth-child(2) { grid-column: span 2; padding-right: .75rem; }
  .wide tr.chosen, .wide tr.chosen + tr.notes {
    background: color-mix(in srgb, var(--accent) 8%, transparent); }
  .wide tr.chosen > *, .wide tr.chosen + tr.notes > * { background: none; }
}
@media print {
  :root {
    color-scheme: light;
    --paper: #ffffff; --panel: #f6f7f9; --ink: #000000; --muted: #444b55;
    --rule: #cfd3d9; --grid: #e0e3e8; --faint: #9aa3b0; --accent: #0b5cad;
    --good: #1a6e35; --good-paper: #ffffff; --warn: #8a5200; --warn-paper: #ffffff;
    --bad: #a8201a; --bad-paper: #ffffff;
  }
  @page { margin: 16mm 14mm; }
  body { font-size: 10.5pt; }
  main, header, footer { max-width: none; padding: 0; }
  h2, h3 { break-after: avoid; }
  h2 { margin-top: 1.75rem; }
  figure, tr, .tiles, .notices > li { break-inside: avoid; }
  thead, caption, tr.noted { break-after: avoid; }
  table { font-size: 9pt; }
  th, td { padding-top: .28rem; padding-bottom: .28rem; }
  .tiles { grid-template-columns: repeat(auto-fit, minmax(7.25rem, 1fr)); }
  .tiles > div { padding: .6rem .75rem; }
  .tiles .value { font-size: 1.2rem; }
  details::details-content { display: block; content-visibility: visible; }
  .scroll { overflow: visible; background: none; }
  .plots { grid-template-columns: 1fr 1fr; }
  footer { margin-top: 2rem; }
}
"""
