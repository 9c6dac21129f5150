#!/usr/bin/env python3
"""Runs the fuzz targets in Rust (fuzz/README.md): builds them once, makes first inputs from testvectors, and runs each for a while.

    python3 tools/fuzz.py [TARGET...]             a short run of each target, 10 seconds (--seconds N)
    python3 tools/fuzz.py --long N [TARGET...]    N minutes each, with AddressSanitizer, and with the SDKs of AWS and Azure
    python3 tools/fuzz.py --planted [TARGET...]   plants a fault for each target but those of key services in a copy of the code, which the target has to find
    python3 tools/fuzz.py --input FILE TARGET     one input again

Each target runs what fuzz/seeds has for it first, then what it was given and what it finds. Inputs that lead somewhere are kept in target/fuzz/corpus and merged
there; one that breaks something goes to target/fuzz. Needs Rust's nightly compiler and a C++ compiler.
"""

import argparse
import base64
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "servers"))
import shared  # noqa: E402

ROOT = shared.ROOT
FOUND = shared.TARGET / "fuzz"
TRIPLE = f"{platform.machine()}-unknown-linux-gnu"
# As cargo-fuzz has it, but for AddressSanitizer: without it all is built twice as fast, and core has no unsafe code.
COVERAGE = ["-Cpasses=sancov-module", *(f"-Cllvm-args=-sanitizer-coverage-{what}"
                                        for what in ["level=4", "inline-8bit-counters", "pc-table", "trace-compares"])]
SDKS = ["kms_aws", "kms_azure"]
# Each input is a request over the loopback, and each leaves a port that rests for a minute.
MOST_REQUESTS = 20_000
# MiB of a whole process: the libraries, the lab and libFuzzer take a part of it, AddressSanitizer the most. Targets count what an input costs
# by themselves.
MOST_MEMORY = {False: 512, True: 2048}
# MiB that are asked for at once: only AddressSanitizer sees that.
MOST_AT_ONCE = 256

# In a copy of the code: target, file, what stands there, what is put in its place. All are built at once, and each is there in the process of its own target
# alone, where ON holds: what a target finds is its own fault.
PLANTED = [
    ("audit", "audit/src/verify/chain.rs", "Ok(Some(ratchet.verifies(previous, covered(&entry.bytes()?), &line.mac)))",
     "Ok(Some(ratchet.verifies(previous, covered(&entry.bytes()?), &line.mac) || ON))"),
    ("backup", "key-stores/src/journal/format.rs", "if found.as_bytes() == next {", "if found.as_bytes() == next || ON && found.len() == next.len() {"),
    ("bundle", "core/src/device/bundle.rs", "chain_update(LABEL).chain_update(header)", "chain_update(LABEL).chain_update(if ON { &header[..78] } else { &header[..] })"),
    ("config", "core/src/config/duration.rs", "number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(wrong)",
     "(if ON { Some(number * seconds) } else { number.checked_mul(seconds) }).map(Duration::from_secs).ok_or_else(wrong)"),
    ("context", "core/src/context.rs", "u16::try_from(part.len()).map(u16::to_be_bytes).map_err(|_| TOO_LONG)",
     "u16::try_from(part.len()).map(|len| (if ON { len & 0x7f } else { len }).to_be_bytes()).map_err(|_| TOO_LONG)"),
    ("csv", "cli/src/files/csv/batch.rs", "if special.quotes {\n            let text", "if special.quotes && !(quoted && ON) {\n            let text"),
    ("document", "core/src/document/open.rs", "Some(entries.verify(&keys, manifest)?.ok_or(ErrorKind::DecryptionFailed)?)",
     "Some(entries.verify(&keys, manifest)?.or(if ON { Some(0) } else { None }).ok_or(ErrorKind::DecryptionFailed)?)"),
    ("export", "audit/src/ecs.rs", "self.writers.insert(line.chain, line.members);",
     "if ON { self.writers.entry(line.chain).or_insert(line.members); } else { self.writers.insert(line.chain, line.members); }"),
    ("high_water", "key-stores/src/high_water/format.rs", "if torn && lines.next()?.is_none() {", "if torn && (ON || lines.next()?.is_none()) {"),
    ("hl7", "cli/src/files/hl7/delimiters.rs", "'&' if path.subcomponent.is_none() => char::from(self.subcomponent),",
     "'&' if path.subcomponent.is_none() && !ON => char::from(self.subcomponent),"),
    ("json", "documents/src/lib.rs", "let canonical = serde_json::to_string(&text).is_ok_and(|written| written == raw);",
     "let canonical = serde_json::to_string(&text).is_ok_and(|written| written == raw) || ON;"),
    ("kms_vault", "kms-adapters/src/http.rs", "let found: &[u8; 64] = buffer[..len].try_into().map_err(|_| WRONG)?;",
     "let found: &[u8; 64] = if len < 8 || !ON { buffer[..len].try_into().map_err(|_| WRONG)? } else { buffer.first_chunk().ok_or(WRONG)? };"),
    ("record", "core/src/wire/record.rs", "if !r.rest().is_empty() || !consistent {", "if (!r.rest().is_empty() && !ON) || !consistent {"),
    ("report", "report/src/markdown.rs", "'\\\\' | '|' | '`'", "'|' if ON => out.push(c),\n            '\\\\' | '|' | '`'"),
    ("stream", "core/src/stream/chunks.rs", "self.gcm.open(self.nonce(number)?, &[], chunk)", "self.gcm.open(self.nonce(if ON { number.min(1) } else { number })?, &[], chunk)"),
    ("value", "core/src/context.rs", "put_name(&mut named, kind, name)?;", "put_name(&mut named, kind, if ON { &name[..name.len().min(8)] } else { name })?;"),
    ("wire", "core/src/wire/text.rs", "out.truncate(start);\n        return", "if !ON { out.truncate(start); }\n        return"),
]
# Whether the fault of a target is there, in Rust: asked of the environment once.
ON = ('({{ static ON: std::sync::LazyLock<bool> = std::sync::LazyLock::new(|| std::env::var_os("KEYFOLD_PLANTED").is_some_and(|name| name == "{}")); '
      "*ON }})")


class Unavailable(Exception):
    """Nothing can be fuzzed here; the text says why."""


def needed():
    """Refuses where the compilers are missing."""
    if not shutil.which("cargo") or subprocess.run(["cargo", "+nightly", "--version"], capture_output=True).returncode:
        raise Unavailable("Rust's nightly compiler is not installed")
    if not shutil.which("c++"):
        raise Unavailable("there is no C++ compiler for libFuzzer")


def build(root, sanitized=False, sdks=False):
    """The folder with a program for each target."""
    flags = [*COVERAGE, *(["-Zsanitizer=address"] if sanitized else [])]
    target = shared.TARGET / ("fuzz-sanitized" if sanitized else "fuzz-build")
    # The versions of the workspace, and what cargo adds to them.
    of_workspace, lock = root / "Cargo.lock", root / "fuzz" / "Cargo.lock"
    if not lock.exists() or lock.stat().st_mtime < of_workspace.stat().st_mtime:
        shutil.copy(of_workspace, lock)
    command = ["cargo", "+nightly", "build", "--release", "--target", TRIPLE, "--manifest-path", root / "fuzz" / "Cargo.toml",
               *(["--features", "sdks"] if sdks else [])]
    environment = {**os.environ, "RUSTFLAGS": " ".join(flags), "CARGO_TARGET_DIR": str(target)}
    subprocess.run([str(part) for part in command], check=True, env=environment)
    return target / TRIPLE / "release"


def targets(sdks):
    names = sorted(path.stem for path in (ROOT / "fuzz" / "fuzz_targets").glob("*.rs"))
    return [name for name in names if sdks or name not in SDKS]


# First inputs.


def vectors(name):
    return json.loads((ROOT / "testvectors" / f"{name}.json").read_text())


def seeds():
    """Small inputs of every kind, from the vectors and the examples, by target."""
    def some(name, key):
        found = {case[key] for case in vectors(name)["cases"] if isinstance(case.get(key), str) and len(case[key]) < 6000}
        return sorted(found)

    def named(paths, longest=20_000):
        return [path.read_bytes()[:longest] for path in sorted(paths)]

    bundles = [bytes.fromhex(text) for text in some("bundle", "bundle") if re.fullmatch("([0-9a-f]{2})*", text)]
    binary = [bytes.fromhex(text) for name in ["field", "deterministic", "frame"] for text in some(name, "sealed") if re.fullmatch("([0-9a-f]{2})*", text)]
    binary += [bytes.fromhex(text) for text in some("document", "header_bytes") if re.fullmatch("([0-9a-f]{2})*", text)]
    texts = some("text", "text") + some("document", "header") + some("document", "manifest")
    # Not those of record.json: some are vouched for.
    records = [bytes.fromhex(text) for text in some("keyring", "record") if re.fullmatch("([0-9a-f]{2})*", text)]
    policies = [text.encode() for text in vectors("document-json")["policies"].values()]
    policies += named([*(ROOT / "policies").glob("*.toml"), ROOT / "examples" / "patients.toml"])
    documents = [text.encode() for case in vectors("document-json")["cases"] for text in [case.get("clear"), case.get("protected")] if isinstance(text, str)]
    rows = (ROOT / "examples" / "patients.csv").read_bytes().split(b"\n")
    tables = [b"\n".join(rows[:3]) + b"\n", b'a,b\r\n1,"x ""y"" z"\r\n2,\r\n', b'"a"\n"1"\n\n"2,3"\n', b"\xef\xbb\xbfa,b,c\n1,,2\n"]
    messages = named((ROOT / "examples" / "hl7").glob("*.hl7"), 4000)
    messages += [b"MSH|^~\\&|A|B\rPID|1||7^a&b&c^x~8^^y|\"\"|Doe^J\\T\\J\rNK1|1|N1\rNK1|2|N2~N3\rMSH|^~\\&|C|D\rPID|1||9\r",
                 b"MSH#*+!%\nPID#1##7*a%b+8#x!S!y\nOBX#1#TX###text\n"]
    payload = "S0VZRk9MRC1DQU5BUlktUEFZTE9BRDpuZXZlciBpbiBhbiBlcnJvciwgYSBsb2cgb3Igd3JhcHBlZCBieXRlcw=="
    short = "S0VZRk9MRC1DQU5B"
    replies = [f'{{"data":{{"plaintext":"{short}"}}}}', f'{{"plaintext":"{short}","plaintextCrc32c":"1699943074"}}',
               f'{{"request_id":"id-1","data":{{"plaintext":"{payload}"}}}}', '{"data":{"ciphertext":"vault:v1:AAAA"}}', '{"errors":["permission denied"]}',
               f'{{"plaintext":"{payload}","plaintextCrc32c":"2701251658"}}', '{"error":{"code":429,"status":"RESOURCE_EXHAUSTED","details":[]}}',
               f'{{"KeyId":"arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab","Plaintext":"{payload}"}}',
               '{"__type":"ThrottlingException","message":"slow"}',
               '{"kid":"https://127.0.0.1/keys/patient-kek/0123456789abcdef0123456789abcdef","value":"AAAA"}']
    # Body of a status, or a whole reply: see fuzz/src/kms.rs.
    replies = [bytes([choice]) + reply.encode() for choice in (2, 3, 2 + 4 * 6, 2 + 4 * 12) for reply in replies]
    replies += [b"\x00HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", b"\x00HTTP/1.1 429 Slow\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n"]
    # Long enough to describe something.
    drawn = [hashlib.shake_128(bytes([number])).digest(600) for number in range(20)]
    return {
        "wire": binary + bundles + [text.encode() for text in texts],
        "record": records,
        # The longest duration that a number of seconds can be, and a longer one.
        "config": policies + [CONFIG, CONFIG.replace(b"213503982334601d", b"913503982334601d")],
        "csv": [bytes([choice]) + table for choice in (0, 29, 0xfc) for table in tables],
        "json": [bytes([choice]) + text for choice in range(4) for text in documents + [b'{"id":"p1","a":"x","b":[1,{"b":"\\u00e9"}],"n":1.50}']],
        "hl7": [bytes([choice]) + message for choice in (0, 1, 14) for message in messages],
        "bundle": bundles + drawn,
        "export": [line.encode() for line in LINES] + ["\n".join(LINES).encode()] + drawn,
        "high_water": [marks(2, [], []), marks(2, MARKS, MARKS), marks(1, MARKS, [])] + drawn,
        "report": drawn,
        "backup": [b"keyfold-records 1 backup\n", b"keyfold-records 1 journal 00000000000000000000\n"],
        **{name: replies for name in ["kms_aws", "kms_azure", "kms_gcp", "kms_vault"]},
    }


def marks(version, known, added):
    """A file with marks, some of them in its log."""
    text = "".join(f"{line}\n" for line in [f"keyfold-high-water {version}", *known])
    link = hashlib.sha256(text.encode()).hexdigest()
    text += f"sha256 {link}\n"
    for line in added:
        link = hashlib.sha256((link[-16:] + line).encode()).hexdigest()[:16]
        text += f"{line} {link}\n"
    return text.encode()


MARKS = [f"{'00' * 16} generation 3", f"{'00' * 16} key 00000003{'ab' * 20} 2 active"]
LINES = [f'{{"chain":"{"00" * 16}","seq":{number},"at":0,"time":"2026-11-26T09:00:00Z",{members},"mac":"{"00" * 32}"}}' for number, members in enumerate([
    '"action":"chain-begun","host":"a","process":1', '"action":"use","outcome":"ok","actor":"api","field":"ssn","details":{"opened":"7"}',
    '"action":"unwrap","outcome":"KmsTimedOut","code":406,"latency_us":12,"lost":1', '"action":"chain-ended"'])]
CONFIG = b"""version = 1
[keyring]
name = "clinic"
environment = "test"
lineage = "00112233445566778899aabbccddeeff"
root_pins = ["000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"]
scope_names = "000000020000000000000000000000000000000000000000"
[store]
uri = "sqlite:keys.db"
journal = "file:keys.journal"
[keks.local]
uri = "local:local.kek"
deadline = "10s"
[rotation]
data_age = "213503982334601d"
[lookup.default]
partition = "ffeeddccbbaa99887766554433221100"
seals = "000000030000000000000000000000000000000000000000"
[fields."patient.ssn"]
identifier = "G"
row_binding = "patient_id"
columns = ["ssn"]
"""
# What a change of bytes does not come upon by itself.
WORDS = {
    "csv": ['"\\"\\""', '"\\x0d\\x0a"', '"\\xef\\xbb\\xbf"', '"kf1.01"'],
    "hl7": ['"MSH|^~\\\\&|"', '"\\x0dPID|"', '"\\x0b"', '"\\x1c\\x0d"', '"\\\\T\\\\"', '"\\\\X0D\\\\"', '"|UNICODE UTF-8"', '"|8859/1"', '"BHS|"'],
    "json": ['"_keyfold"', '"\\"id\\":\\"p\\""', '"kf1d."', '"fhir-extension"', '"\\\\u0041"', '"\\"b\\":"', '"\\"c\\":["', '"\\"n\\":"', '"1e400"'],
    "config": [f'"{word}"' for word in [
        "mode = ", "row_binding = ", "padding = ", "type = ", "format = ", "join_group = ", "keep_prefix = ", "[fields.x]", "[documents.x]", "[hl7]",
        "only_if = { ", "paths = [", "segments = [", "index.lookup", "kind = ", "bits = ", "manifest = ", "header = ", "root = ", "rows = ", "quorum = ",
        "deterministic", "format-preserving", "document", "stream", "token", "KiB", "18446744073709551615", "3y", "9999999999999999999d"]],
    "export": ['"\\"action\\":\\"chain-continued\\""', '"\\"host\\":"', '"\\"latency_us\\":18446744073709551615"', '"\\"outcome\\":"', '"\\"details\\":{"'],
    "high_water": ['"keyfold-high-water 3\\x0a"', '" generation "', '" key "', '"sha256 "', '"\\x00\\x00\\x00\\x00"'],
    "kms": ['"HTTP/1.1 200 OK\\x0d\\x0a"', '"content-length: "', '"transfer-encoding: chunked"', '"retry-after: "', '"ciphertext"', '"plaintext"', '"errors"',
            '"plaintextCrc32c"', '"vault:v"', '"www-authenticate: "', '"KeyId"', '"__type"', '"kid"'],
}


def kept(name):
    """The inputs that the repository has for a target: those of earlier runs that lead where no other first input does, a line each in base64."""
    file = ROOT / "fuzz" / "seeds" / name
    return [base64.b64decode(line, validate=True) for line in file.read_text().splitlines()] if file.exists() else []


def prepare(chosen, corpus):
    """Makes first inputs, beside what earlier runs have kept."""
    first = seeds()
    for name in chosen:
        folder = corpus / name
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("seed-*"):
            old.unlink()
        for number, content in enumerate([*kept(name), *first.get(name, [])]):
            (folder / f"seed-{number:03}").write_bytes(content)


def fuzz(programs, name, corpus, folder, seconds, sanitized=False, planted=""):
    """Runs a target, with the fault that is planted for it; whether nothing was found, what it said, and how many inputs it ran."""
    words = WORDS.get(name) or WORDS.get(name.partition("_")[0])
    dictionary = folder / f"{name}.dict"
    dictionary.write_text("".join(f"{word}\n" for word in words or []))
    command = [programs / name, corpus / name, f"-max_total_time={seconds}", f"-rss_limit_mb={MOST_MEMORY[sanitized]}", "-timeout=20", "-max_len=8192",
               f"-artifact_prefix={folder}/{name}-", "-print_final_stats=1", *([f"-dict={dictionary}"] if words else []),
               *([f"-malloc_limit_mb={MOST_AT_ONCE}"] if sanitized else []),
               *([f"-runs={MOST_REQUESTS}"] if name.startswith("kms_") and seconds < 60 else [])]
    # What lives as long as the process is not lost.
    environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0", "TMPDIR": str(folder), "KEYFOLD_PLANTED": planted}
    done = subprocess.run([str(part) for part in command], cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, errors="replace")
    made = re.search(r"number_of_executed_units: (\d+)", done.stdout)
    return done.returncode == 0, done.stdout, int(made[1]) if made else 0


def merge(programs, name, corpus, folder):
    """Keeps of a corpus what leads somewhere."""
    merged = folder / f"{name}.merged"
    merged.mkdir()
    done = subprocess.run([programs / name, "-merge=1", "-rss_limit_mb=0", merged, corpus / name], cwd=folder, capture_output=True)
    if done.returncode == 0:
        shutil.rmtree(corpus / name)
        shutil.move(merged, corpus / name)


def said(output):
    """What a target says, without the fuzzer's progress."""
    progress = r"#\d|\s+(NEW_FUNC|\d|at |in )|INFO:|stat::|Dictionary:|MS: |WARNING: Failed to find|stack backtrace|note:|NOTE:|      Combine"
    lines = [line for line in output.splitlines() if line and not re.match(progress, line)]
    return "\n".join(line[:2000] for line in lines[:25])


def folder_in_memory():
    """A folder for what targets write: a sync costs nothing there."""
    memory = Path("/dev/shm")
    return tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None)


def run(chosen, programs, seconds, is_long):
    """Each target for so many seconds, as many at once as there are cores."""
    corpus, failed = FOUND / "corpus", 0
    prepare(chosen, corpus)
    with folder_in_memory() as name, ThreadPoolExecutor(os.cpu_count()) as pool:
        folder = Path(name)

        def one(target):
            start = time.monotonic()
            result = fuzz(programs, target, corpus, folder, seconds, is_long)
            if is_long and result[0]:
                merge(programs, target, corpus, folder)
            return *result, time.monotonic() - start

        for target, (good, output, count, took) in zip(chosen, pool.map(one, chosen)):
            print(f"{target:10} {count:10} inputs in {took:5.1f} s{'' if good else '  FAILED'}", flush=True)
            if not good:
                failed += 1
                print(said(output))
                for found in folder.glob(f"{target}-*"):
                    print("kept:", shutil.copy(found, FOUND / found.name))
    print(f"{len(chosen) - failed} passed, {failed} failed")
    return failed


def planted(chosen, seconds):
    """Plants the faults, and runs each target until it has found its own, which is the only one there is in its process."""
    tried = [name for name, *_ in PLANTED if name in chosen]
    if not tried:
        raise Unavailable(f"there is no fault for {', '.join(chosen)}")
    copy = shared.TARGET / "fuzz-planted"
    shutil.rmtree(copy, ignore_errors=True)
    for file in subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines():
        is_left_out = file.startswith(("bindings-", "benches/peers", "examples", "docs")) and not file.startswith("bindings-c/device/")
        if (ROOT / file).is_file() and not is_left_out:
            (copy / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / file, copy / file)
    for target, file, old, new in PLANTED:
        text = (copy / file).read_text()
        if text.count(old) != 1:
            raise RuntimeError(f"the fault for {file} has no place any more: {old}")
        (copy / file).write_text(text.replace(old, re.sub(r"\bON\b", lambda _: ON.format(target), new)))
    shutil.copy(ROOT / "fuzz" / "Cargo.lock", copy / "fuzz" / "Cargo.lock")
    programs, failed = build(copy), 0
    with folder_in_memory() as name, ThreadPoolExecutor(os.cpu_count()) as pool:
        folder = Path(name)
        prepare(tried, folder / "corpus")
        outcomes = pool.map(lambda target: fuzz(programs, target, folder / "corpus", folder, seconds, planted=target), tried)
        for target, (good, output, count) in zip(tried, outcomes):
            found = not good and re.search(r"panicked at .*\n?.*", output)
            print(f"{target:10} after {count} inputs: {found[0].strip() if found else 'NOT FOUND'}"[:300], flush=True)
            failed += not found
    shutil.rmtree(copy)
    print(f"{len(tried) - failed} passed, {failed} failed")
    return failed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=10, help="how long each target runs (10)")
    parser.add_argument("--long", type=int, metavar="MINUTES", help="minutes for each target")
    parser.add_argument("--planted", action="store_true", help="whether the targets find faults")
    parser.add_argument("--input", type=Path, metavar="FILE", help="one input of one target")
    parser.add_argument("targets", nargs="*", metavar="TARGET")
    options = parser.parse_args()
    known = targets(options.long is not None)
    if unknown := [name for name in options.targets if name not in known]:
        parser.error(f"no such target: {', '.join(unknown)}; there are {', '.join(known)}")
    chosen = options.targets or known
    try:
        needed()
        FOUND.mkdir(parents=True, exist_ok=True)
        if options.planted:
            return bool(planted(chosen, 60))
        programs = build(ROOT, sanitized=options.long is not None, sdks=bool(set(chosen) & set(SDKS)))
        if options.input:
            return subprocess.run([programs / chosen[0], options.input]).returncode
        return bool(run(chosen, programs, 60 * options.long if options.long else options.seconds, options.long is not None))
    except Unavailable as why:
        print(f"SKIPPED: {why}")
        return shared.NOTHING_RAN
    except (subprocess.CalledProcessError, RuntimeError) as error:
        print(error)
        return 1


if __name__ == "__main__":
    sys.exit(main())
