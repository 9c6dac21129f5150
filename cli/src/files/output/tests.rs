use super::*;
use std::os::unix::fs::{PermissionsExt, symlink};
use tempfile::TempDir;

/// The two ways to hold a file: without a name, and with a temporary one.
const WAYS: [fn(&Path) -> io::Result<File>; 2] = [open_unnamed, |_| Err(io::ErrorKind::Unsupported.into())];

fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

fn start(path: &Path, force: bool, way: usize) -> Result<Output, OutputError> {
    let output = Output::create_with(Target::Path(path.to_owned()), force, WAYS[way])?;
    // The folders of the tests must offer unnamed files, or the first way tests the second.
    assert_eq!(matches!(output.place, Place::Unnamed(_)), way == 0);
    Ok(output)
}

fn names(folder: &TempDir) -> Vec<String> {
    let entries = fs::read_dir(folder.path()).expect("list");
    let mut names: Vec<_> = entries.map(|e| e.expect("entry").file_name().into_string().expect("UTF-8")).collect();
    names.sort();
    names
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("metadata").permissions().mode() & 0o7777
}

// Failure K8
#[test]
fn appears_whole_at_commit_and_is_private() {
    for way in 0..2 {
        let folder = folder();
        let path = folder.path().join("out");
        let mut output = start(&path, false, way).expect("create");
        output.write(b"one,").expect("write");
        output.write(&vec![b'x'; 3 * BUFFER_LEN]).expect("write");
        output.write(b",two").expect("write");
        output.flush().expect("flush");
        assert!(!path.exists());
        assert_eq!(names(&folder).len(), way);
        output.commit().expect("commit");
        assert_eq!(fs::read(&path).expect("read"), [b"one,".as_slice(), &vec![b'x'; 3 * BUFFER_LEN], b",two"].concat());
        assert_eq!(mode(&path), 0o600);
        assert_eq!(names(&folder), ["out"]);
    }
}

#[test]
fn leaves_nothing_when_dropped() {
    for way in 0..2 {
        for force in [false, true] {
            let folder = folder();
            let path = folder.path().join("out");
            let mut output = start(&path, force, way).expect("create");
            output.write(&vec![b'x'; 3 * BUFFER_LEN]).expect("write");
            drop(output);
            assert!(names(&folder).is_empty());
        }
    }
}

#[test]
fn overwrites_only_with_force() {
    for way in 0..2 {
        let folder = folder();
        let path = folder.path().join("out");
        fs::write(&path, "old").expect("write");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("chmod");
        assert!(matches!(start(&path, false, way), Err(OutputError::Exists { .. })));
        let mut output = start(&path, true, way).expect("create");
        output.write(b"new").expect("write");
        output.flush().expect("flush");
        assert_eq!(fs::read(&path).expect("read"), b"old");
        output.commit().expect("commit");
        assert_eq!(fs::read(&path).expect("read"), b"new");
        assert_eq!((names(&folder), mode(&path)), (vec!["out".to_owned()], 0o600));
    }
}

#[test]
fn force_needs_no_existing_file() {
    for way in 0..2 {
        let folder = folder();
        let output = start(&folder.path().join("out"), true, way).expect("create");
        output.commit().expect("commit");
        assert_eq!(names(&folder), ["out"]);
    }
}

#[test]
fn a_file_that_appears_meanwhile_is_kept() {
    for way in 0..2 {
        let folder = folder();
        let path = folder.path().join("out");
        let output = start(&path, false, way).expect("create");
        fs::write(&path, "somebody else's").expect("write");
        assert!(matches!(output.commit(), Err(OutputError::Exists { .. })));
        assert_eq!(fs::read(&path).expect("read"), b"somebody else's");
        assert_eq!(names(&folder), ["out"]);
        // Nor is anything but a file replaced, even with force.
        let other = folder.path().join("other");
        let output = start(&other, true, way).expect("create");
        symlink(&path, &other).expect("link");
        assert!(matches!(output.commit(), Err(OutputError::NotRegular { .. })));
        assert_eq!(names(&folder), ["other", "out"]);
    }
}

#[test]
fn refuses_what_is_no_regular_file() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("file"), "x").expect("write");
    fs::create_dir(at("folder")).expect("mkdir");
    symlink(at("file"), at("link")).expect("link");
    symlink(at("nothing"), at("dangling")).expect("link");
    rustix::fs::mknodat(rustix::fs::CWD, at("pipe"), rustix::fs::FileType::Fifo, 0o600.into(), 0).expect("mkfifo");
    let _socket = std::os::unix::net::UnixListener::bind(at("socket")).expect("bind");
    let cases = [
        (at("folder"), "a folder"),
        (at("link"), "a symbolic link"),
        (at("dangling"), "a symbolic link"),
        (at("pipe"), "a named pipe"),
        (at("socket"), "a socket"),
        ("/dev/null".into(), "a device"),
        ("/".into(), "a folder"),
        ("..".into(), "a folder"),
    ];
    for (path, expected) in cases {
        for force in [false, true] {
            match Output::create(Target::Path(path.clone()), force) {
                Err(error @ OutputError::NotRegular { kind, .. }) => {
                    assert_eq!(kind, expected, "{path:?}");
                    // Of no use for a folder, or for a link.
                    let is_pipe = !matches!(expected, "a folder" | "a symbolic link");
                    assert_eq!(error.to_string().contains("use - for pipes"), is_pipe, "{error}");
                }
                other => panic!("{path:?}: {:?}", other.err()),
            }
        }
    }
    for path in [at("new/"), PathBuf::new()] {
        assert!(matches!(Output::create(Target::Path(path), true), Err(OutputError::NoName { .. })));
    }
}

#[test]
fn names_the_path_that_cannot_be_created() {
    let error = Output::create(Target::Path("/nonexistent/out".into()), false).err().expect("refused");
    assert!(error.to_string().starts_with("cannot create /nonexistent/out: "), "{error}");
}

#[test]
fn a_bare_file_name_is_in_the_current_folder() {
    assert_eq!(folder_of(Path::new("out")), Path::new("."));
    assert_eq!(folder_of(Path::new("a/out")), Path::new("a"));
    assert_eq!(folder_of(Path::new("/out")), Path::new("/"));
}

#[test]
fn knows_the_input_under_another_name() {
    let folder = folder();
    let (path, link, other) = (folder.path().join("in"), folder.path().join("hard"), folder.path().join("other"));
    fs::write(&path, "x").expect("write");
    fs::write(&other, "x").expect("write");
    fs::hard_link(&path, &link).expect("link");
    let input = File::open(&path).expect("open");
    for same in [path, link] {
        let result = Target::Path(same).refuse_input(&input);
        assert!(matches!(result, Err(OutputError::SameAsInput { .. })));
    }
    for fine in [other, folder.path().join("nothing")] {
        Target::Path(fine).refuse_input(&input).expect("another file");
    }
}

#[test]
fn reads_the_argument() {
    assert_eq!(Target::from_argument(OsStr::new("-")), Target::Stdout);
    assert_eq!(Target::from_argument(OsStr::new("./-")), Target::Path("./-".into()));
}

/// An output through `file` as if it were standard output.
fn through(file: File) -> Output {
    let place = Place::Stdout(Standard::new(file));
    Output { target: Target::Stdout, place, buffer: Vec::new(), overwrite: false, has_written: false }
}

#[test]
fn a_full_disk_and_a_broken_pipe_have_names() {
    let full = File::options().write(true).open("/dev/full").expect("open");
    let mut output = through(full);
    output.write(b"buffered").expect("buffered");
    assert!(matches!(output.commit(), Err(OutputError::NoSpace { .. })));

    let (reader, writer) = io::pipe().expect("pipe");
    drop(reader);
    let mut output = through(File::from(std::os::fd::OwnedFd::from(writer)));
    assert!(matches!(output.write(&[b'x'; BUFFER_LEN]), Err(OutputError::BrokenPipe { .. })));
}
