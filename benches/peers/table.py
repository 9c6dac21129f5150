"""table.md of the comparison: what README.md and docs/PERFORMANCE.md include. All of it is computed."""

from figures import TIMES, ahead, base_of, bytes_of, calls_of, gain_of, memory_of, number, ratio_of, spread, time_of

NONE = "–"
# Why a peer may be ahead in something, said where one is.
REASONS = {
    "bytes per value": "keyfold's 67 bytes are a header of 26, in which the key's ID commits to the key, a nonce of 24, a format byte and the tag of 16",
    "memory": "keyfold's columns come from pyarrow, whose import is most of it; keyfold_many has none",
    "a cold process": "keyfold opens a store of key records (SQLite) and checks them under the root, where others read one wrapped key",
    "new handles": "keyfold opens a store of key records (SQLite) and checks them under the root, where others read one wrapped key",
    "sealing a column": "keyfold makes each row's AAD itself, where peers find theirs ready, and a format byte and a header for each value",
    "opening a column": "keyfold makes each row's AAD itself, where peers find theirs ready, and reads a header and a format byte of each value",
    "sealing one value": "keyfold derives a key per call from a nonce of 24 bytes, so that nonces need not be counted; a column derives one for a batch of rows",
    "opening one value": "keyfold derives the value's key from its nonce",
    "what a second thread gains": "wall time, so it is the figure that other work on the machine disturbs most; beside it stands what two processes gained",
}


def cell(found, name, figure):
    """A time, and how many times keyfold's it is, with the spread of that."""
    took = time_of(found, name, figure)
    if took is None:
        return NONE
    if name == base_of(name):
        return f"**{number(took[0])}** ({number(took[1])} to {number(took[2])})"
    ratio = ratio_of(found, name, figure)
    return f"{number(took[0])}; ×{number(ratio[0])} ({number(ratio[1])} to {number(ratio[2])})" if ratio else number(took[0])


def rows(columns, body):
    lines = [columns, ["---"] * len(columns), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def times(found, names, figures):
    columns = ["", *(f"{TIMES[figure][2]}, {TIMES[figure][3]}" for figure in figures)]
    return rows(columns, [[name, *(cell(found, name, figure) for figure in figures)] for name in names])


def value(name, found):
    """A column's time per value, and what there is to keep of each."""
    size = bytes_of(found, name)
    return [name, cell(found, name, "column-seal"), cell(found, name, "column-open"), NONE if size is None else number(size)]


def costs(name, found):
    memory, gain = memory_of(found, name), gain_of(found, name)
    calls = [calls_of(found, name, way) for way in ("seal", "open")]
    return [
        name, cell(found, name, "cold-cpu"), cell(found, name, "handle-cpu"), *(NONE if made is None else f"{made:,}" for made in calls),
        NONE if memory is None else f"{number(memory[0])} ({number(memory[1])})",
        NONE if gain is None else f"{number(gain[0])} ({number(gain[1])} to {number(gain[2])})",
    ]


def settings(found):
    body = []
    for name, peer in found["peers"].items():
        versions = ", ".join(f"{package} {version}" for package, version in peer["versions"].items())
        body.append([name, versions, peer["setting"], peer["binds"], peer["kms_is"], peer["source"]])
    return rows(["", "version", "its fastest documented setting", "bound to", "KMS", "where it is documented"], body)


def exceptions(found):
    """Where a peer is ahead, with what is known of the reasons."""
    better = ahead(found)
    if not better:
        return "In nothing that was measured.\n"
    lines = []
    for name, peer in found["peers"].items():
        if of_it := [f"{words} {how}" for one, words, how in better if one == name]:
            which = f", which {peer['note']}" if peer["note"] else ""
            lines.append(f"- **{name}**{which}: {'; '.join(of_it)}\n")
    reasons = [f"- {words}: {why}\n" for words, why in REASONS.items() if any(one[1] == words for one in better)]
    return "".join([*lines, "\nReasons that are known:\n\n" if reasons else "", *reasons])


def notes(found):
    better = {name for name, _, _ in ahead(found)}
    return "".join(f"- {name} {peer['note']}.\n" for name, peer in found["peers"].items() if peer["note"] and name not in better)


def table(found):
    names = list(found["peers"])
    python, rust = [name for name in names if "/" not in name], [name for name in names if "/" in name]
    host, wheel = found["machine"], found["wheel"]
    warning = "**A quick run, to see that it works: its numbers mean nothing.**\n\n" if found["quick"] else ""
    machine_gain = "; ".join(
        f"a second *process* of {'`cryptography`' if language == 'python' else 'ring'} gained {number(spread(gains)[0])}"
        for language, gains in found["two_processes"].items() if gains)
    parts = [
        "<!-- Written by benches/peers/run.py. -->\n\n", warning,
        f"{found['date']}; {host['processor']}, {host['cores']} cores, {host['system']}, Python {host['python']}; load average {found['load'][0]:.1f} "
        f"at the start and {found['load'][1]:.1f} at the end of {found['minutes']} minutes. {found['rounds']} rounds, columns of {found['rows']:,} rows, seed {found['seed']}. "
        f"`{wheel['name']}` {wheel['how']}, SHA-256 {wheel['sha256'][:16]}….\n\n",
        "Values of 16 bytes with an AAD of 100, a different one for each row where the peer has any. CPU time per value, of all threads, unless it says "
        "wall: medians of the rounds. Behind × is how many times keyfold's time in the same round it is, with the 5th and 95th percentile of rounds; "
        "keyfold's own spread is in its unit.\n\n",
        "## A column, in Python\n\n",
        rows(["", "seal, ns per value", "open, ns per value", "bytes per value"], [value(name, found) for name in python]),
        "\n## One value, and one of a megabyte, in Python\n\n",
        times(found, python, ["one-seal", "one-open", "large-seal", "large-open"]),
        "\n## Keys, memory, threads, in Python\n\n",
        rows(["", "cold process, CPU ms", "new handles, CPU µs", "KMS calls to seal 10⁶", "to open 10⁶", "peak memory, MB (of it by the column)",
              "a second thread gains, wall"], [costs(name, found) for name in python]),
        "\nCold: a new process that opens its keys, with the KMS call, and one value. The KMS answers at once; a real one takes milliseconds for each call. "
        "Calls were counted for 100 and for more values, and the line through them is drawn to a million, within the life of one cached key. ",
        f"Of this machine {machine_gain}.\n" if machine_gain else "\n",
    ]
    if rust:
        parts += [
            "\n## In Rust\n\n",
            rows(["", "seal a column, ns per value", "open, ns per value", "bytes per value"], [value(name, found) for name in rust]), "\n",
            times(found, rust, ["one-seal", "one-open", "large-seal", "large-open"]), "\n",
            rows(["", "a second thread gains, wall"], [[name, costs(name, found)[-1]] for name in rust]),
        ]
    parts += ["\n## Where a peer is ahead\n\n", exceptions(found), "\n## What else differs\n\n", notes(found) or "Nothing noted.\n",
              "\n## Settings\n\n", settings(found)]
    if found["skipped"]:
        parts += [f"\n## Skipped: {len(found['skipped'])}\n\n", *(f"- {name}: {why}\n" for name, why in found["skipped"].items())]
    return "".join(parts)
