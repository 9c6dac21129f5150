//! The header is what cbindgen makes of the sources; `UPDATE_HEADER=1` writes it. Its results are those of the other library.

use cbindgen::{Builder, Config};
use std::ffi::CStr;
use std::path::Path;
use std::{env, fs};

/// In the order in which a reader of the header wants them.
const SOURCES: [&str; 6] = ["value", "key", "passphrase", "seal", "counter", "name"];

#[test]
fn keyfold_device_h() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = Config::from_file(root.join("cbindgen.toml")).expect("cbindgen.toml is in order");
    let builder = Builder::new().with_config(config);
    let builder = SOURCES.iter().fold(builder, |all, name| all.with_src(root.join(format!("src/{name}.rs"))));
    let mut made = Vec::new();
    builder.generate().expect("cbindgen understands the sources").write(&mut made);
    let path = root.join("../include/keyfold_device.h");
    if env::var_os("UPDATE_HEADER").is_some() {
        fs::write(&path, &made).expect("the header can be written");
    }
    let made = String::from_utf8(made).expect("headers are UTF-8");
    let committed = fs::read_to_string(&path).unwrap_or_default();
    for (line, (made, committed)) in made.lines().zip(committed.lines()).enumerate() {
        assert_eq!(committed, made, "line {}: UPDATE_HEADER=1 cargo test -p keyfold-device --test header", line + 1);
    }
    assert_eq!(
        committed.len(),
        made.len(),
        "it ends elsewhere: UPDATE_HEADER=1 cargo test -p keyfold-device --test header"
    );
}

#[test]
fn results_have_the_numbers_of_the_one_list() {
    use keyfold_device::kf_result as r;
    let header = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../include/keyfold_result.h"))
        .expect("keyfold_result.h is there");
    for (name, result) in [
        ("KF_OK", r::OK),
        ("KF_ERR_INVALID_INPUT", r::INVALID_INPUT),
        ("KF_ERR_NULL_POINTER", r::NULL_POINTER),
        ("KF_ERR_BUFFER_TOO_SMALL", r::BUFFER_TOO_SMALL),
        ("KF_ERR_LIMIT_EXCEEDED", r::LIMIT_EXCEEDED),
        ("KF_ERR_INVALID_HANDLE", r::INVALID_HANDLE),
        ("KF_ERR_OVERLAP", r::OVERLAP),
        ("KF_ERR_UNSUPPORTED", r::UNSUPPORTED),
        ("KF_ERR_WRONG_SCOPE", r::WRONG_SCOPE),
        ("KF_ERR_RECORD_REJECTED", r::RECORD_REJECTED),
        ("KF_ERR_INTERNAL", r::INTERNAL),
    ] {
        assert!(header.contains(&format!("    {name} = {},", result.0)), "{name}");
    }
}

#[test]
fn results_have_the_names_of_the_one_list() {
    use keyfold::ErrorKind;
    let name = |code: i32| {
        let name = keyfold_device::kfd_result_name(code);
        // SAFETY: a constant text, where it is not NULL.
        (!name.is_null()).then(|| unsafe { CStr::from_ptr(name) }.to_str().expect("ASCII"))
    };
    let named: Vec<_> = ErrorKind::ALL.iter().filter(|kind| name(kind.code().into()).is_some()).collect();
    assert!(named.len() >= 10, "{named:?}");
    for kind in named {
        assert_eq!(name(kind.code().into()), Some(kind.name()));
    }
    let own = [(0, "Ok"), (101, "NullPointer"), (102, "BufferTooSmall"), (104, "InvalidHandle"), (105, "Overlap")];
    for (code, text) in own {
        assert_eq!(name(code), Some(text));
    }
    assert_eq!((name(1), name(-1), name(404)), (None, None, None));
}
