#!/usr/bin/env python3
"""The HTML report of `keyfold report`, looked at in headless Chromium: on a screen, on a phone, on paper, and by a screen reader's names.

    python3 tools/report.py --keyfold COMMAND [--out FOLDER]    the report of a keyring with a year of made-up events, checked
    python3 tools/report.py --page FILE [--out FOLDER]          the same checks of another report

FOLDER gets report.html, report.pdf and a picture for each width. Where no Chromium is installed, root on Debian installs the package
`chromium`; anybody else is told, and the step is skipped.
"""

import argparse
import html
import json
import re
import shutil
import subprocess
import sys
import zlib
from datetime import datetime, timedelta, timezone
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "servers"))
import shared  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
NAMES = ["chromium", "chromium-browser", "google-chrome"]
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars"]
# In CSS pixels: a small phone, the printable width of A4, a screen.
PHONE, PAPER, SCREEN = 360, 687, 1280
AT = datetime(2031, 3, 31, 12, tzinfo=timezone.utc)

AUDIT = """
[keks.second]
uri = "local:second.kek"
[keks.audit]
uri = "local:audit.kek"
wraps = "audit"
[audit]
file = "audit.jsonl"
kek = "audit"
actor = "patient-api"
"""

# What the ready-made policies have not: tokens, a format that is kept, an index, documents that need no manifest.
POLICY = """
version = 1
rows = 1000000
[documents.letter]
only_if = { "$.resourceType" = "Letter" }
row_binding = "$.id"
manifest = "written"
[fields."letter.text"]
mode = "document"
only_if = { "$.resourceType" = "Letter" }
paths = ["$.text"]
[fields."study.code"]
identifier = "R"
mode = "token"
columns = ["study_code"]
[fields."legacy.number"]
identifier = "J"
mode = "format-preserving"
format = "digits"
columns = ["legacy_number"]
[fields."billing.mrn"]
identifier = "H"
row_binding = "none"
columns = ["billing_mrn"]
[fields."billing.mrn".index.lookup]
kind = "digits"
bits = 12
"""

# Run in a page around the report, which itself may run nothing.
PROBE = """
<!DOCTYPE html><meta charset="utf-8"><iframe id="report" width="WIDTH" height="4000" style="border:0" srcdoc="REPORT"></iframe>
<pre id="found"></pre>
<script>
addEventListener('load', () => {
  const page = document.getElementById('report').contentDocument, wrong = [], view = page.defaultView;
  const say = (what, node) => wrong.push(what + ': ' + (node.outerHTML || '').slice(0, 120));
  const words = ids => ids.split(' ').map(id => page.getElementById(id)?.textContent.trim() || '').join(' ').trim();
  const width = page.documentElement.scrollWidth;
  if (width > WIDTH) {
    wrong.push('the page is ' + width + ' pixels wide in WIDTH');
    for (const node of page.querySelectorAll('body *'))
      if (node.getBoundingClientRect().right > WIDTH + 1 && !node.parentElement.closest('.scroll')) say('too wide', node);
  }
  if (WIDTH >= PAPER)
    for (const node of page.querySelectorAll('.scroll')) if (node.scrollWidth > node.clientWidth + 1) say('does not fit on paper', node);
  if (!page.documentElement.lang || !page.title.trim()) wrong.push('no language or no title');
  if (page.querySelectorAll('h1').length !== 1 || page.querySelectorAll('main').length !== 1) wrong.push('not one h1 and one main');
  let level = 0;
  for (const node of page.querySelectorAll('h1,h2,h3,h4')) {
    if (+node.tagName[1] > level + 1) say('a heading is skipped', node);
    if (!node.textContent.trim()) say('an empty heading', node);
    level = +node.tagName[1];
  }
  for (const node of page.querySelectorAll('svg, figure, section'))
    if (!words(node.getAttribute('aria-labelledby') || '')) say('has no name', node);
  for (const node of page.querySelectorAll('svg')) {
    if (node.getAttribute('role') !== 'img' || words(node.getAttribute('aria-labelledby')).length < 40) say('no text says it', node);
    for (const text of node.querySelectorAll('text')) {
      const [inner, outer] = [text.getBoundingClientRect(), node.getBoundingClientRect()];
      if (inner.left < outer.left - 1 || inner.right > outer.right + 1 || inner.bottom > outer.bottom + 1) say('outside of the chart', text);
      if (inner.height < 7) say('too small to read', text);
    }
  }
  for (const node of page.querySelectorAll('figure')) if (!node.querySelector('table')) say('no table has its numbers', node);
  for (const node of page.querySelectorAll('nav, [role=region]')) if (!(node.getAttribute('aria-label') || '').trim()) say('has no name', node);
  for (const node of page.querySelectorAll('.scroll')) if (node.tabIndex !== 0) say('not reached with the keyboard', node);
  for (const node of page.querySelectorAll('a')) if (!page.querySelector(node.getAttribute('href')) || !node.textContent.trim()) say('leads nowhere', node);
  for (const node of page.querySelectorAll('table')) {
    if (!node.caption || !node.caption.textContent.trim()) say('has no caption', node);
    for (const row of node.tBodies[0].rows) if (row.cells.length !== node.tHead.rows[0].cells.length) say('another number of cells', row);
  }
  for (const node of page.querySelectorAll('th')) if (!['col', 'row'].includes(node.scope) || !node.textContent.trim()) say('no scope or no text', node);
  const ids = [...page.querySelectorAll('[id]')].map(node => node.id);
  if (new Set(ids).size !== ids.length) wrong.push('an ID stands twice');
  const light = colour => {
    const [r, g, b] = colour.match(/[\\d.]+/g).map(Number).map(c => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (a, b) => (Math.max(light(a), light(b)) + 0.05) / (Math.min(light(a), light(b)) + 0.05);
  const ground = node => {
    for (; node; node = node.parentElement) {
      const colour = view.getComputedStyle(node).backgroundColor;
      if (!/, 0\\)$/.test(colour) && colour !== 'transparent') return colour;
    }
    return 'rgb(255, 255, 255)';
  };
  for (const node of page.querySelectorAll('h1,h2,h3,p,li,a,th,td,caption,span'))
    if (contrast(view.getComputedStyle(node).color, ground(node)) < 4.5) say('too little contrast', node);
  for (const node of page.querySelectorAll('svg text'))
    if (contrast(view.getComputedStyle(node).fill, ground(node)) < 4.5) say('too little contrast', node);
  for (const node of page.querySelectorAll('svg .fill'))
    if (contrast(view.getComputedStyle(node).fill, ground(node)) < 3) say('too little contrast', node);
  for (const node of page.querySelectorAll('svg .line'))
    if (contrast(view.getComputedStyle(node).stroke, ground(node)) < 3) say('too little contrast', node);
  // That the style counts at all: its hash is in the policy of the page.
  if (view.getComputedStyle(page.querySelector('table')).borderCollapse !== 'collapse') wrong.push('the style was refused');
  const count = what => page.querySelectorAll(what).length;
  document.getElementById('found').textContent = JSON.stringify({wrong, charts: count('svg'), tables: count('table'), bars: count('svg rect.fill[height]'),
    lines: count('svg path.line'), height: page.documentElement.scrollHeight});
});
</script>
"""


def chromium():
    return next((path for path in map(shutil.which, NAMES) if path), None)


class Browser:
    def __init__(self, folder):
        self.command, self.folder, self.runs = shared.need(chromium, "chromium"), folder, 0

    def run(self, page, *arguments):
        """Each time with a profile of its own."""
        self.runs += 1
        profile = self.folder / f"profile-{self.runs}"
        command = [self.command, *FLAGS, f"--user-data-dir={profile}", *arguments, page.as_uri()]
        group = shared.Group(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace")
        try:
            out, err = group.process.communicate(timeout=120)
        finally:
            group.end()
        if group.process.returncode != 0:
            raise RuntimeError(f"{self.command} ended with {group.process.returncode}: {err[-500:]}")
        return out


def line(seq, time, action, **members):
    """A line of an audit file that nobody has authenticated: the report says so, and counts it all the same."""
    return json.dumps({"chain": "ab" * 16, "seq": seq, "at": 0, "time": time.strftime("%Y-%m-%dT%H:%M:%SZ"), "action": action,
                       "outcome": "ok", **{"actor": "patient-api", **members}, "mac": "00" * 32}, separators=(",", ":")) + "\n"


def make(keyfold, folder):
    """The report of a keyring that has all there is to show."""
    ring = folder / "ring"

    def run(*arguments):
        done = subprocess.run([keyfold, *map(str, arguments)], cwd=folder, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"keyfold {' '.join(map(str, arguments))}: {done.stderr}")

    run("init", ring, "--name", "Example <clinic> & a name that is long enough to break a line", "--environment", "production")
    for name in ("second", "audit"):
        run("keys", "new-kek", ring / f"{name}.kek")
    with (ring / "keyfold.toml").open("a") as config:
        config.write(AUDIT)
    config = ["--config", ring / "keyfold.toml"]
    (folder / "more.toml").write_text(POLICY)
    policies = [ROOT / "policies" / "fhir-r4.toml", ROOT / "policies" / "csv-safe-harbor.toml", folder / "more.toml"]
    policy = [part for file in policies for part in ("--policy", file)]
    run("keys", "repair", *config)
    run("keys", "rotate", *config)
    run("keys", "drill", *config)
    run("keys", "backup", *config, folder / "keys.backup")
    events, seq = [], 1
    for day in range(40):
        for hour in (8, 9, 10, 11):
            opened = 40 + 13 * ((day * 7 + hour) % 11)
            time = AT - timedelta(days=day) + timedelta(hours=hour - 12)
            events.append(line(seq, time, "use", field="patient.ssn", details={"opened": str(opened), "sealed": "3"}))
            seq += 1
    events.append(line(seq, AT - timedelta(days=3, hours=10), "use", field="patient.ssn", details={"opened": "9000", "DecryptionFailed": "12"}))
    events.append(line(seq + 1, AT - timedelta(hours=2), "use", actor="intruder", field="patient.ssn", details={"opened": "1000000"}))
    events.append(line(seq + 2, AT + timedelta(days=30), "use", actor="intruder", field="patient.ssn", details={"opened": "900000"}))
    with (ring / "audit.jsonl").open("a") as trail:
        trail.writelines(events)
    page = folder / "report.html"
    run("report", *config, *policy, "--format", "html", "--at", AT.strftime("%Y-%m-%dT%H:%M:%SZ"), "--hours", "mon-fri 07:00-19:00", "--output", page)
    return page


def colours(png):
    """How many different pixels a picture has, which a blank one has not."""
    data, at, chunks, size = png.read_bytes(), 8, b"", None
    while at < len(data):
        length, kind = int.from_bytes(data[at:at + 4], "big"), data[at + 4:at + 8]
        body = data[at + 8:at + 8 + length]
        if kind == b"IHDR":
            size = int.from_bytes(body[:4], "big"), int.from_bytes(body[4:8], "big")
        elif kind == b"IDAT":
            chunks += body
        at += 12 + length
    return size, len(set(re.findall(b"(?s).{3}", zlib.decompress(chunks))))


def check(page, folder, browser, made):
    passed, failed = 0, 0

    def expect(what, good, why=""):
        nonlocal passed, failed
        passed, failed = passed + bool(good), failed + (not good)
        if not good:
            print(f"FAILED: {what}: {why}")

    text = page.read_text()
    if made:
        for said in ("NOT AUTHENTICATED", "WRITTEN, NOT REQUIRED", "IN THE FOLDER OF THE KEY RECORDS", "intruder", "lookup (digits, 12 bits"):
            expect(f"the report says {said}", said in text)
    for width in (PHONE, PAPER, SCREEN):
        probe = folder / f"probe-{width}.html"
        probe.write_text(PROBE.replace("WIDTH", str(width)).replace("PAPER", str(PAPER)).replace("REPORT", html.escape(text)))
        dom = browser.run(probe, "--dump-dom", "--window-size=1400,1000")
        match = re.search(r'<pre id="found">(.+?)</pre>', dom, re.S)
        if not match:
            expect(f"{width} pixels", False, "nothing was looked at")
            continue
        found = json.loads(html.unescape(match[1]))
        for wrong in found["wrong"][:20]:
            print(f"  {width} pixels: {wrong}")
        expect(f"layout and names at {width} pixels", not found["wrong"], f"{len(found['wrong'])} findings")
        expect("there are charts, bars, lines and tables", found["charts"] == 3 and found["bars"] > 30 and found["lines"] >= 6 and found["tables"] > 8, found)
        shot = folder / f"report-{width}.png"
        # Through the page around it: a window of Chromium is never as narrow as a phone.
        browser.run(probe, f"--screenshot={shot}", f"--window-size={max(width, 500)},2400")
        size, count = colours(shot)
        expect(f"the picture at {width} pixels shows something", size[1] == 2400 and count > 50, (size, count))
    pdf = folder / "report.pdf"
    browser.run(page, f"--print-to-pdf={pdf}", "--no-pdf-header-footer")
    data = pdf.read_bytes()
    pages = len(re.findall(rb"/Type\s*/Page\b(?!s)", data))
    expect("a PDF of several pages", data.startswith(b"%PDF-") and 3 <= pages <= 60, pages)
    boxes = {tuple(round(float(n)) for n in box.split()) for box in re.findall(rb"/MediaBox\s*\[([\d. ]+)\]", data)}
    expect("on A4", boxes and all(box[2:] in {(595, 842), (596, 842), (595, 841), (594, 842)} for box in boxes), boxes)
    # The dump is of what the page makes of itself: it must be what it was, since nothing in it runs.
    expect("nothing in it runs", "<script" not in browser.run(page, "--dump-dom"))
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keyfold", type=Path, help="the command")
    parser.add_argument("--page", type=Path, help="a report that is there")
    parser.add_argument("--out", type=Path, help="where pictures and the PDF are kept")
    options = parser.parse_args()
    if not (options.keyfold or options.page):
        parser.error("--keyfold or --page")
    folder = shared.make_folder("report")
    try:
        browser = Browser(folder)
        page = options.page.resolve() if options.page else make(options.keyfold.resolve(), folder)
        code = check(page, folder, browser, made=not options.page)
        if options.out:
            options.out.mkdir(parents=True, exist_ok=True)
            for file in [page, *folder.glob("report-*.png"), *folder.glob("report.pdf")]:
                shutil.copy(file, options.out / file.name)
        return code
    except shared.Unavailable as why:
        print(f"SKIPPED: the HTML report in a browser: {why}")
        return shared.NOTHING_RAN
    finally:
        shared.remove_folder(folder)


if __name__ == "__main__":
    sys.exit(main())
