#!/usr/bin/env python3
"""Tests the C library under clang's sanitizers, and the crates in Rust. Those of addresses and threads look into the Rust code as well; UBSan, which Rust
has not, into the code in C alone.

    python3 tools/sanitizers.py address               AddressSanitizer and UBSan: the tests in C
    python3 tools/sanitizers.py fuzz [--sequences N]  the same, with random sequences of calls (fuzz/c)
    python3 tools/sanitizers.py thread                ThreadSanitizer: the tests in C
    python3 tools/sanitizers.py rust                  AddressSanitizer: the tests of core and of the memory for keys

Each is shown a fault that it has to find first. Needs Rust; for C, takes clang from the machine or from Debian's packages. ThreadSanitizer also
has to look into the standard library, for which the compiler and the source are Debian's.
"""

import argparse
import json
import os
import platform
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import debian  # noqa: E402
from debian import shared  # noqa: E402

ROOT = shared.ROOT
PACKAGE = ROOT / "bindings-c"
TRIPLE = f"{platform.machine()}-unknown-linux-gnu"
CLANG = shared.TARGET / "clang"
# For the fuzzer, which learns from what is run.
COVERAGE = ["-Cpasses=sancov-module", *(f"-Cllvm-args=-sanitizer-coverage-{what}" for what in ["level=3", "inline-8bit-counters", "pc-table"])]
FLAGS = {"address": ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"], "thread": ["-fsanitize=thread"]}
SYSTEM_LIBRARIES = ["-lgcc_s", "-lpthread", "-lm", "-ldl"]
# A guard page ends the program as it does without a sanitizer.
OPTIONS = {"ASAN_OPTIONS": "handle_segv=0:detect_stack_use_after_return=1", "TSAN_OPTIONS": "handle_segv=0:halt_on_error=1"}

# Faults of programs in C that show in Rust, and one that shows in C; the words that have to be in the report.
FAULTS = {
    "address": {
        "kf_number one = { 1, 0, 0, 0 };\n    size_t len;\n    uint8_t *bytes = (uint8_t *)malloc(KF_MAX_NUMBER_LEN - 1);\n"
        "    one.integer = INT64_MIN;\n    kf_result r = kf_number_encode(KF_TYPE_FLOAT, &one, bytes + 8, KF_MAX_NUMBER_LEN, &len, NULL);\n"
        "    return (int)r;": ["heap-buffer-overflow", "bindings-c/src/"],
        "char *text = (char *)malloc(4);\n    kf_context *context;\n    free(text);\n"
        "    return kf_context_new(&context, NULL) == KF_OK && kf_context_add(context, text, 4, NULL, 0, NULL) == KF_OK;":
            ["heap-use-after-free", "bindings-c/src/"],
        "int most = INT32_MAX;\n    return most + argc;": ["signed integer overflow"],
    },
    "thread": {
        "pthread_t other;\n    pthread_create(&other, NULL, encode, NULL);\n    encode(NULL);\n    return pthread_join(other, NULL);":
            ["data race", "bindings-c/src/"],
    },
}
PROGRAM = """\
#include <keyfold.h>
#include <pthread.h>
#include <stdlib.h>

static uint8_t shared[KF_MAX_NUMBER_LEN];

void *encode(void *unused)
{{
    kf_number one = {{ 1, 0, 0, 0 }};
    for (int turn = 0; turn < 10000; turn++) {{
        size_t len;
        if (kf_number_encode(KF_TYPE_INTEGER, &one, shared, sizeof shared, &len, NULL) != KF_OK)
            abort();
    }}
    return unused;
}}

int main(int argc, char **argv)
{{
    (void)argc, (void)argv;
    {fault}
}}
"""


def packages_of_clang(ask):
    """Those of the newest clang that has its runtime in a package of its own."""
    found = {int(name.removeprefix("clang-")) for name in re.findall(r"^clang-\d+", ask("search", "--names-only", "^clang-[0-9]+$"), re.MULTILINE)}
    runtimes = {int(number) for number in re.findall(r"^libclang-rt-(\d+)-dev ", ask("search", "--names-only", "^libclang-rt-[0-9]+-dev$"), re.MULTILINE)}
    if not found & runtimes:
        raise shared.Unavailable("no package has clang and its sanitizers")
    newest = max(found & runtimes)
    return [f"clang-{newest}", f"libclang-rt-{newest}-dev", f"libclang-common-{newest}-dev", f"libllvm{newest}", f"libclang-cpp{newest}"]


def clang():
    """clang with its sanitizers, and the environment that it needs: the machine's, or one that was unpacked before or now."""
    for name in ["clang", *(f"clang-{version}" for version in range(40, 13, -1))]:
        if shutil.which(name) and has_runtime(name, {}):
            return name, {}
    if not list(CLANG.glob("usr/lib/llvm-*/bin/clang")):
        debian.unpack(CLANG, packages_of_clang)
    path = next(CLANG.glob("usr/lib/llvm-*/bin/clang"))
    libraries = [path.parent.parent / "lib", CLANG / "usr" / "lib" / f"{platform.machine()}-linux-gnu"]
    environment = {"LD_LIBRARY_PATH": ":".join(map(str, libraries))}
    if not has_runtime(path, environment):
        raise shared.Unavailable("Debian's clang was unpacked and has no sanitizers")
    return path, environment


def has_runtime(compiler, environment):
    name = f"libclang_rt.asan-{platform.machine()}.a"
    asked = subprocess.run([compiler, f"--print-file-name={name}"], capture_output=True, text=True, env={**os.environ, **environment})
    return asked.returncode == 0 and Path(asked.stdout.strip()).is_file()


def build(kind):
    """The static library with the sanitizer in all of its Rust code."""
    # What needs another rustc than the stable one needs this word only.
    environment = {"RUSTC_BOOTSTRAP": "1", "RUSTFLAGS": " ".join([f"-Zsanitizer={kind}", *(COVERAGE if kind == "address" else [])])}
    command = ["cargo", "build", "--locked", "--profile", "ci", "--config", "profile.ci.opt-level=1", "--target", TRIPLE, "-p", "keyfold-c",
               "--no-default-features", "--target-dir", shared.TARGET / kind]
    if kind == "thread":
        import cross
        cross.install()
        environment |= {"RUSTC": str(cross.tool("rustc")), "RUSTDOC": str(cross.tool("rustdoc"))}
        command += ["-Zbuild-std=std,panic_unwind"]
    subprocess.run([str(part) for part in command], check=True, cwd=ROOT, env={**os.environ, **environment})
    return shared.TARGET / kind / TRIPLE / "ci" / "libkeyfold_c.a"


class Built:
    """How programs are built with a sanitizer."""

    def __init__(self, kind):
        self.kind, (self.compiler, environment) = kind, clang()
        self.library = build(kind)
        self.environment = {**os.environ, **environment, **OPTIONS}
        # Runtimes are linked into programs, which need no library of clang's.
        self.to_run = {**os.environ, **OPTIONS}

    def program(self, source, out, *more):
        command = [self.compiler, "-std=c11", "-D_GNU_SOURCE", "-g", "-O1", *FLAGS[self.kind], *more, "-I", PACKAGE / "include", source,
                   "-o", out, self.library, *SYSTEM_LIBRARIES]
        subprocess.run([str(part) for part in command], check=True, env=self.environment)
        return out


def places(program, report):
    """Where in the sources the first stack of a report is."""
    stack = report.split("\n\n")[0]
    addresses = re.findall(r"\+(0x[0-9a-f]+)\)", "".join(line for line in stack.splitlines(True) if f"{program.name}+" in line))
    if not addresses:
        return ""
    return subprocess.run(["addr2line", "-f", "-e", program, *addresses], capture_output=True, text=True).stdout


def planted(built, folder):
    """Whether each fault is found where it happens."""
    passed = failed = 0
    for fault, words in FAULTS[built.kind].items():
        source = folder / "planted.c"
        source.write_text(PROGRAM.format(fault=fault))
        done = subprocess.run([built.program(source, folder / "planted")], env=built.to_run, capture_output=True, text=True)
        said = done.stderr + places(folder / "planted", done.stderr)
        found = done.returncode != 0 and all(word in said for word in words)
        passed, failed = passed + found, failed + (not found)
        if not found:
            print(f"FAILED: {words} not found:\n{fault}\n{done.stderr[:2000]}\n{said[len(done.stderr):]}")
    print(f"{passed} passed, {failed} failed")
    return failed


# Failure F5
def test(built, folder):
    """The tests in C."""
    cases = ["values", "operation", "misuse", "sizes"]
    flags = " ".join([*FLAGS[built.kind], f"-I{PACKAGE / 'include'}", str(built.library), *SYSTEM_LIBRARIES])
    command = [sys.executable, PACKAGE / "tests" / "run.py", PACKAGE, "--compiler", built.compiler, f"--flags={flags}", "--cases", *cases]
    return subprocess.run([str(part) for part in command], env=built.environment).returncode


# Failure F3
def fuzz(built, folder, sequences):
    """Sequences of calls that are random, and a tenth as many by a fuzzer that learns from what is run; first, whether a buffer that is one byte
    too short is found."""
    targets = ROOT / "fuzz" / "c"
    learns = ["-max_len=200", "-len_control=0", "-entropic=0", "-print_final_stats=1", "-timeout=120", "-rss_limit_mb=4096"]

    def run(name, sources, arguments, *flags):
        program = built.program(targets / "calls.c", folder / name, *flags, *[targets / source for source in sources])
        (folder / f"{name}.d").mkdir()
        environment = built.to_run | {"KEYFOLD_FUZZ_FOLDER": str(folder / f"{name}.d")}
        return subprocess.run([str(part) for part in [program, *arguments]], cwd=folder, env=environment, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, errors="replace")

    def check(what, holds, output):
        if holds:
            return 0
        # Without the fuzzer's progress.
        said = [line for line in output.splitlines() if not re.match(r"#\d|\s+NEW_FUNC", line)]
        print(f"FAILED: {what}", *said[:40], *(["...", *said[-10:]] if len(said) > 50 else []), sep="\n")
        return 1

    lie = run("lie", ["random.c"], ["20000", "1"], "-DSHORT=1").stdout
    where = places(folder / "lie", lie[lie.find("ERROR: AddressSanitizer"):])
    failed = check("a buffer that is a byte too short was not found", "heap-buffer-overflow" in lie and "bindings-c/src/" in where, lie + where)
    seed = secrets.randbelow(1 << 32)
    done = run("random", ["random.c"], [sequences, seed])
    failed += check(f"{sequences} random sequences of seed {seed}", done.returncode == 0 and done.stdout.endswith("done\n"), done.stdout)
    runs = sequences // 10
    done = run("learned", [], [f"-runs={runs}", f"-artifact_prefix={folder}/found-", *learns], "-fsanitize=fuzzer")
    made = re.search(r"number_of_executed_units: (\d+)", done.stdout)
    failed += check(f"{runs} sequences of the fuzzer", done.returncode == 0 and made and int(made[1]) >= runs, done.stdout)
    for found in folder.glob("found-*"):
        (shared.TARGET / "fuzz").mkdir(exist_ok=True)
        print("kept:", shutil.copy(found, shared.TARGET / "fuzz"))
    print(f"{sequences} random sequences of seed {seed}, and {runs} of the fuzzer")
    print(f"{3 - failed} passed, {failed} failed")
    return failed


# Uses of memory that is gone, in Rust; the words that have to be in the report. Of the first only core reads, so it has to be built with the
# sanitizer; the second is a key's, whose place has to be known for one that is gone.
RUST_FAULTS = {
    "let value: Box<[u8]> = vec![0xF5; 100].into();\n    let gone: &[u8] = unsafe { &*(&raw const *value) };\n    drop(value);\n"
    "    println!(\"{}\", keyfold::wire::Sealed::parse(std::hint::black_box(gone)).is_ok());": ["heap-use-after-free", "core/src/wire/"],
    "let key = keyfold_memory::Guarded::new([7_u8; 32]);\n    let gone = &raw const *key;\n    drop(key);\n"
    "    println!(\"{}\", unsafe { std::hint::black_box(gone).read_volatile() }[0]);": ["heap-use-after-free"],
}
# Of packages and their features: which tests, and flags of the compiler. In core each key has a block of the heap to itself, as the sanitizer knows
# nothing of places within the arena.
RUST_TESTS = [
    (["-p", "keyfold", "--features", "testing,hazmat"], ["--lib", "--test", "all"], ["--cfg", "keyfold_heap"]),
    # Not what asks the system about locked pages: under the sanitizer `mlock` does nothing.
    (["-p", "keyfold-memory"], ["--lib"], []),
]
RUST_TARGET = shared.TARGET / "address-rust"
# Some tests keep what they made until the program ends.
RUST_OPTIONS = OPTIONS | {"ASAN_OPTIONS": f"{OPTIONS['ASAN_OPTIONS']}:detect_leaks=0"}


def cargo_test(packages, tests, flags, *more, **options):
    command = ["cargo", "test", "--locked", "--profile", "ci", "--config", "profile.ci.opt-level=1", "--target", TRIPLE, "--target-dir",
               str(RUST_TARGET), *packages, *tests, *more]
    environment = {"RUSTC_BOOTSTRAP": "1", "RUSTFLAGS": " ".join(["-Zsanitizer=address", *flags]), **RUST_OPTIONS}
    return subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, **options)


def rust(folder):
    """The tests in Rust; first, whether uses of memory that is gone are found, in what is built as they are."""
    packages, tests, flags = RUST_TESTS[0]
    built = cargo_test(packages, tests, flags, "--no-run", "--message-format=json", check=True, stdout=subprocess.PIPE, text=True)
    messages = [json.loads(line) for line in built.stdout.splitlines()]
    libraries = {message["target"]["name"]: message["filenames"][0] for message in messages
                 if message["reason"] == "compiler-artifact" and message["target"]["kind"] == ["lib"] and not message["profile"]["test"]}
    externs = [part for name in ("keyfold", "keyfold_memory") for part in ("--extern", f"{name}={libraries[name]}")]
    # Macros are built for the compiler, not for the target.
    dependencies = [part for folder in (Path(libraries["keyfold"]).parent, RUST_TARGET / "ci" / "deps") for part in ("-L", f"dependency={folder}")]
    failed = 0
    for fault, words in RUST_FAULTS.items():
        source, program = folder / "planted.rs", folder / "planted"
        source.write_text(f"fn main() {{\n    {fault}\n}}\n")
        command = ["rustc", "--edition", "2024", "-Zsanitizer=address", "--target", TRIPLE, "-g", *dependencies, *externs, "-o", program, source]
        subprocess.run([str(part) for part in command], check=True, env={**os.environ, "RUSTC_BOOTSTRAP": "1"})
        done = subprocess.run([program], env={**os.environ, **RUST_OPTIONS}, capture_output=True, text=True)
        said = done.stderr + places(program, done.stderr)
        if done.returncode == 0 or not all(word in said for word in words):
            failed += 1
            print(f"FAILED: {words} not found:\n{fault}\n{said[:4000]}")
    print(f"{len(RUST_FAULTS) - failed} passed, {failed} failed")
    for packages, tests, flags in RUST_TESTS:
        failed += cargo_test(packages, tests, flags, "--no-fail-fast").returncode != 0
    return failed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=["address", "fuzz", "thread", "rust"])
    parser.add_argument("--sequences", type=int, default=20000, help="how many sequences of calls (20000)")
    options = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            if options.kind == "rust":
                return bool(rust(folder))
            built = Built("thread" if options.kind == "thread" else "address")
            if options.kind == "fuzz":
                return bool(fuzz(built, folder, options.sequences))
            failed = planted(built, folder)
            return bool(test(built, folder) or failed)
    except shared.Unavailable as why:
        print(f"SKIPPED: {why}")
        return shared.NOTHING_RAN
    except subprocess.CalledProcessError as error:
        print(error)
        return 1


if __name__ == "__main__":
    sys.exit(main())
