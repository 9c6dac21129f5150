"""SVG charts of the comparison: horizontal bars, with whiskers from the 5th to the 95th percentile. The same numbers give the same bytes."""

import math
from html import escape

from figures import bytes_of, calls_of, number, time_of

WIDTH, LEFT, RIGHT, TOP, ROW, BAR = 760, 150, 110, 64, 40, 13
OURS, THEIRS = ("#0b6e4f", "#7bc4a4"), ("#5b6b7b", "#b3bec9")
STYLE = ("text{font:13px system-ui,sans-serif;fill:#1b2733}.title{font-size:16px;font-weight:600}.small{font-size:11px;fill:#4a5866}"
         ".grid{stroke:#dde3e8}.whisker{stroke:#1b2733}")


def scale(largest, smallest, logarithmic):
    """A number's place in pixels from the left, and where lines stand."""
    width = WIDTH - LEFT - RIGHT
    if not logarithmic:
        step = 10 ** math.floor(math.log10(largest))
        step = step / 2 if largest / step < 3 else step
        ticks = [step * tick for tick in range(int(largest / step) + 1)]
        return (lambda value: LEFT + width * value / largest), ticks
    low, high = math.floor(math.log10(smallest)), math.ceil(math.log10(largest))
    high = max(high, low + 1)
    return (lambda value: LEFT + width * (math.log10(max(value, 10**low)) - low) / (high - low)), [10**power for power in range(low, high + 1)]


def bars(title, below, series, body, logarithmic=True):
    """A chart of `body`: names, each with a spread, or None, for each of `series`."""
    numbers = [part for _, spreads in body for spread in spreads if spread for part in spread]
    place, ticks = scale(max(numbers), min(numbers) / 2, logarithmic)
    height = TOP + ROW * len(body) + 34
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" aria-labelledby="title desc">',
        f'<title id="title">{escape(title)}</title><desc id="desc">{escape(spoken(series, body))}</desc>',
        f'<style>{STYLE}</style><rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        f'<text class="title" x="12" y="24">{escape(title)}</text><text class="small" x="12" y="43">{escape(below)}</text>',
    ]
    for tick in ticks:
        x = f"{place(tick):.1f}"
        out.append(f'<line class="grid" x1="{x}" x2="{x}" y1="{TOP - 6}" y2="{height - 28}"/>'
                   f'<text class="small" x="{x}" y="{height - 12}" text-anchor="middle">{short(tick)}</text>')
    for row, (name, spreads) in enumerate(body):
        y = TOP + ROW * row
        out.append(f'<text x="{LEFT - 10}" y="{y + 18}" text-anchor="end">{escape(name)}</text>')
        colours = OURS if "keyfold" in name else THEIRS
        for which, spread in enumerate(spreads):
            top = y + which * (BAR + 2)
            if spread is None:
                out.append(f'<text class="small" x="{LEFT + 6}" y="{top + 11}">–</text>')
                continue
            median, low, high = spread
            out.append(f'<rect x="{LEFT}" y="{top}" width="{max(1.0, place(median) - LEFT):.1f}" height="{BAR}" fill="{colours[which]}"/>')
            if high > low:
                middle = top + BAR / 2
                out.append(f'<line class="whisker" x1="{place(low):.1f}" x2="{place(high):.1f}" y1="{middle}" y2="{middle}"/>')
            out.append(f'<text class="small" x="{place(max(median, high)) + 5:.1f}" y="{top + 11}">{number(median)}{escape(series[which][1])}</text>')
    out.append("</svg>\n")
    return "\n".join(out)


def spoken(series, body):
    """The same in words, for whoever does not see it."""
    def of(name, spreads):
        return f"{name}: " + ", ".join(f"{word} {number(spread[0])}{unit}" for (word, unit), spread in zip(series, spreads, strict=True) if spread)

    return "; ".join(of(name, spreads) for name, spreads in body)


def short(tick):
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if tick >= size:
            return f"{tick / size:g}{unit}"
    return f"{tick:g}"


def charts(found):
    """Each chart by the name of its file; one that would be empty is left out."""
    names = {"": [name for name in found["peers"] if "/" not in name], "-rust": [name for name in found["peers"] if "/" in name]}
    warning = "A quick run: these numbers mean nothing. " if found["quick"] else ""
    below = f"{warning}Upper bar seal, lower bar open; logarithmic. Whiskers: 5th to 95th percentile of {found['rounds']} rounds. {found['date']}"
    made = {}

    def keep(file, body, *how, **more):
        # The fastest first.
        body = sorted((row for row in body if row[1][0]), key=lambda row: row[1][0][0])
        if body:
            made[file] = bars(*how[:2], how[2], body, **more)

    for suffix, of in names.items():
        where = "Rust" if suffix else "Python"
        for work, words in (("column", "A column"), ("one", "One value at a time")):
            body = [(name, [time_of(found, name, f"{work}-{way}") for way in ("seal", "open")]) for name in of]
            keep(f"{work}{suffix}.svg", body, f"{words}, {where}: CPU nanoseconds per value of 16 bytes", below, [("seal", " ns"), ("open", " ns")])
    sizes = [(name, [(size, size, size)] if (size := bytes_of(found, name)) else [None]) for name in names[""]]
    keep("bytes.svg", sizes, "What there is to keep of a value of 16 bytes", f"{warning}Bytes. {found['date']}", [("", " bytes")], logarithmic=False)
    calls = [(name, [(made_, made_, made_) if (made_ := calls_of(found, name, "seal")) else None]) for name in names[""]]
    keep("kms.svg", calls, "KMS calls to seal a million values", f"{warning}Logarithmic. {found['date']}", [("", "")])
    return made
