#!/usr/bin/env python3
"""Tries what tools/package.py makes, each in an empty folder: unpacked, a C program built against it and run, the command run, upgraded and taken back.

    python3 tools/package_tests.py --keyfold KEYFOLD --library ROOT     the options of tools/package.py, whose build is what is packed

The older packages of the upgrade are the same files under the number 0.0.9, with one that the new ones lack: there was no version before. So it is the
packages that are tried, and not what an older program has written.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import package

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "bindings-c" / "README.md").read_text()
PATIENTS = "patient_id,ssn\np-17,999-81-5679\n"


class Tests:
    def __init__(self):
        self.passed = self.failed = 0

    def check(self, holds, what):
        self.passed += bool(holds)
        self.failed += not holds
        if not holds:
            print(f"FAILED: {what}")

    def run(self, *command, **how):
        """What a command prints; a failure counts as one, and is empty text."""
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, **how)
        if done.returncode:
            self.check(False, f"{' '.join(map(str, command))}: {done.stdout}{done.stderr}")
        return "" if done.returncode else done.stdout


def try_c(tests, work, lib, what, *options):
    """The README's program, with the shared library and the static one; makes the keyring `ring` in `work`."""
    (work / "program.c").write_text(re.search(r"```c\n(.*?)```", README, re.DOTALL)[1])
    (work / "policy.toml").write_text(re.search(r"```toml\n(.*?)```", README, re.DOTALL)[1])
    for name in ("keyfold", "keyfold-static"):
        environment = {**os.environ, "PKG_CONFIG_LIBDIR": str(lib / "pkgconfig")}
        flags = tests.run("pkg-config", *options, "--cflags", "--libs", name, env=environment).split()
        tests.run("cc", "program.c", "-o", name, *flags, cwd=work)
        shared = "libkeyfold.so" in tests.run("readelf", "-d", work / name)
        tests.check(shared == (name == "keyfold"), f"{what}: {name} is linked with the other library")
        said = tests.run(work / name, cwd=work, env={**os.environ, "LD_LIBRARY_PATH": str(lib)})
        tests.check(said == "999-81-5679\nanother patient's row\n", f"{what}: the program with {name} said {said!r}")


def try_command(tests, work, keyfold, what):
    """The command, on the keyring that the C program made."""
    number = tests.run(keyfold, "--version").split("\n")[0]
    tests.check(number == f"keyfold {package.version()}", f"{what}: {number}")
    tests.run(keyfold, "selftest")
    (work / "patients.csv").write_text(PATIENTS)
    options = ["--config", "ring/keyfold.toml", "--policy", "policy.toml"]
    tests.run(keyfold, "protect", *options, "patients.csv", "--output", "protected.csv", cwd=work)
    reveal(tests, work, keyfold, what)


def reveal(tests, work, keyfold, what):
    options = ["--config", "ring/keyfold.toml", "--policy", "policy.toml"]
    opened = tests.run(keyfold, "reveal", *options, "protected.csv", "--output", "-", cwd=work)
    tests.check(opened == PATIENTS, f"{what}: what was sealed opens as {opened!r}")


def try_tarball(tests, made, folder):
    """Unpacked into an empty folder, under whatever path."""
    tests.run("tar", "-xzf", made, "-C", folder)
    [root] = folder.iterdir()
    bills = sorted(path.name for path in (root / "share/doc/keyfold").glob("*.cdx.json"))
    tests.check(bills == sorted(package.BILLS), f"the tarball has the bills {bills}")
    work = folder / "work"
    work.mkdir()
    try_c(tests, work, root / "lib", "tarball")
    try_command(tests, work, root / "bin" / "keyfold", "tarball")


def try_debs(tests, debs, folder):
    """Unpacked as `dpkg-deb -x` does, side by side, below a folder that takes the place of /."""
    root, work, owners = folder / "root", folder / "work", {}
    work.mkdir(parents=True)
    for deb in debs:
        tests.run("dpkg-deb", "-x", deb, root)
        for line in tests.run("dpkg-deb", "-c", deb).splitlines():
            kind, owner, _, _, _, path, *_ = line.split()
            tests.check(owner == "root/root" and "s" not in kind and kind[8] != "w" or kind[0] == "l", f"{deb.name}: {line}")
            if kind[0] != "d":
                tests.check(path.startswith("./usr/") and path not in owners, f"{path} is in {deb.name} and {owners.get(path)}")
                owners[path] = deb.name
        control = tests.run("dpkg-deb", "--info", deb, "md5sums")
        files = {line.split()[5].removeprefix("./") for line in tests.run("dpkg-deb", "-c", deb).splitlines() if line.startswith("-")}
        tests.check({line[34:] for line in control.splitlines()} == files, f"{deb.name} has other digests than files")
        tests.check(subprocess.run(["md5sum", "--check", "--quiet", "-"], cwd=root, input=control, text=True).returncode == 0, f"{deb.name}: digests")
        scripts = set(tests.run("dpkg-deb", "--ctrl-tarfile", deb, errors="replace").split("\0")) & {"./preinst", "./postinst", "./prerm", "./postrm"}
        tests.check(not scripts, f"{deb.name} has {scripts}")
    # Its prefix is /usr, which is below the folder here.
    try_c(tests, work, root / "usr/lib", "packages", f"--define-variable=prefix={root}/usr")
    try_command(tests, work, root / "usr/bin/keyfold", "packages")
    abi = ".".join(package.version().split(".")[:2])
    bills = sorted(str(path.relative_to(root / "usr/share/doc")) for path in (root / "usr/share/doc").rglob("*.cdx.json"))
    tests.check(bills == ["keyfold/keyfold-cli.cdx.json", "libkeyfold-dev/keyfold-c.cdx.json", f"libkeyfold{abi}/keyfold-c.cdx.json"], f"the packages have the bills {bills}")
    tests.check((root / f"usr/lib/libkeyfold.so.{abi}").is_symlink(), "the soname has a link")
    tests.check((root / "usr/share/man/man1/keyfold.1").read_text().count(".SH") > 3, "there is a man page")
    tests.check("ring" in (root / "usr/share/doc/keyfold/THIRD-PARTY").read_text(), "the licences of others are there")
    return work


def try_upgrade(tests, old, new, folder, work):
    """dpkg installs the older packages, puts the new ones in their place, and the older ones back: a keyring, what was sealed and a program last."""
    root = folder / "system"
    (root / "var/lib/dpkg/updates").mkdir(parents=True)
    (root / "var/lib/dpkg/info").mkdir()
    for name in ("status", "available", "lock"):
        (root / "var/lib/dpkg" / name).touch()
    # What is needed of the system is not there, since this system has nothing else.
    dpkg = ["dpkg", f"--root={root}", f"--log={folder}/log", "--force-depends", "--force-not-root", "--force-script-chrootless"]
    lib = {**os.environ, "LD_LIBRARY_PATH": str(root / "usr/lib")}
    numbers = {"0.0.9": old, package.version(): new, "0.0.9 again": old}
    for what, debs in numbers.items():
        tests.run(*dpkg, "--install", *debs)
        listed = tests.run("dpkg-query", f"--admindir={root}/var/lib/dpkg", "-W", "-f", "${Version} ${db:Status-Abbrev}\n").splitlines()
        tests.check(listed == [f"{what.split()[0]} ii "] * 3, f"{what}: dpkg has {listed}")
        tests.check((root / "usr/share/doc/keyfold/only-in-0.0.9").exists() == (debs is old), f"{what}: a file of the other version is there")
        tests.check(not tests.run(*dpkg, "--verify"), f"{what}: dpkg finds files that were changed")
        reveal(tests, work, root / "usr/bin/keyfold", what)
        said = tests.run(work / "keyfold", cwd=work, env=lib)
        tests.check(said.startswith("999-81-5679\n"), f"{what}: the program that was built before said {said!r}")
    with open(root / "usr/bin/keyfold", "ab") as program:
        program.write(b"x")
    found = subprocess.run([str(part) for part in (*dpkg, "--verify")], capture_output=True, text=True).stdout
    tests.check(found.strip().endswith("/usr/bin/keyfold") and found.count("\n") == 1, f"dpkg finds the file that was changed: {found}")
    tests.run(*dpkg, "--purge", "keyfold", "libkeyfold-dev", old[1].name.split("_")[0])
    left = [path for path in (root / "usr").rglob("*") if not path.is_dir()] if (root / "usr").exists() else []
    tests.check(not left, f"after the packages were taken away there are {left[:5]}")
    reveal(tests, work, new[0].parent / "keyfold", "afterwards")


CARGO = """\
#!/bin/sh
case "$1" in
metadata) echo '{"target_directory":"/somewhere/target"}' ;;
build) echo "$CARGO_TARGET_DIR $SOURCE_DATE_EPOCH $CFLAGS $RUSTFLAGS" >>"$LOG" ;;
esac
"""


def try_how_it_is_built(tests, folder):
    """Command and library are both built so that two people get the same bytes; by a cargo that only says how it was called."""
    (folder / "cargo").write_text(CARGO)
    (folder / "cargo").chmod(0o755)
    log = folder / "log"
    environment = {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", "LOG": str(log), "RUSTFLAGS": "-Cmine", "SOURCE_DATE_EPOCH": "7"}
    # It ends where the command should be that this cargo has not built.
    subprocess.run([sys.executable, "tools/package.py", "--output", folder / "out"], cwd=ROOT, env=environment, capture_output=True)
    calls = log.read_text().splitlines() if log.exists() else []
    places = [f"{place}={name}" for place, name in (("/somewhere/target/package", "/target"), (ROOT, "/keyfold"))]
    good = [call for call in calls if call.startswith("/somewhere/target/package 7 ") and "-Cmine" not in call
            and all(f"-ffile-prefix-map={place}" in call and f"--remap-path-prefix={place}" in call for place in places)]
    tests.check(len(calls) == len(good) == 2, f"a release is built with paths of this machine in it: {calls}")


# Failure C24
def archives(keyfold, library):
    tests = Tests()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "built").mkdir()
        try_how_it_is_built(tests, folder / "built")
        (folder / "bills").mkdir()
        for bill in package.BILLS:
            (folder / "bills" / bill).write_text(bill)
        out = {}
        for place in ("one", "two"):
            tests.run(sys.executable, "tools/package.py", "--output", folder / place, "--command", keyfold, "--library", library, "--bills", folder / "bills", cwd=ROOT)
            out[place] = {path.name: path.read_bytes() for path in (folder / place).iterdir()}
        tests.check(out["one"] == out["two"] and out["one"], "the same input gives the same archives")
        (folder / "tarball").mkdir()
        try_tarball(tests, next((folder / "one").glob("*.tar.gz")), folder / "tarball")
        if not shutil.which("dpkg-deb"):
            print("SKIPPED: packages for Debian: dpkg-deb is not installed")
        else:
            new = [next((folder / "one").glob(f"{start}_*.deb")) for start in ("keyfold", "libkeyfold[0-9]*", "libkeyfold-dev")]
            work = try_debs(tests, new, folder / "debs")
            if os.geteuid() != 0 or not shutil.which("dpkg"):
                print("SKIPPED: an upgrade by dpkg, which gives files to root: only root can do that")
            else:
                usr = folder / "usr"
                package.lay_out(keyfold, library, usr)
                (usr / "share/doc/keyfold/only-in-0.0.9").touch()
                (folder / "old").mkdir()
                old = list(package.debs(usr, folder / "old", "0.0.9"))
                shutil.copy(keyfold, new[0].parent / "keyfold")
                try_upgrade(tests, old, new, folder / "upgrade", work)
    print(f"{tests.passed} passed, {tests.failed} failed")
    return bool(tests.failed)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keyfold", type=Path, required=True)
    parser.add_argument("--library", type=Path, required=True)
    options = parser.parse_args()
    return archives(options.keyfold.resolve(), options.library.resolve())


if __name__ == "__main__":
    sys.exit(main())
