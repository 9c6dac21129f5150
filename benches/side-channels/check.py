#!/usr/bin/env python3
"""Runs operations on secrets under valgrind, and fails where a branch, an address or a system call depends on one outside of PLACES.

    check.py                    each backend, built with the profile `ci`
    check.py --release          as it is released: profile `release`
    check.py --only ring        one of the builds
    check.py --all              prints each report that a place allows, too

The program (src/secrets) tells memcheck that keys and values are undefined bytes; memcheck follows them through registers and memory. What it reports is one
of three things: a secret is released there on purpose, such as whether a tag is right; it takes a time that depends on a value, which is known and said in
docs/SIDE-CHANNELS.md; or a leak. PLACES lists the first two, each by the file and what stands on the line, and fails when one is not met any more, so that the
list stays as short as it can be. Faults that are planted must be reported.
"""

import argparse
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
PORTABLE = ['--cfg=aes_backend="soft"', '--cfg=polyval_backend="soft"']
# Build: features, flags of the compiler, folder below target/ where it is not that of all others, since other flags build all anew.
BUILDS = {
    "ring": (["ring"], [], None),
    "aws-lc-rs": (["ring", "aws-lc-rs"], [], None),
    # All of AES and GHASH in portable code, as where a processor has no instructions for them.
    "portable": ([], PORTABLE, "portable"),
    # As the library for devices has it: bindings-c/device/build.
    "device": ([], [*PORTABLE, '--cfg=aes_backend_soft="compact"', '--cfg=sha2_backend_soft="compact"', '--cfg=cpubits="16"'], "device"),
}
# The instruction for a round of AES.
AESENC = b"\x66\x0f\x38\xdc"
PLANTED = {
    ("planted_branch", "UninitCondition"), ("planted_index", "UninitValue"), ("planted_comparison", "UninitCondition"),
}


class Place(NamedTuple):
    """Where a secret may decide: by the innermost function that is not the standard library's."""

    # The beginning of its path: folder or file; any if empty.
    file: str
    # A part of the line, or several of which one will do, with " | " between; any line if empty. Where the source is not at hand, of the function's name.
    line: str
    why: str
    # Functions of src/secrets that may come there; all if empty.
    cases: tuple = ()


VERDICT = "released: whether all of it is genuine, after a comparison in constant time"
KWP = "released: whether AES-KWP opens, in up to four steps"
STORED = "released: key IDs, scope tags and tokens are stored in clear"
TYPE = "variable, stated: type and padding of a value that is genuine"
TYPED = "variable, stated: writing and reading values that are not bytes"
FF1 = "variable, stated: FF1 and its alphabets"
NORMAL = "variable, stated: normal forms of text"
ASSERTED = "always true, and only with debug assertions"

PLACES = [
    Place("ring/src/aead/algorithm.rs", "verify_slices_are_equal(", VERDICT),
    Place("aws-lc-sys/aws-lc/crypto/fipsmodule/cipher/e_aes.c", "CRYPTO_memcmp(tag, in_tag, tag_len) | aead_aes_gcm_open_gather_impl", VERDICT),
    Place("aes-gcm/src/lib.rs", ".ct_eq(tag).into()", VERDICT),
    Place("aes-siv/src/siv.rs", "CtOutput::<M>::new(computed_siv_tag) == CtOutput::new(*siv_tag)", VERDICT),
    Place("core/src/aead/gcm.rs", "if opened {", VERDICT),
    Place("core/src/audit/chain.rs", ".ct_eq(", VERDICT),
    Place("core/src/device/bundle.rs", ".ct_eq( | .unwrap_key(self.wrapped, payload)", VERDICT),
    Place("core/src/document/open.rs", "entries.verify(&keys, manifest)?", VERDICT),
    Place("core/src/field/prove.rs", ".ct_eq(proof)", VERDICT),
    Place("core/src/keyring/create.rs", ".ct_eq(", VERDICT),
    Place("core/src/record/root.rs", ".ct_eq(", VERDICT),
    Place("core/src/record/root.rs", "if authentic {", VERDICT),
    Place("core/src/stream/open.rs", ".ct_eq(header.commitment())", VERDICT),
    Place("aes-kw/src/kwp.rs", "", KWP, ("bundle",)),
    Place("core/src/keys/secret.rs", "fill(&mut secret.0)?;", KWP, ("bundle",)),
    Place("core/src/device/mod.rs", "if sealed.key_id() != self.key_id {", STORED),
    Place("core/src/keyring/trust.rs", "if record.key_id() != key_id {", STORED),
    Place("core/src/wire/key_id.rs", "pub struct KeyId", STORED),
    Place("core/src/cache/", "", STORED, ("bundle", "create", "scope")),
    Place("core/src/high_water.rs", "marks.keys.get(&key_id)", STORED, ("bundle", "create", "scope")),
    Place("core/src/record.rs", "(self.body.scope_tag != [0; 32])", STORED, ("bundle", "create", "scope")),
    Place("key-stores/src/memory.rs", "self.scopes", STORED, ("bundle", "create", "scope")),
    Place("core/src/lookup/token.rs", "Token::Integer(", STORED, ("index",)),
    Place("core/src/value.rs", "Some(Self::ALL[id as usize - 1])", TYPE),
    Place("core/src/value.rs", "if format & PADDED == 0 {", TYPE),
    Place("core/src/value.rs", "rest[end] == PADDING_START", TYPE, ("padded",)),
    Place("core/src/value.rs", "rposition(", TYPE, ("padded",)),
    Place("core/src/value.rs", "", TYPED, ("text", "types")),
    # The length of a normal form depends on the value, so do the blocks that are hashed of it. Keys are looked after by the other cases.
    Place("", "", FF1, ("ff1", "format")),
    Place("", "", NORMAL, ("normal_form",)),
    Place("subtle/src/lib.rs", "debug_assert!", ASSERTED),
]


class Report(NamedTuple):
    kind: str
    case: str
    file: str
    line: str
    function: str


def path_of(frame):
    """The file of a frame: of this repository from its root, of a crate from its name."""
    path = str(Path(frame.findtext("dir") or "", frame.findtext("file") or "?"))
    if path.startswith(f"{ROOT}/"):
        return path.removeprefix(f"{ROOT}/")
    # C code of aws-lc-sys in a release is built under a path of its own.
    path = re.sub(r"^/aws-lc/", "aws-lc-sys/aws-lc/", path)
    return re.sub(r"^.*/registry/src/[^/]+/([^/]+?)-\d[^/]*/", r"\1/", path)


def line_of(frame):
    """What stands on the line of a frame, if its file can be read."""
    try:
        lines = Path(frame.findtext("dir") or "", frame.findtext("file") or "?").read_text().splitlines()
        return lines[int(frame.findtext("line")) - 1].strip()
    except (OSError, IndexError, TypeError, ValueError):
        return ""


def name_of(frame):
    return re.sub(r"::h[0-9a-f]{16}$", "", frame.findtext("fn") or "?")


def is_ours(frame):
    """Whether a frame is neither of the standard library nor of what memcheck puts in the place of some functions."""
    path = path_of(frame)
    return not path.startswith(("/rustc/", "/rust/deps/", "library/")) and "vgpreload" not in (frame.findtext("obj") or "")


def reports(xml):
    """What memcheck reports, but for memory that is not freed."""
    found = Counter()
    for error in ElementTree.parse(xml).getroot().iter("error"):
        kind = error.findtext("kind")
        if kind.startswith("Leak"):
            continue
        frames = error.find("stack").findall("frame")
        place = next((frame for frame in frames if is_ours(frame)), frames[0])
        names = [name_of(frame) for frame in frames]
        case = [name for name in names if name.startswith("secrets::") and name != "secrets::main"]
        found[Report(kind, case[-1].rsplit("::", 1)[-1] if case else "?", path_of(place), line_of(place), name_of(place))] += 1
    return found


def build(name, profile):
    """The program of one build."""
    features, flags, folder = BUILDS[name]
    target = TARGET / "side-channels" / folder if folder else TARGET
    command = ["cargo", "build", "--locked", "-p", "keyfold-side-channels", "--bin", "secrets", "--no-default-features", "--features", ",".join(features)]
    command += ["--profile", profile, "--config", 'profile.release.debug="line-tables-only"']
    environment = {**os.environ, "CARGO_TARGET_DIR": str(target)}
    if flags:
        environment["CARGO_ENCODED_RUSTFLAGS"] = "\x1f".join(flags)
    if subprocess.run(command, cwd=ROOT, env=environment).returncode != 0:
        sys.exit("the program was not built")
    program = target / profile / "secrets"
    # Or it would be something else that is looked at.
    if (AESENC in program.read_bytes()) == (flags != []):
        sys.exit(f"{program} has {'an' if flags else 'no'} instruction for AES")
    return program


def run(program, xml):
    command = ["valgrind", "--error-limit=no", "--num-callers=60", "--read-inline-info=yes", "--undef-value-errors=yes", "--leak-check=no",
               "--xml=yes", f"--xml-file={xml}", str(program)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}")
    lines = done.stdout.splitlines()
    print(f"  {lines[0]}; {len(lines) - 1} cases")


# Covers F-1-4.
# Failures T3, T13
def check_reports(found, show):
    """Prints what is wrong with the reports of a build, and returns how much that is, and the places that were met."""
    planted = {(report.case, report.kind) for report in found if report.case.startswith("planted")}
    wrong = [f"planted and not reported: {case} ({kind})" for case, kind in sorted(PLANTED - planted)]
    met = set()
    for report, times in sorted(found.items()):
        if (report.case, report.kind) in PLANTED:
            continue
        fits = [place for place in PLACES if report.file.startswith(place.file) and any(part in (report.line or report.function) for part in place.line.split(" | ")) and (not place.cases or report.case in place.cases)]
        met.update(fits)
        text = f"{report.file}: {report.line or report.function} ({report.kind}, {report.case}, {times} times)"
        if not fits:
            wrong.append(f"depends on a secret: {text}")
        elif show:
            print(f"  {fits[0].why}\n    {text}")
    for text in wrong:
        print(f"  WRONG  {text}")
    return len(wrong), met


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--release", action="store_true", help="with the profile that is released")
    parser.add_argument("--only", choices=BUILDS, help="one build")
    parser.add_argument("--all", action="store_true", help="prints what is allowed, too")
    options = parser.parse_args()
    names = [options.only] if options.only else list(BUILDS)
    failed, met = 0, set()
    for name in names:
        print(f"{name}:", flush=True)
        program = build(name, "release" if options.release else "ci")
        xml = TARGET / "side-channels" / f"{name}.xml"
        xml.parent.mkdir(parents=True, exist_ok=True)
        run(program, xml)
        wrong, places = check_reports(reports(xml), options.all)
        failed += wrong > 0
        met |= places
    # Where functions are inlined otherwise, other lines are named.
    if not options.only and not options.release:
        for place in PLACES:
            if place not in met:
                print(f"WRONG  no build needs the place {place.file}: {place.line}")
                failed += 1
    print(f"{len(names) - min(failed, len(names))} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
