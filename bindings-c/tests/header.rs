//! The headers are what cbindgen makes of the sources; `UPDATE_HEADER=1` writes them.

use cbindgen::{Builder, Config, ItemType};
use std::path::{Path, PathBuf};
use std::{env, fs};

/// In the order in which a reader of the header wants them.
const SOURCES: [&str; 17] = [
    "result",
    "value",
    "options",
    "callback",
    "log",
    "context",
    "keyring",
    "field",
    "search",
    "lookup",
    "documents",
    "stream",
    "stream_reader",
    "column",
    "column_open",
    "inspect",
    "fips",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn source(name: &str) -> PathBuf {
    root().join(format!("src/{name}.rs"))
}

fn config() -> Config {
    Config::from_file(root().join("cbindgen.toml")).expect("cbindgen.toml is in order")
}

fn generate(config: Config, sources: &[&str]) -> String {
    let builder = sources.iter().fold(Builder::new().with_config(config), |all, name| all.with_src(source(name)));
    let mut out = Vec::new();
    builder.generate().expect("cbindgen understands the sources").write(&mut out);
    String::from_utf8(out).expect("headers are UTF-8")
}

fn check(name: &str, made: &str) {
    let path = root().join("include").join(name);
    if env::var_os("UPDATE_HEADER").is_some() {
        fs::write(&path, made).expect("the header can be written");
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    for (line, (made, committed)) in made.lines().zip(committed.lines()).enumerate() {
        assert_eq!(committed, made, "{name}:{}: UPDATE_HEADER=1 cargo test -p keyfold-c --test header", line + 1);
    }
    assert_eq!(
        committed.len(),
        made.len(),
        "{name} ends elsewhere: UPDATE_HEADER=1 cargo test -p keyfold-c --test header"
    );
}

#[test]
fn keyfold_h() {
    let mut config = config();
    let [major, minor, patch] =
        [env!("CARGO_PKG_VERSION_MAJOR"), env!("CARGO_PKG_VERSION_MINOR"), env!("CARGO_PKG_VERSION_PATCH")];
    let version = format!(
        "\n/** The version of this header, as kf_version has that of the library. */\n\
         #define KF_VERSION_MAJOR {major}\n#define KF_VERSION_MINOR {minor}\n#define KF_VERSION_PATCH {patch}\n\
         #define KF_VERSION (KF_VERSION_MAJOR * 1000000 + KF_VERSION_MINOR * 1000 + KF_VERSION_PATCH)\n"
    );
    config.after_includes.get_or_insert_default().push_str(&version);
    check("keyfold.h", &generate(config, &SOURCES));
}

/// The results alone, for every library of keyfold.
#[test]
fn keyfold_result_h() {
    let mut config = config();
    config.include_guard = Some("KEYFOLD_RESULT_H".to_owned());
    config.header = Some(
        "/* SPDX-License-Identifier: Apache-2.0 OR MIT */\n/* Made by cbindgen; changes belong into bindings-c. */\n\
         /* The results of all libraries of keyfold. Included by keyfold.h. */"
            .to_owned(),
    );
    config.after_includes = None;
    config.includes.clear();
    config.sys_includes = vec!["stdint.h".to_owned()];
    config.export.exclude.clear();
    config.export.include = vec!["kf_result".to_owned()];
    config.export.item_types = vec![ItemType::Enums];
    check("keyfold_result.h", &generate(config, &["result"]));
}
