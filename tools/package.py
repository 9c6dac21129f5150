#!/usr/bin/env python3
"""Packs the command and the C library: a tarball to unpack anywhere, and packages for Debian.

    python3 tools/package.py --output dist      builds both for a release, with every key service, and packs them
    python3 tools/package.py --output dist --command KEYFOLD --library ROOT
                                                packs what is built: ROOT is what `bindings-c/install --prefix /usr --destdir ROOT` has filled

    … --bills FOLDER                            with the bills of materials there: keyfold-cli.cdx.json, keyfold-c.cdx.json (tools/sbom.py)

    keyfold-VERSION-linux-MACHINE.tar.gz        bin, include, lib, share; its pkg-config and CMake files find what is beside them
    keyfold_VERSION_ARCH.deb                    the command, its man pages and completions
    libkeyfoldABI_VERSION_ARCH.deb              the shared library; those of different ABIs can be installed beside each other
    libkeyfold-dev_VERSION_ARCH.deb             headers, static library, pkg-config, CMake

The same input gives the same bytes: files have the time of the commit, or SOURCE_DATE_EPOCH, and belong to root. What is built here has nothing of where and when
it was built: `environment` says how, for whoever wants to repeat a release (docs/RELEASE.md). It is built in a folder `package` of the target, apart from other builds. Needs binutils, and cargo for the licences of
what is compiled in; the packages need dpkg-deb, and are left out aloud without it. No package has a script that runs when it is installed.
"""

import argparse
import gzip
import hashlib
import io
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
FEATURES = "all-kms"
# Of the command and of the C library.
BILLS = ["keyfold-cli.cdx.json", "keyfold-c.cdx.json"]
HOMEPAGE = "https://github.com/keyfold/keyfold"
# In which package of Debian each library is that ours need.
LIBRARIES = dict.fromkeys(["libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"], "libc6")
LIBRARIES["libgcc_s.so.1"] = "libgcc-s1"


def run(*command, **how):
    return subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True, cwd=ROOT, **how).stdout


def version():
    return tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["version"]


def epoch():
    """The time that all files have."""
    return int(os.environ.get("SOURCE_DATE_EPOCH") or run("git", "log", "-1", "--format=%ct"))


def environment(source, target, time):
    """What a build is told so that nothing of where and when it was made is in it: paths of source, target and crates are named alike everywhere, in Rust and in
    the C code of crates. Flags of whoever builds do not count."""
    cargo_home = os.environ.get("CARGO_HOME", Path.home() / ".cargo")
    # Of two that fit the last one counts, and a target may be below its source.
    places = dict(sorted({str(target): "/target", str(source): "/keyfold", str(cargo_home): "/cargo"}.items(), key=lambda place: len(place[0])))
    return {
        "CARGO_TARGET_DIR": str(target),
        "CARGO_INCREMENTAL": "0",
        "RUSTFLAGS": " ".join(f"--remap-path-prefix={path}={name}" for path, name in places.items()),
        "CFLAGS": " ".join(f"-ffile-prefix-map={path}={name}" for path, name in places.items()),
        "SOURCE_DATE_EPOCH": str(time),
    }


def build(folder):
    """Builds command and library as a release has them; returns the command and the root that the library is in."""
    target = Path(json.loads(run("cargo", "metadata", "--no-deps", "--format-version", "1"))["target_directory"]) / "package"
    how = {"check": True, "cwd": ROOT, "env": {**os.environ, **environment(ROOT, target, epoch())}}
    subprocess.run(["cargo", "build", "--locked", "--release", "-p", "keyfold-cli", "--features", FEATURES], **how)
    subprocess.run([sys.executable, "bindings-c/install", "--prefix", "/usr", "--destdir", folder, "--features", FEATURES], **how)
    return target / "release" / "keyfold", folder


def third_party():
    """The licences of all crates that are compiled in, as their authors ask for where binaries are passed on."""
    packages = json.loads(run("cargo", "metadata", "--locked", "--format-version", "1"))["packages"]
    compiled = set()
    for package in ("keyfold-cli", "keyfold-c"):
        tree = run("cargo", "tree", "--locked", "-p", package, "--features", FEATURES, "-e", "normal", "--prefix", "none", "--no-dedupe")
        compiled |= set(re.findall(r"(?m)^(\S+) v(\S+)", tree))
    texts, without = {}, []
    for package in sorted(packages, key=lambda package: (package["name"], package["version"])):
        if package["source"] is None or (package["name"], package["version"]) not in compiled:
            continue
        name = f"{package['name']} {package['version']} ({package['license'] or 'see its file'})"
        folder = Path(package["manifest_path"]).parent
        found = [path for path in sorted(folder.iterdir()) if re.match(r"(?i)(licen[cs]e|copying|notice|unlicense)", path.name) and path.is_file()]
        for text in {path.read_text(errors="replace").strip() for path in found}:
            texts.setdefault(text, []).append(name)
        if not found:
            without.append(name)
    out = ["The programs and libraries of Keyfold contain these crates, under these licences.\n"]
    out += [f"{'=' * 80}\n{chr(10).join(names)}\n{'-' * 80}\n{text}\n" for text, names in sorted(texts.items(), key=lambda item: (item[1], item[0]))]
    out.append("\n".join([f"{'=' * 80}\nWithout a file of their own, under the licences that they name:", *without]) + "\n")
    return "\n".join(out)


def strip(path):
    run("strip", "--strip-debug" if path.suffix == ".a" else "--strip-unneeded", path)


def lay_out(command, library, usr, bills=None):
    """Everything below /usr, as it is installed."""
    shutil.copytree(library / "usr", usr, symlinks=True)
    (usr / "bin").mkdir()
    shutil.copy(command, usr / "bin" / "keyfold")
    for binary in [usr / "bin" / "keyfold", *usr.glob("lib/*.so.*.*.*"), *usr.glob("lib/*.a")]:
        strip(binary)
    share = usr / "share"
    run(command, "man", share / "man" / "man1")
    for shell, place in {"bash": "bash-completion/completions/keyfold", "zsh": "zsh/vendor-completions/_keyfold", "fish": "fish/vendor_completions.d/keyfold.fish"}.items():
        (share / place).parent.mkdir(parents=True)
        (share / place).write_text(run(command, "completions", shell))
    doc = share / "doc" / "keyfold"
    doc.mkdir(parents=True)
    for name in ["README.md", "CHANGELOG.md", "SECURITY.md", "LICENSE-APACHE", "LICENSE-MIT"]:
        shutil.copy(ROOT / name, doc)
    (doc / "copyright").write_text(
        f"Source: {HOMEPAGE}\nLicense: Apache-2.0 or MIT, as you choose; both are beside this file. Of others' code in it: THIRD-PARTY.\n\n"
        + (ROOT / "LICENSE-MIT").read_text())
    (doc / "THIRD-PARTY").write_text(third_party())
    for bill in BILLS if bills else []:
        shutil.copy(bills / bill, doc)


def each(folder):
    """All below a folder, in the order of their names."""
    return sorted(folder.rglob("*"))


def tarball(usr, output, number):
    """Everything in one folder, to unpack anywhere."""
    name = f"keyfold-{number}-linux-{platform.machine()}"
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for path in [usr, *each(usr)]:
            info = tar.gettarinfo(path, f"{name}/{path.relative_to(usr)}".removesuffix("/."))
            info.uid = info.gid = 0
            info.uname = info.gname = "root"
            info.mtime = epoch()
            info.mode = mode(path)
            if path.suffix == ".pc":
                text = path.read_text().replace("prefix=/usr\n", "prefix=${pcfiledir}/../..\n", 1).encode()
                info.size = len(text)
                tar.addfile(info, io.BytesIO(text))
            elif info.isreg():
                with open(path, "rb") as file:
                    tar.addfile(info, file)
            else:
                tar.addfile(info)
    made = output / f"{name}.tar.gz"
    with open(made, "wb") as file, gzip.GzipFile("", "wb", 6, file, mtime=epoch()) as packed:
        packed.write(out.getvalue())
    return made


def mode(path):
    return 0o755 if path.is_symlink() or path.is_dir() or path.parent.name == "bin" else 0o644


def soname(usr):
    """The part of the soname that may break: 0.1 of libkeyfold.so.0.1."""
    [shared] = usr.glob("lib/libkeyfold.so.*.*.*")
    return re.search(r"SONAME.*\[libkeyfold\.so\.(.*)\]", run("readelf", "-d", shared))[1]


def depends(binary):
    """What a program or library needs of Debian: packages, and of libc the oldest version that has every symbol."""
    needed = {LIBRARIES[name] for name in re.findall(r"NEEDED.*\[(.*)\]", run("readelf", "-d", binary))}
    symbols = [tuple(map(int, found.split("."))) for found in re.findall(r"GLIBC_(\d+(?:\.\d+)+)", run("objdump", "-T", binary))]
    newest = ".".join(map(str, max(symbols)))
    return ", ".join(f"{name} (>= {newest})" if name == "libc6" else name for name in sorted(needed))


def deb(usr, output, name, number, files, fields, description, **control):
    """One package of the files, which are relative to `usr`."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "root"
        doc = root / "usr" / "share" / "doc" / name
        doc.mkdir(parents=True)
        for path in files:
            to = root / "usr" / path.relative_to(usr)
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, to, follow_symlinks=False)
        bill = BILLS[name != "keyfold"]
        for file in ("copyright", "THIRD-PARTY", "LICENSE-APACHE", "LICENSE-MIT", *([bill] if (usr / "share" / "doc" / "keyfold" / bill).exists() else [])):
            shutil.copy(usr / "share" / "doc" / "keyfold" / file, doc)
        size = sum(path.lstat().st_size for path in each(root)) // 1024
        control_folder = root / "DEBIAN"
        control_folder.mkdir()
        head = {"Package": name, "Version": number, "Architecture": ARCHITECTURES[platform.machine()], "Maintainer": f"The Keyfold project <{HOMEPAGE}>",
                "Installed-Size": size, "Homepage": HOMEPAGE, **fields, "Description": description}
        # What `dpkg --verify` compares with.
        sums = [f"{hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()}  {path.relative_to(root)}\n"
                for path in each(root / "usr") if path.is_file() and not path.is_symlink()]
        (control_folder / "md5sums").write_text("".join(sums))
        (control_folder / "control").write_text("".join(f"{field}: {value}\n" for field, value in head.items()))
        for file, text in control.items():
            (control_folder / file).write_text(text)
        for path in [root, *each(root)]:
            if not path.is_symlink():
                path.chmod(mode(path))
        made = output / f"{name}_{number}_{head['Architecture']}.deb"
        run("dpkg-deb", "--root-owner-group", "-Zxz", "-z1", "--build", root, made, env={**os.environ, "SOURCE_DATE_EPOCH": str(epoch())})
    return made


def debs(usr, output, number):
    """The packages of Debian."""
    abi = soname(usr)
    library, shared = f"libkeyfold{abi}", [path for path in each(usr / "lib") if path.name.startswith("libkeyfold.so.")]
    of_command = [path for path in each(usr) if not path.is_dir() and path.relative_to(usr).parts[0] in ("bin", "share") and path.name != BILLS[1]]
    of_dev = [path for path in [*each(usr / "include"), *each(usr / "lib")] if not path.is_dir() and path not in shared]
    [real] = [path for path in shared if not path.is_symlink()]
    text = "Field encryption for medical-device backends"
    yield deb(usr, output, "keyfold", number, of_command,
              {"Section": "utils", "Priority": "optional", "Depends": depends(usr / "bin" / "keyfold")}, f"{text}: command")
    # The trigger makes the linker know the library.
    yield deb(usr, output, library, number, shared,
              {"Section": "libs", "Priority": "optional", "Depends": depends(real)}, f"{text}: shared library",
              triggers="activate-noawait ldconfig\n", shlibs=f"libkeyfold {abi} {library} (>= {number})\n")
    yield deb(usr, output, "libkeyfold-dev", number, of_dev,
              {"Section": "libdevel", "Priority": "optional", "Depends": f"{library} (= {number})"}, f"{text}: headers and static library")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="the folder that they are written into")
    parser.add_argument("--command", type=Path, help="the command, if it is built already")
    parser.add_argument("--library", type=Path, help="the root that the C library was installed into")
    parser.add_argument("--bills", type=Path, help="a folder with bills of materials")
    options = parser.parse_args()
    if bool(options.command) != bool(options.library):
        parser.error("--command and --library go together")
    options.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        command, library = (options.command, options.library) if options.command else build(Path(folder) / "built")
        usr = Path(folder) / "usr"
        lay_out(command.resolve(), library.resolve(), usr, options.bills)
        made = [tarball(usr, options.output.resolve(), version())]
        if shutil.which("dpkg-deb"):
            made += debs(usr, options.output.resolve(), version())
        else:
            print("SKIPPED: packages for Debian: dpkg-deb is not installed")
    for path in made:
        print(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
