#!/usr/bin/env python3
"""Tests the library for devices: `bindings-c/device/tests/run.py`. Needs a Rust toolchain, a C compiler and the Python package
cryptography; on Linux for ARM and on bare Cortex-M what tools/cross.py unpacks.

    --long              also that the search for panics finds one that is planted
    --write-abi         writes ../abi.txt
    --write-figures     writes the table of sizes into docs/firmware.md
"""

import argparse
import importlib.machinery
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
sys.path.insert(0, str(ROOT / "tools"))
sys.path.insert(0, str(ROOT / "bindings-c" / "tests"))
import cross  # noqa: E402
import shared  # noqa: E402
import tables  # noqa: E402
from headers import WARNINGS, bare, compilers, declarations, function_types, functions, layout  # noqa: E402

loader = importlib.machinery.SourceFileLoader("build_device", str(HERE.parent / "build"))
build_device = importlib.util.module_from_spec(importlib.util.spec_from_loader("build_device", loader))
loader.exec_module(build_device)

# The tables hold more than each program uses.
TABLES = ["-Wno-unused-const-variable"]
HEADER = ROOT / "bindings-c" / "include" / "keyfold_device.h"
DOCUMENT = ROOT / "docs" / "firmware.md"
FIGURES = re.compile(r"(<!-- figures -->\n).*?(<!-- end -->)", re.DOTALL)
# What a call may leave on the stack: its arguments, and registers that it saved. An expanded key has 240 bytes.
MOST_LEFT = 200
GOAL_FLASH, GOAL_COUNTED, GOAL_STACK = 24 * 1024, 28 * 1024, 4 * 1024
# Files of other crates in which a check of lengths is left that the compiler cannot do without; no length that we give them fails it.
CHECKS_LEFT = {
    "aes-kw/src/kwp.rs", "aes/src/backends/fixslice/utils.rs", "block-buffer/src/sealed.rs", "cipher/src/stream/core_api.rs",
    # Of passphrases: in no firmware that does not open any, but its texts are not left out.
    "argon2/src/block.rs", "argon2/src/lib.rs", "argon2/src/memory.rs", "argon2/src/params.rs",
}
BOARDS = {
    "Cortex-M4F": {
        "target": "thumbv7em-none-eabihf", "machine": "mps2-an386", "flash": 0, "ram": 0x20000000, "tick": 40,
        "flags": ["-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16"],
    },
    "Cortex-M33": {
        "target": "thumbv8m.main-none-eabihf", "machine": "mps2-an505", "flash": 0x10000000, "ram": 0x38000000, "tick": 50,
        "flags": ["-mcpu=cortex-m33", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv5-sp-d16"],
    },
}


class Tests:
    def __init__(self, folder):
        self.folder, self.passed, self.failed, self.figures = folder, 0, 0, {}

    def check(self, holds, what):
        self.passed += bool(holds)
        self.failed += not holds
        if not holds:
            print(f"FAILED: {what}")

    def skip(self, what):
        print(f"SKIPPED: {what}")

    def run(self, *command, status=0):
        """What the command prints, if it ends with `status`."""
        done = subprocess.run([str(part) for part in command], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300)
        if done.returncode != status:
            raise RuntimeError(f"{' '.join(map(str, command))} ended with {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout + done.stderr

    def count(self, name, said):
        counts = re.search(r"^(\d+) passed, (\d+) failed$", said, re.MULTILINE)
        print(said[: counts.start()] + f"{name}: {counts[0]}", flush=True)
        self.passed += int(counts[1])
        self.failed += int(counts[2])

    def compile(self, compiler, program, library, *flags, platform="linux", suffix=""):
        sources = [HERE / "c" / f"{program}.c", *([HERE / "c" / f"{platform}.c"] if program != "misuse" else [])]
        out = self.folder / f"{program}{suffix}"
        self.run(compiler, "-std=c11", *WARNINGS, *TABLES, "-I", ROOT / "bindings-c" / "include", "-I", self.folder, "-I", HERE / "c",
                 *sources, library, *flags, "-o", out)
        return out


def header(tests):
    """The header compiles as every language that it is for, without a warning, and a result must be used."""
    text = HEADER.read_text()
    use = "".join(f"    (void){name};\n" for name in functions(text, "kfd"))
    include = ["-I", ROOT / "bindings-c" / "include"]
    for compiler, language, standards in compilers(tests.skip):
        for std in standards:
            source = tests.folder / ("header.c" if language == "c" else "header.cc")
            source.write_text(f"#include <keyfold_device.h>\nint main(void)\n{{\n{use}    return KFD_KEY_WORDS == 0;\n}}\n")
            strict = ["-Wconversion", "-Wshadow", *(["-Wstrict-prototypes"] if language == "c" else [])]
            tests.run(compiler, f"-std={std}", *WARNINGS, *strict, "-fsyntax-only", *include, source)
            tests.check(True, f"{compiler} {std}")
    source = tests.folder / "ignored.c"
    source.write_text("#include <keyfold_device.h>\nint main(void) { kfd_counter_start(NULL, NULL, NULL); return 0; }\n")
    tests.run("cc", *WARNINGS, *include, "-c", "-o", tests.folder / "ignored.o", source, status=1)
    tests.check(True, "a result must be used")
    misuse = (HERE / "c" / "misuse.c").read_text()
    missing = [name for name in functions(text, "kfd") if f"{name}(" not in misuse and f"{name}," not in misuse and f"{name} }}" not in misuse]
    tests.check(not missing, f"not misused: {missing}")


def abi_of(tests, compiler, run=()):
    """What firmware relies on that is built already: functions, numbers, structs."""
    text = HEADER.read_text()
    lines = declarations(text, "kfd") + function_types(text, "kfd")
    lines += [f"{name} = {number}" for name, number in re.findall(r"\b(KFD_TYPE_\w+) = (\d+)", bare(text))]
    macros = [name for name in dict.fromkeys(re.findall(r"#define (KFD_\w+) \d", bare(text)))]
    (tests.folder / "abi.c").write_text(layout(text, "kfd", "keyfold_device.h", macros))
    tests.run(compiler, "-std=c11", *WARNINGS, "-I", ROOT / "bindings-c" / "include", tests.folder / "abi.c", "-o", tests.folder / "abi", "-static")
    return "\n".join(lines) + "\n" + tests.run(*run, tests.folder / "abi")


# Failure F7
def abi(tests, write):
    """It is what it was."""
    path = HERE.parent / "abi.txt"
    made = "# What programs rely on that are built already. `tests/run.py --write-abi` writes it.\n\n# 64 bits\n" + abi_of(tests, "cc")
    known = path.read_text() if path.exists() else ""
    if cross_is_here(tests):
        made += "\n# 32 bits: what differs\n"
        wide = set(made.splitlines())
        narrow = abi_of(tests, cross.tool("arm-linux-gnueabihf-gcc"), [cross.tool("qemu-arm-static")])
        made += "".join(line + "\n" for line in narrow.splitlines() if line not in wide)
    elif not write:
        known = known.split("\n# 32 bits")[0]
    if write:
        path.write_text(made)
    else:
        tests.check(made == known, f"the ABI is not that of {path.name}:\n{made}")


# Failures N8, N9, F1
def host(tests):
    """On this machine: what it exports, vectors, misuse, and that guard pages catch what they are for."""
    library = build_device.build(None, tests.folder / "host")
    text = HEADER.read_text()
    exported = set(re.findall(r" T (kfd_\w+)$", tests.run("nm", "-g", "--defined-only", library), re.MULTILINE))
    declared = set(functions(text, "kfd"))
    tests.check(exported == declared, f"exported: {exported ^ declared}")
    for program in ("vectors", "misuse"):
        tests.count(f"{program} here", tests.run(tests.compile("cc", program, library, "-pthread")))
    tests.run(tests.folder / "misuse", "lie", status=-11)
    tests.check(True, "guard pages")
    said = tests.run(tests.compile("cc", "fields", library, "-static", "-pthread", "-Wl,--gc-sections"))
    measured(tests, "here", said)
    package = ["pkg-config", "--cflags", "--libs", str(library.parent / "pkgconfig" / "keyfold_device.pc")]
    if shutil.which("pkg-config"):
        source = tests.folder / "package.c"
        source.write_text('#include <keyfold_device.h>\n#include <stdio.h>\nint main(void) { return puts(kfd_result_name(KF_OK)) < 0; }\n')
        tests.run("cc", source, *tests.run(*package).split(), "-o", tests.folder / "package")
        tests.check(tests.run(tests.folder / "package") == "Ok\n", "keyfold_device.pc")
    else:
        tests.skip("keyfold_device.pc: pkg-config not installed")


def document(tests):
    """The program of docs/firmware.md builds without a warning, and installs, starts, seals and opens."""
    program = "\n".join(re.findall(r"```c\n(.*?)```", DOCUMENT.read_text(), re.DOTALL))
    (tests.folder / "document.h").write_text(program)
    out = tests.folder / "document"
    tests.run("cc", "-std=c11", *WARNINGS, "-Wconversion", "-Wshadow", *TABLES, "-I", ROOT / "bindings-c" / "include", "-I", tests.folder,
              HERE / "c" / "document.c", tests.folder / "host" / "lib" / "libkeyfold_device.a", "-o", out)
    tests.count("docs/firmware.md", tests.run(out))


def own_vectors(tests):
    """The commands of docs/firmware.md make all that its vectors are built from; what is left is two functions."""
    commands = re.search(r"```sh\n(python3 bindings-c/device/tests/tables.py.*?)```", DOCUMENT.read_text(), re.DOTALL)[1]
    folder = tests.folder / "firmware"
    commands = commands.replace("python3", sys.executable).replace("firmware/tests", str(folder))
    subprocess.run(["sh", "-e", "-c", commands], check=True, cwd=ROOT)
    (folder / "board.c").write_text(
        '#include "platform.h"\n#include <stdio.h>\nvoid say(const char *text) { fputs(text, stdout); }\n'
        'void say_number(uint32_t number) { printf("%u", (unsigned)number); }\n')
    host = tests.folder / "host"
    tests.run("cc", "-I", host / "include", folder / "vectors.c", folder / "board.c", host / "lib" / "libkeyfold_device.a", "-o", folder / "vectors")
    tests.count("vectors as docs/firmware.md says", tests.run(folder / "vectors"))


def build_refuses(tests):
    """What is missing is said in a line."""
    (tests.folder / "file").touch()
    cases = [
        ("cargo is not installed", "/none", ["--out", tests.folder / "out"]),
        ("rustup target add s390x-unknown-linux-gnu", os.environ["PATH"], ["--out", tests.folder / "out", "--target", "s390x-unknown-linux-gnu"]),
        ("cannot build: ", os.environ["PATH"], ["--out", tests.folder / "file"]),
    ]
    for said, path, arguments in cases:
        done = subprocess.run([sys.executable, HERE.parent / "build", *arguments], env={**os.environ, "PATH": path}, capture_output=True, text=True)
        tests.check(done.returncode == 1 and said in done.stderr and done.stderr.count("\n") == 1, f"build says {done.stderr}")


def cross_is_here(tests):
    try:
        cross.install()
    except shared.Unavailable as why:
        return tests.skip(f"devices with another processor: {why}")
    return True


# Failures F17, K12
def linux(tests, name):
    """Linux on ARM, emulated: vectors, misuse, size."""
    target, prefix, emulator = cross.LINUX[name]
    library = build_device.build(target, tests.folder / name, build_std=True)
    compiler, emulator = cross.tool(f"{prefix}-gcc"), cross.tool(emulator)
    for program in ("vectors", "misuse"):
        built = tests.compile(compiler, program, library, "-static", "-pthread", suffix=f"-{name}")
        tests.count(f"{program} on {name}", tests.run(emulator, built))
    fields = tests.compile(compiler, "fields", library, "-static", "-pthread", "-Wl,--gc-sections", suffix=f"-{name}")
    measure(tests, f"Linux, {name}", tests.run(emulator, fields))


def measure(tests, name, said, sizes=None):
    """What a program has measured, for the table."""
    found = measured(tests, name, said)
    tests.figures[name] = (sizes, found)
    return found


# Failure T4
def measured(tests, name, said):
    lines = re.findall(r"^(\w+) stack (\d+) left (\d+) instructions (\d+)$", said, re.MULTILINE)
    found = {what: (int(stack), int(instructions)) for what, stack, _, instructions in lines}
    for what, _, left, _ in lines:
        tests.check(int(left) <= MOST_LEFT, f"{name}: {what} leaves {left} bytes on the stack, with keys perhaps")
    tests.check(set(found) == {"open_key", "seal", "open"}, f"{name} said {said}")
    return found


def locations(image):
    """The source files of Rust in which something in an image could panic; those of other crates without versions."""
    found = {path.decode() for path in re.findall(rb"[\w./@+-]+?\.rs", image.read_bytes())}
    return {re.sub(r"^.*/([\w-]+?)-[\d.]+/src/", r"\1/src/", path) for path in found}


# Failures T13, F17, K10, K12
def board(tests, name, planted=False):
    """A bare Cortex-M, emulated: vectors and counter, sizes within their goals, and nothing of ours that could panic."""
    of = BOARDS[name]
    flags = ["--cfg=kfd_planted"] if planted else []
    library = build_device.build(of["target"], tests.folder / of["target"], build_std=True, flags=flags)
    link = [
        *of["flags"], "-Os", "-ffreestanding", "-nostdlib", "-ffunction-sections", "-fdata-sections", f"-DNANOSECONDS_PER_TICK={of['tick']}",
        "-T", HERE / "c" / "link.ld", f"-Wl,--gc-sections,--no-warn-mismatch,--defsym=FLASH={of['flash']},--defsym=RAM={of['ram']}",
        f"-Wl,-Map={tests.folder}/map",
    ]
    images = {program: tests.compile(cross.tool("arm-none-eabi-gcc"), program, library, *link, platform="startup", suffix=f"-{of['target']}")
              for program in ("vectors", "fields")}
    left = set().union(*(locations(image) for image in images.values()))
    if planted:
        return tests.check(any(path.endswith("bindings-c/device/src/seal.rs") for path in left), f"the planted panic is not found: {left}")
    tests.check(left <= CHECKS_LEFT, f"{name}: something could panic in {left - CHECKS_LEFT}")
    emulate = [cross.tool("qemu-system-arm"), "-M", of["machine"], "-icount", "shift=0", "-nographic", "-monitor", "none", "-serial", "none",
               "-semihosting-config", "enable=on,target=native", "-kernel"]
    tests.count(f"vectors on {name}", tests.run(*emulate, images["vectors"]))
    images["counted"] = tests.compile(cross.tool("arm-none-eabi-gcc"), "fields", library, *link, "-DCOUNTED", platform="startup",
                                      suffix=f"-counted-{of['target']}")
    for program, row, goal in [("fields", name, GOAL_FLASH), ("counted", f"{name}, counting", GOAL_COUNTED)]:
        said = tests.run(*emulate, images[program])
        text, data, bss = map(int, tests.run(cross.tool("arm-none-eabi-size"), images[program]).splitlines()[-1].split()[:3])
        found = measure(tests, row, said, (text, data, bss))
        tests.check(text + data <= goal, f"{row}: {text + data} bytes of flash")
        for what, (stack, _) in found.items():
            tests.check(stack <= GOAL_STACK, f"{row}: {what} takes {stack} bytes of stack")


def table(figures):
    """The figures as a table of Markdown."""
    lines = ["| | flash | `.data` | `.bss` | stack: open a bundle | seal | open | instructions: open a bundle | seal 16 bytes | open |",
             "|---|---|---|---|---|---|---|---|---|---|"]
    number = lambda value: f"{value:,}" if value else "-"
    for name, (sizes, found) in figures.items():
        cells = [number(size) if size else str(size) for size in sizes] if sizes else ["-"] * 3
        cells += [number(found[what][part]) for part in (0, 1) for what in ("open_key", "seal", "open")]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for flag in ("long", "write-abi", "write-figures"):
        parser.add_argument(f"--{flag}", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="keyfold-device-") as folder:
        tests = Tests(Path(folder))
        tables.main(tests.folder / "tables.h")
        for part in (header, host, document, own_vectors, build_refuses):
            part(tests)
        abi(tests, options.write_abi)
        if cross_is_here(tests):
            os.environ.update(cross.environment())
            for name in BOARDS:
                board(tests, name)
            for name in cross.LINUX:
                linux(tests, name)
            if options.long:
                board(tests, "Cortex-M4F", planted=True)
            print(table(tests.figures))
            if options.write_figures:
                DOCUMENT.write_text(FIGURES.sub(lambda found: found[1] + table(tests.figures) + found[2], DOCUMENT.read_text()))
    print(f"{tests.passed} passed, {tests.failed} failed")
    return 1 if tests.failed else 0


if __name__ == "__main__":
    sys.exit(main())
