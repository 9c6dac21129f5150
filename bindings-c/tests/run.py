#!/usr/bin/env python3
"""Tests an installed C library: `bindings-c/tests/run.py PREFIX`. Needs a C compiler and pkg-config; uses clang, g++, CMake and valgrind
where they are. With --write-abi it writes bindings-c/abi.txt instead."""

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

from headers import WARNINGS, bare, compilers, declarations, function_types, functions, layout

HERE = Path(__file__).resolve().parent
PACKAGE = HERE.parent
POLICY = """\
version = 1
rows = 1000000
[fields."patient.ssn"]
row_binding = "patient_id"
[fields.bound]
row_binding = "patient_id"
[fields.any]
row_binding = "none"
[fields.tenant]
row_binding = "none"
required_context = ["tenant"]
[fields.mrn]
mode = "deterministic"
type = "text"
[fields.mrn.index.exact]
kind = "exact"
bits = 256
unique = true
[fields.mrn.index.start]
kind = "prefix"
length = [3]
bits = 4
[fields.format]
mode = "format-preserving"
format = "digits"
[fields.image]
mode = "stream"
[fields.name]
mode = "document"
paths = ["$.name"]
only_if = { "$.kind" = "patient" }
[documents.all]
row_binding = "none"
only_if = { "$.kind" = "patient" }
"""
# Of indexes, formats and documents.
LOOKUP_POLICY = """\
version = 1
rows = 1000000
[fields."patient.ssn"]
row_binding = { column = "id", path = "$.id" }
columns = ["ssn"]
paths = ["$.ssn"]
[fields."patient.ssn".index.lookup]
kind = "digits"
bits = 63
unique = true
column = "ssn_index"
[fields."patient.ssn".index.whole]
kind = "exact"
bits = 256
unique = true
[fields."patient.name"]
mode = "document"
paths = ["$.name[*]"]
only_if = { "$.kind" = "patient" }
[fields."patient.name".index.start]
kind = "prefix"
length = [3, 4]
bits = 6
[fields."patient.mrn"]
mode = "format-preserving"
format = "digits"
columns = ["mrn"]
paths = ["$.mrn"]
optional = true
[documents.patient]
row_binding = "$.id"
only_if = { "$.kind" = "patient" }
"""
# Undefined values are not looked for in what seals much: ring's gcm_ghash_avx makes zeros by xoring copies of whatever three registers hold
# ("subtle way to zero" in ghash-x86_64.pl). If that is undefined, as rests of the stack are, valgrind takes the tag for undefined too,
# of which no bit depends on it.
GRIND = ["valgrind", "--quiet", "--error-exitcode=99", "--leak-check=full", "--show-leak-kinds=definite", "--errors-for-leak-kinds=definite"]


class Failed(Exception):
    """What is wrong."""


class Tests:
    def __init__(self, prefix, keyfold=None, compiler="cc", flags=None, runner=()):
        self.prefix, self.keyfold, self.passed, self.failed, self.skipped = prefix, keyfold, 0, 0, []
        self.compiler, self.flags, self.runner = compiler, flags, list(runner)
        self.lib, self.include = prefix / "lib", prefix / "include"
        self.environment = {
            **os.environ,
            "PKG_CONFIG_PATH": str(self.lib / "pkgconfig"),
            "LD_LIBRARY_PATH": str(self.lib),
        }
        self.header = (self.include / "keyfold.h").read_text()

    def check(self, holds, what):
        self.passed += bool(holds)
        self.failed += not holds
        if not holds:
            print(f"FAILED: {what}")

    def skip(self, what):
        self.skipped.append(what)
        print(f"SKIPPED: {what}")

    def run(self, *command, cwd=None, status=0):
        """What the command prints, if it ends with `status`."""
        done = subprocess.run([str(part) for part in command], cwd=cwd, env=self.environment, capture_output=True, text=True)
        if done.returncode != status:
            raise Failed(f"{' '.join(map(str, command))} ended with {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def program(self, source, out, *more, compiler=None, std="c11"):
        """Builds a program as a user would, or as we are told to."""
        flags = (self.flags or self.run("pkg-config", "--cflags", "--libs", "keyfold")).split()
        self.run(compiler or self.compiler, f"-std={std}", "-D_GNU_SOURCE", "-g", "-O1", *WARNINGS, *more, source, "-o", out, "-pthread", *flags)
        return out


def headers(tests, folder):
    """The headers compile as every language that they are for, each alone, without a warning."""
    use = "".join(f"    (void){name};\n" for name in functions(tests.header, "kf"))
    for compiler, language, standards in compilers(tests.skip):
        strict = ["-Wstrict-prototypes"] if language == "c" else []
        for std in standards:
            for header in ["keyfold.h", "keyfold_result.h", *(["keyfold.hpp"] if language == "c++" else [])]:
                source = folder / ("header.c" if language == "c" else "header.cc")
                body = f"int main(void)\n{{\n{use}    return KF_VERSION == 0 || KF_NO_ROW == 0;\n}}\n"
                source.write_text(f"#include <{header}>\n" + (body if header != "keyfold_result.h" else "int main(void) { return KF_OK; }\n"))
                tests.run(compiler, f"-std={std}", *WARNINGS, *strict, "-fsyntax-only", "-I", tests.include, source)
                tests.check(True, f"{header} {compiler} {std}")
    # keyfold.hpp says in one line what it needs.
    source = folder / "older.cc"
    source.write_text("#include <keyfold.hpp>\nint main() {}\n")
    said = subprocess.run(["c++", "-std=c++11", "-fsyntax-only", "-I", tests.include, source], capture_output=True, text=True).stderr
    tests.check("needs C++17" in said and said.count(" error: ") == 1, f"keyfold.hpp in C++11: {said}")
    # A result that nobody looks at is a warning, so an error here.
    source = folder / "ignored.c"
    source.write_text("#include <keyfold.h>\nint main(void) { kf_options_new(NULL, NULL); return 0; }\n")
    tests.run("cc", *WARNINGS, "-c", "-o", folder / "ignored.o", "-I", tests.include, source, status=1)
    tests.check(True, "a result must be used")


def install(tests, folder):
    """What is missing is said before anything is built, in a line."""
    (folder / "file").touch()
    paths = {"not installed: cargo, ld, objcopy, ar\n": str(folder), "cannot install: ": os.environ["PATH"]}
    for said, path in paths.items():
        done = subprocess.run([sys.executable, PACKAGE / "install", "--prefix", folder / "file" / "in"], env={**os.environ, "PATH": path},
                              capture_output=True, text=True)
        tests.check(done.returncode == 1 and done.stderr.startswith(said) and done.stderr.count("\n") == 1, f"install says {done.stderr}")


def symbols(tests, folder):
    """Our functions and nothing else have names, in both libraries, and the soname is the version's."""
    names = functions(tests.header, "kf")
    exported = re.findall(r" [A-Za-z] (\S+)", tests.run("nm", "-D", "--defined-only", tests.lib / "libkeyfold.so"))
    tests.check(sorted(exported) == names, f"shared: {set(exported) ^ set(names)}")
    glob = re.findall(r" [A-Z] (\S+)", tests.run("nm", "-g", "--defined-only", tests.lib / "libkeyfold.a"))
    tests.check(sorted(glob) == names, f"static: {sorted(set(glob) ^ set(names))[:10]}")
    version = tests.run("pkg-config", "--modversion", "keyfold").strip()
    dynamic = tests.run("readelf", "-d", tests.lib / "libkeyfold.so")
    abi = ".".join(version.split(".")[:2])
    tests.check(f"[libkeyfold.so.{abi}]" in dynamic, "soname")
    needed = set(re.findall(r"NEEDED.*\[(.*)\]", dynamic))
    system = {"libc.so.6", "libgcc_s.so.1", "libm.so.6", "libpthread.so.0", "libdl.so.2", "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"}
    tests.check(needed <= system, f"needs {needed - system}")
    tests.check((tests.lib / f"libkeyfold.so.{abi}").resolve() == (tests.lib / f"libkeyfold.so.{version}").resolve(), "links")


def readme(tests, folder):
    """The program of the README has fewer than 40 lines, builds with pkg-config, CMake and statically, and does what it says."""
    text = (PACKAGE / "README.md").read_text()
    program = re.search(r"```c\n(.*?)```", text, re.DOTALL)[1]
    tests.check(len(program.splitlines()) <= 40, f"{len(program.splitlines())} lines")
    (folder / "program.c").write_text(program)
    (folder / "policy.toml").write_text(re.search(r"```toml\n(.*?)```", text, re.DOTALL)[1])
    flags = tests.run("pkg-config", "--cflags", "--libs", "keyfold").split()
    tests.run("cc", *WARNINGS, "program.c", "-o", "program", *flags, cwd=folder)
    ways = {"shared": folder / "program"}
    tests.check(not [flag for flag in flags if ".." in flag], f"pkg-config says {flags}")
    for way, package, *more in [("static", "keyfold-static"), ("all static", "keyfold-static", "-static"), ("pkg-config --static", "keyfold", "-static")]:
        flags = tests.run("pkg-config", "--cflags", "--libs", *(["--static"] if more else []), package).split()
        tests.run("cc", *WARNINGS, *more, "program.c", "-o", way, *flags, cwd=folder)
        ways[way] = folder / way
    if shutil.which("cmake"):
        (folder / "CMakeLists.txt").write_text(
            "cmake_minimum_required(VERSION 3.16)\nproject(program C)\nfind_package(keyfold 0.1 REQUIRED)\n"
            "foreach(kind keyfold keyfold-static)\nadd_executable(with-${kind} program.c)\n"
            "target_link_libraries(with-${kind} PRIVATE keyfold::${kind})\nendforeach()\n")
        tests.run("cmake", "-S", ".", "-B", "build", f"-DCMAKE_PREFIX_PATH={tests.prefix}", cwd=folder)
        tests.run("cmake", "--build", "build", cwd=folder)
        ways |= {f"CMake, {kind}": folder / "build" / f"with-{kind}" for kind in ["keyfold", "keyfold-static"]}
    else:
        tests.skip("the README's program with CMake: it is not installed")
    for way, built in ways.items():
        is_shared = "libkeyfold" in tests.run("readelf", "-d", built)
        tests.check(is_shared == (way in ["shared", "CMake, keyfold"]), f"{way}: is linked with the {'shared' if is_shared else 'static'} library")
        shutil.rmtree(folder / "ring", ignore_errors=True)
        for again in ["", ", again"]:
            tests.check(tests.run(built, cwd=folder) == "999-81-5679\nanother patient's row\n", way + again)


def tutorial(tests, folder):
    """The program of docs/c.md builds without a warning and does what it says."""
    text = (PACKAGE.parent / "docs" / "c.md").read_text()
    (folder / "tutorial.c").write_text("\n".join(re.findall(r"```c\n(.*?)```", text, re.DOTALL)))
    (folder / "policy.toml").write_text(re.search(r"```toml\n(.*?)```", text, re.DOTALL)[1])
    make_ring(tests, folder)
    built = tests.program(folder / "tutorial.c", folder / "tutorial")
    said = tests.run(built, folder / "ring" / "keyfold.toml", folder / "policy.toml")
    tests.check(said == '112\nnormal  \nrow 1: DecryptionFailed\na new key seals\n{ "id": "p-17", "name": "Ada" }\nDICM\n', f"the tutorial said {said!r}")


def make_ring(tests, folder):
    """A keyring in `folder`/ring."""
    source = folder / "make.c"
    names = ", ".join(f'KF_STR("{name}")' for name in ["ring", "ring", "test"])
    source.write_text(f"#include <keyfold.h>\nint main(void) {{ return kf_init({names}, NULL, 0, NULL, NULL); }}\n")
    tests.run(*tests.runner, tests.program(source, folder / "make"), cwd=folder)


def suite(tests, folder, name, *arguments):
    """One of the programs in C or C++, which counts its own cases."""
    source, language = HERE / "c" / f"{name}.c", {}
    if not source.exists():
        source, language = source.with_suffix(".cc"), {"compiler": "c++", "std": "c++17"}
    built = tests.program(source, folder / name, **language)
    done = subprocess.run([*tests.runner, built, *arguments], env=tests.environment, capture_output=True, text=True)
    counts = re.search(r"^(\d+) passed, (\d+) failed$", done.stdout, re.MULTILINE)
    if not counts or (done.returncode == 0) != (counts[2] == "0"):
        raise Failed(f"{name} ended with {done.returncode}: {done.stderr[-2000:]}")
    print(done.stdout[: counts.start()] + f"{name}: {counts[0]}")
    tests.passed += int(counts[1])
    tests.failed += int(counts[2])
    return built


def values(tests, folder):
    """What the library does when it is used as it should be."""
    (folder / "policy.toml").write_text(POLICY)
    suite(tests, folder, "values", folder, folder / "policy.toml")


def cpp(tests, folder):
    """keyfold.hpp: each function is called in it, and the program of its tests finds nothing, nor does valgrind."""
    code = bare((tests.include / "keyfold.hpp").read_text())
    # Those that are pure are as good in C++.
    left = {"kf_version"} | set(re.findall(r"\bsize_t (kf_\w+)\(", bare(tests.header)))
    missing = [name for name in functions(tests.header, "kf") if name not in code and name not in left]
    tests.check(not missing, f"not in keyfold.hpp: {missing}")
    (folder / "policy.toml").write_text(POLICY)
    arguments = [folder / "in", folder / "policy.toml"]

    def fresh():
        shutil.rmtree(folder / "in", ignore_errors=True)
        (folder / "in").mkdir()
        if tests.keyfold:
            secret = folder / "passphrase"
            secret.touch(mode=0o600)
            secret.write_text("correct horse\n")
            tests.run(tests.keyfold, "keys", "new-kek", folder / "in" / "pass.kek", "--passphrase", "--memory", "19",
                      "--passphrase-file", secret)

    if not tests.keyfold:
        tests.skip("the passphrase of a KEK in C++: give --keyfold")
    fresh()
    built = suite(tests, folder, "hpp", *arguments)
    if not shutil.which("valgrind"):
        return tests.skip("keyfold.hpp with valgrind: it is not installed")
    fresh()
    tests.run(*GRIND, "--undef-value-errors=no", built, *arguments)
    tests.check(True, "valgrind")


def operation(tests, folder):
    """Search, rows that fail, a copy of the key records, passphrases, the log."""
    (folder / "policy.toml").write_text(POLICY)
    shutil.copy(PACKAGE.parent / "bindings-python" / "tests" / "data" / "passphrase.kek", folder)
    (folder / "passphrase.kek").chmod(0o600)
    suite(tests, folder, "operation", folder, folder / "policy.toml", folder / "passphrase.kek")


# Failure C23
def interop(tests, folder):
    """The command opens what C has sealed, and C what the command has, also with a copy of the key records alone."""
    if not tests.keyfold:
        return tests.skip("what the command has sealed: give --keyfold")
    config, policy, copy = folder / "ring" / "keyfold.toml", folder / "policy.toml", folder / "copy"
    make_ring(tests, folder)
    policy.write_text(
        'version = 1\n[fields."patient.ssn"]\nidentifier = "G"\nrow_binding = "patient_id"\ncolumns = ["ssn"]\n')
    (folder / "plain.csv").write_text("patient_id,ssn\np-17,999-81-5679\n")
    both = ["--config", config, "--policy", policy]
    tests.run(tests.keyfold, "protect", *both, folder / "plain.csv", "--output", folder / "sealed.csv")
    tests.run(tests.keyfold, "keys", "backup", "--config", config, copy)
    sealed = (folder / "sealed.csv").read_text().splitlines()[1].split(",")[1]
    built = tests.program(HERE / "c" / "interop.c", folder / "interop")
    opened, text, counts = tests.run(built, config, policy, copy, sealed).splitlines()
    tests.check(opened == "999-81-5679" and counts.endswith(" 0 failed"), f"from the command: {opened}, {counts}")
    (folder / "c.csv").write_text(f"patient_id,ssn\np-18,{text}\n")
    tests.run(tests.keyfold, "reveal", *both, folder / "c.csv", "--output", folder / "revealed.csv")
    tests.check((folder / "revealed.csv").read_text() == "patient_id,ssn\np-18,sealed in C\n", "from C")


def lookup(tests, folder):
    """Tokens, formats and documents are those of the command, in both directions; valgrind finds nothing."""
    if not tests.keyfold:
        return tests.skip("tokens and documents of the command: give --keyfold")
    config, policy, program = folder / "ring" / "keyfold.toml", folder / "policy.toml", folder / "lookup"
    make_ring(tests, folder)
    policy.write_text(LOOKUP_POLICY)
    text = re.search(r'TEXT\[\] = "(.*)";', (HERE / "c" / "lookup.c").read_text())[1].encode().decode("unicode_escape")
    (folder / "plain.json").write_text(text)
    (folder / "plain.csv").write_text("id,ssn,mrn\np-17,999-81-5679,999-81-5679\n")
    both, no_documents = ["--config", config, "--policy", policy], folder / "columns.toml"
    no_documents.write_text(re.sub(r'\[fields."patient.name"\].*?(?=\[fields."patient.mrn"\])', "", LOOKUP_POLICY, flags=re.DOTALL).replace(LOOKUP_POLICY[LOOKUP_POLICY.index("[documents"):], ""))
    tests.run(tests.keyfold, "protect", *both, folder / "plain.json", "--output", folder / "sealed.json")
    tests.run(tests.keyfold, "protect", "--config", config, "--policy", no_documents, folder / "plain.csv", "--output", folder / "sealed.csv")
    names, row = [line.split(",") for line in (folder / "sealed.csv").read_text().splitlines()]
    sealed = dict(zip(names, row))
    arguments = [config, policy, (folder / "sealed.json").read_text(), sealed["ssn_index"], sealed["mrn"]]
    built = suite(tests, folder, "lookup", *arguments)
    for way in ["", ", with valgrind"]:
        grind = [*GRIND, "--undef-value-errors=no"] if way else []
        if way and not shutil.which("valgrind"):
            return tests.skip("tokens and documents with valgrind: it is not installed")
        said = tests.run(*grind, built, *arguments)
        (folder / "c.json").write_text(said[: said.rindex("}") + 1])
        tests.run(tests.keyfold, "reveal", *both, folder / "c.json", "--output", folder / "back.json", "--force")
        tests.check((folder / "back.json").read_text() == text, "the command reveals a document of C" + way)


def streams(tests, folder):
    """Streams are pushed and pulled, the command's too, and it opens those of C; valgrind finds nothing."""
    if not tests.keyfold:
        return tests.skip("streams of the command: give --keyfold")
    config, policy = folder / "ring" / "keyfold.toml", folder / "policy.toml"
    make_ring(tests, folder)
    policy.write_text('version = 1\n[fields.image]\nmode = "stream"\n[fields.scan]\nmode = "stream"\n')
    plain = bytes(i % 251 for i in range(100_000))
    (folder / "plain").write_bytes(plain)
    both = ["--config", config, "--policy", policy, "--stream", "image"]
    tests.run(tests.keyfold, "protect", *both, folder / "plain", "--output", folder / "sealed")
    arguments = [config, policy, folder / "sealed", folder / "made"]
    built = suite(tests, folder, "streams", *arguments, "0")
    tests.run(tests.keyfold, "reveal", *both, folder / "made", "--output", folder / "back")
    tests.check((folder / "back").read_bytes() == plain, "the command reveals a stream of C")
    # The same when the key has leaked, where it still opens.
    key = json.loads(tests.run(tests.keyfold, "inspect", "--json", "--file", folder / "sealed"))["key_id"]
    tests.run(tests.keyfold, "keys", "state", "--config", config, key, "compromised")
    config.write_text(config.read_text().replace("[keyring]\n", "[keyring]\nopen_compromised = true\n"))
    suite(tests, folder, "streams", *arguments, "1")
    if not shutil.which("valgrind"):
        return tests.skip("streams with valgrind: it is not installed")
    tests.run(*GRIND, "--undef-value-errors=no", built, *arguments, "1")
    tests.check(True, "valgrind")


# Failure F1
def misuse(tests, folder):
    """What it does when it is not: every function is in it, and the guard pages catch what they are for."""
    (folder / "policy.toml").write_text(POLICY)
    source = "".join((HERE / "c" / name).read_text() for name in ["misuse.c", "misuse_columns.c", "misuse_lookup.c", "misuse_streams.c"])
    missing = [name for name in functions(tests.header, "kf") if f"{name}(" not in source]
    tests.check(not missing, f"not misused: {missing}")
    make_ring(tests, folder)
    for name in ["misuse", "misuse_columns", "misuse_lookup", "misuse_streams"]:
        suite(tests, folder, name, folder / "ring" / "keyfold.toml", folder / "policy.toml")
    # A program that lies about its buffer dies of the guard page, so one that does not die has not been written past.
    lie = folder / "lie.c"
    lie.write_text(
        '#include "check.h"\nint main(void)\n{\n    size_t len;\n    kf_number one = { 1, 0, 0, 0 };\n'
        "    uint8_t *bytes = guarded(0, 0);\n"
        "    return kf_number_encode(KF_TYPE_INTEGER, &one, bytes, KF_MAX_NUMBER_LEN, &len, NULL) + report() + passed + failed;\n}\n")
    tests.run(*tests.runner, tests.program(lie, folder / "lie", "-I", HERE / "c", "-Wno-unused-function"), status=-11)
    tests.check(True, "guard pages")


# Failures F1, K12
def sizes(tests, folder):
    """Every computation of a length at the edges of size_t."""
    (folder / "policy.toml").write_text(POLICY)
    make_ring(tests, folder)
    suite(tests, folder, "sizes", folder / "ring" / "keyfold.toml", folder / "policy.toml")


# Failures F1, F3
def sequences(tests, folder):
    """20,000 random sequences of calls keep what the header promises. `tools/sanitizers.py fuzz` has a real fuzzer make them."""
    seed = secrets.randbelow(1 << 32)
    sources = [PACKAGE.parent / "fuzz" / "c" / name for name in ["calls.c", "random.c"]]
    built = tests.program(sources[0], folder / "calls", sources[1])
    done = subprocess.run([*tests.runner, built, "20000", str(seed)], env=tests.environment | {"KEYFOLD_FUZZ_FOLDER": str(folder)},
                          capture_output=True, text=True)
    tests.check(done.returncode == 0, f"sequences of seed {seed} ended with {done.returncode}: {done.stderr[-2000:]}")


def leaks(tests, folder):
    """Valgrind finds nothing in the program of the values, and does in one that reads what it has freed."""
    if not shutil.which("valgrind"):
        return tests.skip("valgrind is not installed")
    (folder / "policy.toml").write_text(POLICY)
    built = tests.program(HERE / "c" / "values.c", folder / "values")
    (folder / "in").mkdir()
    tests.run(*GRIND, built, folder / "in", folder / "policy.toml")
    tests.check(True, "valgrind")
    planted = folder / "planted.c"
    planted.write_text(
        "#include <keyfold.h>\n#include <stdlib.h>\nint main(void)\n{\n    char *text = (char *)malloc(4);\n    free(text);\n"
        "    kf_context *context;\n    return kf_context_new(&context, NULL) == KF_OK && kf_context_add(context, text, 4, NULL, 0, NULL) == KF_OK;\n}\n")
    tests.run(*GRIND, tests.program(planted, folder / "planted", "-Wno-use-after-free"), status=99)
    tests.check(True, "valgrind is on")


def abi_of(tests, folder):
    """What a program that is built already relies on."""
    lines = ["# What programs rely on that are built already, on 64-bit Linux. `bindings-c/tests/run.py --write-abi PREFIX` writes it.", "", "# Functions"]
    lines += declarations(tests.header, "kf")
    lines += ["", "# Types of functions", *function_types(tests.header, "kf")]
    code = bare(tests.header)
    result = bare((tests.include / "keyfold_result.h").read_text())
    numbers = re.findall(r"\b(KF_\w+) = (\d+)", result + code)
    lines += ["", "# Numbers", *[f"{name} = {number}" for name, number in numbers]]
    skipped = {"KF_STR", "KF_MUST_USE", "KF_VERSION", "KF_VERSION_MAJOR", "KF_VERSION_MINOR", "KF_VERSION_PATCH"}
    macros = [name for name in re.findall(r"^#define (KF_\w+)", code, re.MULTILINE) if name not in skipped]
    (folder / "abi.c").write_text(layout(tests.header, "kf", "keyfold.h", macros))
    tests.run("cc", "-I", tests.include, folder / "abi.c", "-o", folder / "abi")
    return "\n".join(lines) + "\n" + tests.run(folder / "abi")


# Failure F7
def abi(tests, folder):
    """Nothing has changed that a program relies on which is built already."""
    if platform.machine() != "x86_64":
        return tests.skip(f"abi.txt is that of x86_64, and this is {platform.machine()}")
    made, committed = abi_of(tests, folder).splitlines(), (PACKAGE / "abi.txt").read_text().splitlines()
    for line in [f"- {line}" for line in committed if line not in made] + [f"+ {line}" for line in made if line not in committed]:
        print(line)
    tests.check(made == committed, "abi.txt is another: if that is meant, bindings-c/tests/run.py --write-abi PREFIX")


CASES = [headers, install, symbols, abi, readme, tutorial, values, operation, cpp, interop, lookup, streams, misuse, sizes, sequences, leaks]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prefix", type=Path, help="where bindings-c/install has put it")
    parser.add_argument("--write-abi", action="store_true", help="write abi.txt, and test nothing")
    parser.add_argument("--keyfold", type=Path, help="the command, which opens what C has sealed")
    parser.add_argument("--compiler", default="cc", help="for the programs in C")
    parser.add_argument("--flags", help="of that compiler, with the library, in the place of what pkg-config says")
    parser.add_argument("--runner", nargs="+", default=[], help="what runs these programs, such as an emulator")
    parser.add_argument("--cases", nargs="+", choices=[case.__name__ for case in CASES], help="only these")
    options = parser.parse_args()
    tests = Tests(options.prefix.resolve(), options.keyfold, options.compiler, options.flags, options.runner)
    if options.write_abi:
        with tempfile.TemporaryDirectory() as folder:
            (PACKAGE / "abi.txt").write_text(abi_of(tests, Path(folder)))
        return 0
    for case in CASES:
        if options.cases and case.__name__ not in options.cases:
            continue
        print(f"--- {case.__name__}: {case.__doc__}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            try:
                case(tests, Path(folder))
            except Failed as failed:
                tests.check(False, f"{case.__name__}: {failed}")
    print(f"\n{tests.passed} passed, {tests.failed} failed")
    return bool(tests.failed)


if __name__ == "__main__":
    sys.exit(main())
