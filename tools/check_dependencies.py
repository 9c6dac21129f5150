"""Checks each lock file against the bans of deny.toml, without a network and without cargo-deny.

Plants first what each check must refuse, in a copy of Cargo.lock in memory: a banned crate, each version that is one too old, a crate below one that may
not need it, and crates that are not from the registry. What has to be refused stands here once more (BAD, NEVER), so that a ban that is lost from deny.toml is missed.
"""

import operator
import re
import subprocess
import sys
import tomllib
from pathlib import Path


ROOT = Path(__file__).resolve().parent.parent
COMPARE = {"<": operator.lt, "<=": operator.le, "=": operator.eq, ">=": operator.ge, ">": operator.gt}
REGISTRY = "registry+https://github.com/rust-lang/crates.io-index"
# Versions that must not be used, from the first to the one before the second, and why; None: all that follow.
BAD = {
    "aes-gcm": [("0", "0.10.3", "plaintext stays in the buffer when the tag is wrong")],
    "anyhow": [("0", "1.0.103", "unsound")],
    "arc-swap": [("0", "1.1.0", "a reference that dangles")],
    "aws-lc-fips-sys": [("0", "0.13.13", "lists of revoked certificates; time of CCM's tags"), ("0.14.0", None, "another module than the one of docs/FIPS.md")],
    "aws-lc-sys": [("0", "0.39.0", "certificates; time of CCM's tags")],
    "aws-sigv4": [("0", "0.55.1", "credentials in logs")],
    "bytes": [("0", "1.11.1", "an overflow when it grows")],
    "crossbeam-channel": [("0", "0.5.15", "memory freed twice")],
    "crossbeam-epoch": [("0", "0.9.20", "unsound")],
    "crossbeam-utils": [("0", "0.8.7", "unsound on 32 bits")],
    "cxx": [("0", "1.0.195", "unsound")],
    "dashmap": [("0", "5.1.0", "references that dangle")],
    "futures-util": [("0", "0.3.7", "data races")],
    "h2": [("0", "0.4.16", "a peer's empty frames without end")],
    "hashbrown": [("0.15.0", "0.15.1", "bytes that are not what was written")],
    "idna": [("0", "1.0.0", "two names for one host")],
    "libcrux-chacha20poly1305": [("0", "0.0.8", "an advisory of its authors")],
    "libcrux-intrinsics": [("0", "0.0.4", "wrong results on ARM")],
    "libcrux-secrets": [("0", "0.0.6", "a selection that is wrong on ARM")],
    "lock_api": [("0", "0.4.2", "data races")],
    "lru": [("0", "0.18.2", "use of freed memory after a panic")],
    "memmap2": [("0", "0.9.11", "unsound")],
    "mimalloc": [("0", "0.1.39", "unaligned memory")],
    "moka": [("0", "0.12.14", "use of freed memory")],
    "nix": [("0", "0.23.0", "writes behind a buffer")],
    "once_cell": [("0", "1.0.1", "a panic that makes it unsound")],
    "pyo3": [("0", "0.29.0", "unsound with threads of Python; reads behind lists")],
    "quinn-proto": [("0", "0.11.15", "a peer makes it panic")],
    "rand": [("0", "0.8.6", "unsound with a logger"), ("0.9.0", "0.9.3", "unsound with a logger"), ("0.10.0", "0.10.1", "unsound with a logger")],
    "ring": [("0", "0.17.12", "a panic where overflow is checked, as it is here")],
    "rustls": [("0", "0.23.18", "a peer makes it panic or loop")],
    "rustls-webpki": [("0", "0.103.13", "lists of revoked certificates")],
    "smallvec": [("0", "1.6.1", "writes behind a buffer")],
    "sqlx": [("0", "0.8.1", "commands hidden in lengths that overflow")],
    "thread_local": [("0", "1.1.4", "a data race")],
    "time": [("0", "0.3.47", "a stack that input exhausts")],
    "tokio": [("0", "1.44.2", "unsound broadcasts")],
    "tonic": [("0", "0.12.3", "a peer ends the server")],
    "tracing": [("0", "0.1.40", "use of freed memory")],
    "tracing-subscriber": [("0", "0.3.20", "control characters reach the terminal")],
    "zeroize_derive": [("0", "1.2.0", "enums are not erased")],
}
# Never: nobody maintains them, they are unsound, or leak by time.
NEVER = ["ansi_term", "async-std", "atomic-polyfill", "atty", "backoff", "bincode", "google-apis-common", "libcrux-aesgcm", "openssl", "openssl-src", "proc-macro-error",
         "rsa", "rust-crypto", "rustls-pemfile", "serde_cbor", "serde_yml", "sodiumoxide", "webpki", "xsalsa20poly1305"]
# What a lock file has all the same: file, crate, version, and why.
EXCEPTIONS = {
    ("benches/peers/rust/Cargo.lock", name, version): "asked for by the SDK below the AWS Encryption SDK, a peer that is measured and never shipped; it reaches no network here"
    for name, version in (("h2", "0.3.27"), ("rustls", "0.21.12"), ("rustls-webpki", "0.101.7"))
}


def load(name):
    return tomllib.loads((ROOT / name).read_text())


def parts(version):
    """A version for comparison, without what stands behind `-` and `+`."""
    return tuple(int(number) for number in re.match(r"(\d+)\.(\d+)\.(\d+)", version).groups())


def bans():
    """Name, comparisons of versions, who may need it, and why, of each ban."""
    found = []
    for ban in load("deny.toml")["bans"]["deny"]:
        ban = {"crate": ban} if isinstance(ban, str) else ban
        name, _, versions = ban["crate"].partition(":")
        # Whole versions with an operator alone, so that this means what cargo-deny takes it for.
        compared = [re.fullmatch(r"(<=|>=|<|=|>)(\d+\.\d+\.\d+)", part.strip()).groups() for part in versions.split(",") if part]
        found.append((name, compared, ban.get("wrappers", []), ban.get("reason", "")))
    return found


def problems_of(packages, banned):
    problems = []
    for name, compared, wrappers, reason in banned:
        for package in packages:
            if package["name"] == name and not wrappers and all(COMPARE[how](parts(package["version"]), parts(than)) for how, than in compared):
                problems.append(f"{name} {package['version']} is banned by deny.toml{': ' if reason else ''}{reason}")
            needed = {dependency.split()[0] for dependency in package.get("dependencies", [])}
            if wrappers and name in needed and package["name"] not in wrappers:
                problems.append(f"{package['name']} needs {name}, which deny.toml allows {', '.join(wrappers)} alone")
    for package in packages:
        # What has no source is in the workspace.
        if package.get("source", REGISTRY) != REGISTRY:
            problems.append(f"{package['name']} comes from {package['source']}")
    return problems


def newest(compared):
    """The newest version that the comparisons hold of, so to speak: for `<` the one before, else the one that is named."""
    how, version = compared[-1]
    if how != "<":
        return version
    numbers = list(parts(version))
    last = max(at for at in range(3) if numbers[at])
    return ".".join(map(str, [*numbers[:last], numbers[last] - 1, *[999] * (2 - last)]))


def not_refused(packages, banned):
    """How much was planted, and what of it was not found."""
    plants = []
    for name, compared, wrappers, _ in banned:
        if wrappers:
            plants.append({"name": "planted", "version": "1.0.0", "dependencies": [f"{name} 1.0.0"]})
        else:
            plants.append({"name": name, "version": newest(compared) if compared else "1.0.0", "source": REGISTRY})
    for source in ["git+https://example.org/planted#0", "registry+https://example.org/index"]:
        plants.append({"name": "planted", "version": "1.0.0", "source": source})
    return len(plants), [f"not refused: {plant}" for plant in plants if len(problems_of([*packages, plant], banned)) != 1]


def whole(version):
    return f"{version}.0.0" if version == "0" else version


def reason_against(package):
    """Why a package must not be used; None where it may."""
    if package["name"] in NEVER:
        return "never"
    version = parts(package["version"])
    for first, than, why in BAD.get(package["name"], []):
        if parts(whole(first)) <= version and (than is None or version < parts(than)):
            return why
    return None


def lost_bans(packages, banned):
    """What has to be refused and is not by deny.toml, and the other way about; how much was tried."""
    tried, problems = 0, []
    for name in [*NEVER, *BAD]:
        versions = {"0.0.1", "1.0.0", "99.0.0"} if name in NEVER else set()
        for first, than, _ in BAD.get(name, []):
            versions |= {whole(first)} | ({newest([("<", than)]), than} if than else {"99.0.0"})
        for version in sorted(versions):
            package = {"name": name, "version": version, "source": REGISTRY}
            tried += 1
            if bool(reason_against(package)) != bool(problems_of([package], banned)):
                problems.append(f"{name} {version}: {'is not refused by' if reason_against(package) else 'is refused, but need not be, by'} deny.toml")
    return tried, problems


def lock_files():
    listed = subprocess.run(["git", "ls-files", "*Cargo.lock"], cwd=ROOT, check=True, capture_output=True, text=True)
    return listed.stdout.split()


def of_every_lock(exceptions):
    """What stands in a lock file and must not, and exceptions that are none any more."""
    problems, met = [], set()
    for file in lock_files():
        for package in load(file)["package"]:
            if why := reason_against(package):
                if (key := (file, package["name"], package["version"])) in exceptions:
                    met.add(key)
                else:
                    problems.append(f"{file} has {package['name']} {package['version']}: {why}")
    return problems + [f"{' '.join(key)} is an exception, and not there" for key in sorted(exceptions.keys() - met)]


# Failure K16
def main():
    packages, banned = load("Cargo.lock")["package"], bans()
    problems = problems_of(packages, banned) + of_every_lock(EXCEPTIONS)
    planted, missed = (0, []) if problems else not_refused(packages, banned)
    tried, lost = lost_bans(packages, banned)
    print(f"{len(packages)} packages: {len(banned)} bans checked, {len(problems)} problems; {planted} planted, {len(missed)} not refused")
    print(f"{len(BAD) + len(NEVER)} crates with versions that must not be used, {tried} of them tried on deny.toml, {len(lost)} otherwise; lock files: {', '.join(lock_files())}")
    for (file, name, version), why in EXCEPTIONS.items():
        print(f"{file}: {name} {version} is {why}")
    print("\n".join([*problems, *missed, *lost]))
    return bool(problems or missed or lost)


sys.exit(main())
