#!/usr/bin/env python3
"""Tests what is in examples/cpp, go, java and node against an installed C library: tools/languages/run.py PREFIX --keyfold COMMAND --python PYTHON.

Each language's own tests; then each of them, the Python wheel and the command open what all of them have sealed; then a service in
Go and a job in Python exchange values through PostgreSQL. PYTHON has the wheel and psycopg. What is missing is skipped aloud.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
EXAMPLES = ROOT / "examples"
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "languages"
# How many values the exchange is about.
RESULTS = 10_000
RESULTS_POLICY = """\
version = 1
[fields."result.value"]
type = "integer"
row_binding = "id"
[fields."result.note"]
type = "text"
row_binding = "id"
"""
# What Go, npm and Maven say then.
UNREACHABLE = r"dial tcp|proxyconnect|GOPROXY=off|no such host|ECONN|ENOTFOUND|ETIMEDOUT|EAI_AGAIN|EHOSTUNREACH|Could not transfer|network"
# Row, type, value.
VALUES = [
    ("r-01", "text", "999-81-5679"),
    ("r-02", "text", "Zoë Müller-Łukasz 病 🙂 עברית"),
    ("r-03", "text", ""),
    ("r-04", "text", "é" * (1 << 19)),
    ("r-05", "text", 'O\'Brien "x", \\y;  '),
    ("r-06", "integer", "0"),
    ("r-07", "integer", "-1"),
    ("r-08", "integer", "9223372036854775807"),
    ("r-09", "integer", "-9223372036854775808"),
    ("r-10", "date", "2026-11-26"),
    ("r-11", "date", "1899-12-31"),
    ("r-12", "date", "0001-01-01"),
    ("r-13", "date", "9999-12-31"),
    ("r-14", "bytes", b"plain".hex()),
    ("r-15", "bytes", ""),
    ("r-16", "bytes", bytes(range(256)).hex()),
    ("r-17", "null", ""),
    ("r-病", "text", "a row beyond ASCII"),
]


class Missing(Exception):
    """What a language needs and is not here."""


class Failed(Exception):
    """What is wrong."""


def run(*command, cwd=None, text=None, environment=None):
    """What a command prints."""
    environment = {**os.environ, **(environment or {})}
    done = subprocess.run([str(part) for part in command], cwd=cwd, input=text, env=environment, capture_output=True, encoding="utf-8")
    if done.returncode != 0:
        raise Failed(f"{' '.join(map(str, command))} ended with {done.returncode}\n{(done.stdout + done.stderr)[-4000:]}")
    return done.stdout


def need(*commands):
    if missing := [command for command in commands if not shutil.which(command)]:
        raise Missing(f"{', '.join(missing)} not installed")


def unreachable(what, failed):
    """`Missing` where a registry cannot be reached. Other bytes than a lock file says are a failure, and so is all else."""
    lines = [line.strip() for line in str(failed).splitlines()[1:]]
    if why := next((line for line in lines if re.search(UNREACHABLE, line) and not re.search("checksum|EINTEGRITY", str(failed))), None):
        return Missing(f"{what} cannot be had: {why[:200]}")
    return failed


def fetch(what, *command, **how):
    """A command that may download."""
    try:
        return run(*command, **how)
    except Failed as failed:
        raise unreachable(what, failed) from None


def at_least(wanted, version, name):
    """Compares the first numbers of a version."""
    found = [int(number) for number in re.findall(r"\d+", version)[: len(wanted)]]
    if found < wanted:
        raise Missing(f"{name} {version.strip()} is older than {'.'.join(map(str, wanted))}")


# The languages. Each function builds, and returns how many tests passed, and the command that its program `values` is.


def cpp(prefix):
    need("c++", "cmake")
    build = TARGET / "cpp"
    run("cmake", "-S", EXAMPLES / "cpp", "-B", build, f"-DCMAKE_PREFIX_PATH={prefix}")
    run("cmake", "--build", build)
    return re.search(r"(\d+) passed, 0 failed", run(build / "tests"))[1], [build / "values"]


def go(prefix):
    need("go", "cc", "pkg-config")
    source, build = EXAMPLES / "go", TARGET / "go"
    # No other toolchain is downloaded, and no module but those of go.sum.
    os.environ |= {"GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly -buildvcs=false"}
    wanted = re.search(r"^go ([\d.]+)", (source / "go.mod").read_text(), re.MULTILINE)[1]
    at_least([int(number) for number in wanted.split(".")], run("go", "env", "GOVERSION", cwd=TARGET), "Go")
    fetch("the modules of go.sum", "go", "mod", "download", cwd=source)
    build.mkdir(exist_ok=True)
    run("go", "build", "-o", f"{build}/", "./cmd/...", cwd=source)
    said = run("go", "test", "-count=1", "-v", "./keyfold", cwd=source)
    if unformatted := run("gofmt", "-l", source).split():
        raise Failed(f"gofmt -w {' '.join(unformatted)}")
    return said.count("--- PASS"), [build / "values"]


def java(prefix):
    need("java", "javac", "mvn")
    at_least([17], run("javac", "-version").removeprefix("javac "), "Java")
    build = TARGET / "java"
    maven = ["mvn", "-B", "-f", EXAMPLES / "java" / "pom.xml", f"-Dkeyfold.target={build}"]
    said = fetch("what pom.xml names", *maven, "test")
    return re.findall(r"Tests run: (\d+), Failures: 0, Errors: 0", said)[-1], ["java", "-cp", f"{build / 'classes'}:{build / 'lib'}/*", "values.Values"]


def node(prefix):
    need("node", "npm")
    at_least([20], run("node", "--version"), "Node")
    build = TARGET / "node"
    shutil.copytree(EXAMPLES / "node", build, dirs_exist_ok=True, ignore=shutil.ignore_patterns("node_modules"))
    # Koffi's installation would compile where there is no binary for the machine; nothing here runs scripts of packages.
    fetch("the packages of package-lock.json", "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", cwd=build)
    said = run("node", "--test", cwd=build)
    return re.search(r"^(?:# |ℹ )pass (\d+)", said, re.MULTILINE)[1], ["node", build / "values.js"]


LANGUAGES = {"C++": cpp, "Go": go, "Java": java, "Node": node}


class Command:
    """The command as another program of this kind: it seals what a file of JSON or CSV has."""

    # It has no spelling for bytes that are no text.
    only_text = True

    def __init__(self, keyfold, folder):
        self.keyfold, self.folder = keyfold, folder

    def _run(self, verb, config, policy, name, content):
        """What it makes of a file."""
        (self.folder / name).write_text(content)
        return run(self.keyfold, verb, "--config", config, "--policy", policy, self.folder / name, "--output", "-")

    def seal(self, config, policy, values):
        plain = {"text": str, "integer": int, "null": lambda _: None}
        documents = [{"row": row, "value": plain[kind](text)} for row, kind, text in values if kind in plain]
        lines = self._run("protect", config, policy, "plain.ndjson", "".join(f"{json.dumps(one, ensure_ascii=False)}\n" for one in documents))
        sealed = [(one["row"], one["value"]) for one in map(json.loads, lines.splitlines())]
        # JSON has no dates and bytes, so a policy says what the cells of a CSV file are.
        for kind in ("date", "bytes"):
            typed = self.folder / f"{kind}.toml"
            typed.write_text(Path(policy).read_text() + f'type = "{kind}"\n')
            cells = [(row, spelled(kind, text)) for row, of, text in values if of == kind and spelled(kind, text) is not None]
            lines = self._run("protect", config, typed, "plain.csv", "row,value\n" + "".join(f"{row},{cell}\n" for row, cell in cells))
            sealed += [tuple(line.split(",")) for line in lines.splitlines()[1:]]
        return sealed

    def open(self, config, policy, sealed):
        lines = "".join(json.dumps({"row": row, "value": text}) + "\n" for row, text in sealed)
        return [(one["row"], one["value"]) for one in map(json.loads, self._run("reveal", config, policy, "sealed.ndjson", lines).splitlines())]

    @staticmethod
    def expected(kind, text):
        """What it reveals in JSON."""
        return {"integer": int, "null": lambda _: None}.get(kind, lambda text: spelled(kind, text))(text)


class Program:
    """A program `values`."""

    only_text = False

    def __init__(self, command):
        self.command = command

    def _run(self, do, config, policy, lines):
        said = run(*self.command, do, config, policy, text="".join("\t".join(line) + "\n" for line in lines))
        # Not splitlines: that takes other characters for line ends, too.
        return [tuple(line.split("\t")) for line in said.split("\n")[:-1]]

    def seal(self, config, policy, values):
        return self._run("seal", config, policy, values)

    def open(self, config, policy, sealed):
        return [(row, (kind, text)) for row, kind, text in self._run("open", config, policy, sealed)]

    @staticmethod
    def expected(kind, text):
        return kind, text


def spelled(kind, text):
    """How the command spells a value; None if it cannot."""
    if kind != "bytes":
        return text
    try:
        return bytes.fromhex(text).decode()
    except UnicodeDecodeError:
        return None


class Tests:
    def __init__(self):
        self.passed = self.failed = 0

    def check(self, holds, what):
        self.passed += bool(holds)
        self.failed += not holds
        if not holds:
            print(f"FAILED: {what}", flush=True)


def skip(what):
    print(f"SKIPPED: {what}", flush=True)


def build(tests, prefix):
    """Those of the languages that are here, with their programs."""
    programs = {}
    for name, make in LANGUAGES.items():
        start = time.monotonic()
        try:
            passed, command = make(prefix)
        except Missing as why:
            skip(f"{name}: {why}")
            continue
        except Failed as failed:
            tests.check(False, f"{name}: {failed}")
            continue
        tests.passed += int(passed)
        programs[name] = Program(command)
        print(f"{name}: {passed} passed in {time.monotonic() - start:.1f} s", flush=True)
    return programs


# Failure C23
def interop(tests, programs, keyfold, folder):
    """Each opens what each has sealed."""
    ring, policy = folder / "ring", EXAMPLES / "values.toml"
    run(keyfold, "init", ring)
    config = ring / "keyfold.toml"
    programs = {**programs, "the command": Command(keyfold, folder)}
    values = {row: (kind, text) for row, kind, text in VALUES}
    sealed, left_out = {}, {"Python": {"null"}, "the command": {"r-16"}}
    for name, program in programs.items():
        sealed[name] = program.seal(config, policy, VALUES)
        rows = [row for row, kind, _ in VALUES if not {kind, row} & left_out.get(name, set())]
        tests.check(sorted(row for row, _ in sealed[name]) == rows, f"{name} has sealed {[row for row, _ in sealed[name]]}")
    for opener, program in programs.items():
        of_all = [(row, text) for of_one in sealed.values() for row, text in of_one]
        if program.only_text:
            of_all = [(row, text) for row, text in of_all if spelled(*values[row]) is not None]
        opened = program.open(config, policy, of_all)
        tests.check([row for row, _ in opened] == [row for row, _ in of_all], f"{opener} opened other rows")
        wrong = [row for row, value in opened if value != program.expected(*values[row])]
        tests.check(not wrong, f"{opener} opened {wrong} as something else")
    # What is in another row opens nowhere, and each says so by the number or name of the result.
    (row, text), (other, _) = sealed["the command"][:2]
    for opener, program in programs.items():
        try:
            program.open(config, policy, [(other, text)])
            tests.check(False, f"{opener} opened {row} in {other}")
        except Failed as failed:
            tests.check(re.search("301|DecryptionFailed", str(failed)), f"{opener} says {failed}")
    print(f"who opens what whom has sealed: {', '.join(programs)}", flush=True)


def readmes(tests, programs, keyfold, folder):
    """What the README of each language has sealed and opened with its program is there, and comes back."""
    run(keyfold, "init", folder / "example")
    config = folder / "example" / "keyfold.toml"
    for name, program in programs.items():
        home = EXAMPLES / name.lower().replace("+", "p")
        if not home.exists():
            continue
        policy, values = re.search(r" seal ring/keyfold.toml (\S+) < (\S+) > sealed.tsv\n", (home / "README.md").read_text()).groups()
        lines = (home / values).read_text()
        sealed = run(*program.command, "seal", config, home / policy, text=lines)
        tests.check(run(*program.command, "open", config, home / policy, text=sealed) == lines, f"the README of {name}")
        if name == "Node":
            done = subprocess.run([*map(str, program.command), "seal", config, policy], env=os.environ | {"KEYFOLD_LIBRARY": "/none.so"}, capture_output=True, text=True)
            tests.check("cannot load /none.so" in done.stderr, f"Node without the library says {done.stderr}")
        # A line that is none is named by its number, and nothing of it is shown.
        good = {"seal": lines.splitlines(keepends=True)[0], "open": sealed.splitlines(keepends=True)[0]}
        wrong = {"seal": ["", "r-999", "r-999\ttext", "r-999\tinteger\tx999", "r-999\tdate\t999", "r-999\tx999\t1"],
                 "open": ["", "r-999", "r-999\tkf1.999"]}
        for do, line in [(do, line) for do in good for line in wrong[do]]:
            done = subprocess.run([*map(str, program.command), do, config, home / policy], input=f"{good[do]}{line}\n", capture_output=True, encoding="utf-8")
            said = done.stderr.strip()
            tests.check(done.returncode == 1 and re.fullmatch("line 2 is not row.* value", said), f"{name} says of {line!r}: {done.returncode} {said}")


def exchange(tests, keyfold, python, folder):
    """A service in Go and a job in Python, which share table and keyring, with a rotation between them."""
    database, authority = os.environ["KEYFOLD_TEST_POSTGRES"], os.environ["KEYFOLD_TEST_POSTGRES_CA"]
    policy, uri = folder / "results.toml", f"{database}?sslrootcert={authority}"
    policy.write_text(RESULTS_POLICY)
    run(keyfold, "migrate", "--store", uri)
    run(keyfold, "init", folder / "shared", "--store", uri)
    config = folder / "shared" / "keyfold.toml"
    environment = {
        "CONFIG": str(config), "POLICY": str(policy), "DATABASE": f"{database}?sslmode=verify-full&sslrootcert={authority}"}
    service = TARGET / "go" / "results"
    start = time.monotonic()
    run(service, "store", RESULTS, environment=environment)
    run(keyfold, "keys", "rotate", "--config", config, "--scope", "laboratory")
    tests.check(run(python, EXAMPLES / "go" / "job.py", environment=environment) == f"{RESULTS} notes\n", "the job")
    said = run(service, "check", RESULTS, environment=environment)
    tests.check(said == f"{RESULTS} results and notes; values current: false, notes current: true\n", f"the service says {said}")
    print(f"{RESULTS} values through PostgreSQL and back in {time.monotonic() - start:.1f} s", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prefix", type=Path, help="where bindings-c/install has put it")
    parser.add_argument("--keyfold", type=Path, required=True, help="the command")
    parser.add_argument("--python", type=Path, help="a Python that has the wheel and psycopg")
    options = parser.parse_args()
    prefix, tests = options.prefix.resolve(), Tests()
    os.environ |= {"PKG_CONFIG_PATH": str(prefix / "lib" / "pkgconfig"), "LD_LIBRARY_PATH": str(prefix / "lib")}
    TARGET.mkdir(parents=True, exist_ok=True)
    programs = build(tests, prefix)
    # For matrix.py.
    (TARGET / "programs.json").write_text(json.dumps({name: [str(part) for part in program.command] for name, program in programs.items()}))
    if options.python:
        programs["Python"] = Program([options.python, HERE / "values.py"])
    else:
        skip("what Python has sealed: give --python")
    needs = {"Go": "Go" in programs, "--python": options.python, "PostgreSQL": "KEYFOLD_TEST_POSTGRES" in os.environ}
    with tempfile.TemporaryDirectory() as folder:
        try:
            interop(tests, programs, options.keyfold, Path(folder))
            readmes(tests, programs, options.keyfold, Path(folder))
            if all(needs.values()):
                exchange(tests, options.keyfold, options.python, Path(folder))
            else:
                skip(f"a service and a job over PostgreSQL: no {', '.join(name for name, there in needs.items() if not there)}")
        except Failed as failed:
            tests.check(False, failed)
    print(f"\n{tests.passed} passed, {tests.failed} failed")
    return bool(tests.failed)


if __name__ == "__main__":
    sys.exit(main())
