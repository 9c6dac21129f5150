"""What the table and the charts show, from results.json: medians, spreads, and ratios to keyfold in the same round."""

# A figure: its key, the work and the entry of it, the words of the table, the unit and what to divide by.
TIMES = {
    "column-seal": ("column", "seal", "sealing a column", "ns", 1),
    "column-open": ("column", "open", "opening a column", "ns", 1),
    "one-seal": ("one", "seal", "sealing one value", "ns", 1),
    "one-open": ("one", "open", "opening one value", "ns", 1),
    "large-seal": ("large", "seal", "sealing 1 MB", "µs", 1e3),
    "large-open": ("large", "open", "opening 1 MB", "µs", 1e3),
    "cold-cpu": ("cold", "cpu", "a cold process", "ms", 1e6),
    "handle-cpu": ("handle", "cpu", "new handles", "µs", 1e3),
}


def spread(numbers):
    """Median, 5th and 95th percentile, as benches/src/compare.rs has them."""
    ordered = sorted(numbers)

    def at(part):
        return ordered[int((len(ordered) - 1) * part)]

    return at(0.5), at(0.05), at(0.95)


def base_of(name):
    """What a peer is compared with."""
    return "rust/keyfold" if name.startswith("rust/") else "keyfold"


def rounds_of(found, name, work, entry):
    return [one[entry] for one in found["peers"][name]["rounds"].get(work, []) if entry in one]


def time_of(found, name, figure):
    """Spread of a time in its unit, or None where the peer has no such work."""
    work, entry, _, _, unit = TIMES[figure]
    numbers = rounds_of(found, name, work, entry)
    return spread([number / unit for number in numbers]) if numbers else None


def ratio_of(found, name, figure):
    """Spread of how many times keyfold's, round by round."""
    work, entry, *_ = TIMES[figure]
    theirs, ours = rounds_of(found, name, work, entry), rounds_of(found, base_of(name), work, entry)
    return spread([their / our for their, our in zip(theirs, ours, strict=True)]) if theirs and ours else None


def bytes_of(found, name):
    numbers = rounds_of(found, name, "column", "bytes")
    return spread(numbers)[0] if numbers else None


def memory_of(found, name):
    """Most memory of a process that seals and opens a column, and how much of it that added, in MB."""
    runs = found["peers"][name]["memory"]
    if not runs:
        return None
    return spread([run["peak"] / 1e6 for run in runs])[0], spread([(run["peak"] - run["before"]) / 1e6 for run in runs])[0]


def peak_of(found, name):
    memory = memory_of(found, name)
    return memory[0] if memory else None


def calls_of(found, name, way):
    """KMS calls for a million values in new handles, along the line through the two numbers that were counted."""
    counted = sorted((int(count), made[way]) for count, made in found["peers"][name]["calls"].items())
    if not counted:
        return None
    (few, at_few), (many, at_many) = counted
    return round(at_few + (at_many - at_few) / (many - few) * (1_000_000 - few))


def gain_of(found, name):
    numbers = rounds_of(found, name, "threads", "gain")
    return spread(numbers) if numbers else None


def ahead(found):
    """Where a peer is better than keyfold: its name, what it is better at, and how much."""
    better = []
    for name, peer in found["peers"].items():
        base = base_of(name)
        if "keyfold" in name:
            continue
        for figure, (*_, words, _, _) in TIMES.items():
            ratio = ratio_of(found, name, figure)
            if ratio and ratio[0] < 1:
                sure = "" if ratio[2] < 1 else ", within the spread"
                better.append((name, words, f"×{number(ratio[0])} ({number(ratio[1])} to {number(ratio[2])}{sure})"))
        for words, of, unit in (("bytes per value", bytes_of, "bytes"), ("memory", peak_of, "MB")):
            theirs, ours = of(found, name), of(found, base)
            if theirs is not None and ours is not None and theirs < ours:
                better.append((name, words, f"{number(theirs)} instead of {number(ours)} {unit}"))
        for way in ("seal", "open"):
            theirs, ours = calls_of(found, name, way), calls_of(found, base, way)
            if theirs is not None and ours is not None and theirs < ours:
                better.append((name, f"KMS calls to {way} a million values", f"{theirs:,} instead of {ours:,}"))
        theirs, ours = gain_of(found, name), gain_of(found, base)
        if theirs and ours and theirs[0] > ours[0]:
            better.append((name, "what a second thread gains", f"{number(theirs[0])} times instead of {number(ours[0])}"))
    return better


def number(value):
    """Three digits, and no exponent."""
    if value < 0.995:
        return f"{value:.2f}"
    rounded = float(f"{value:.3g}")
    return f"{rounded:,.0f}" if rounded >= 1000 else f"{rounded:g}"
