//! What the argument parser makes: help, completions, man pages, and refusals with exit code 2.

use crate::common::{self, USAGE, World, keyfold, run};
use std::fs;

#[test]
fn completions_know_the_commands() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let run = run(keyfold().args(["completions", shell]), b"").expect(0, &[]);
        for word in ["protect", "reveal", "seal-sealed", "rotate"] {
            assert!(run.stdout_text().contains(word), "{shell}: {word}");
        }
    }
    run(keyfold().args(["completions", "cmd.exe"]), b"").expect(USAGE, &["bash"]);
}

#[test]
fn man_pages_are_written() {
    let world = World::new();
    world.succeeds(&["man", "pages/man1"]);
    let names: Vec<String> = common::snapshot(&world.path("pages/man1"))
        .into_iter()
        .map(|(path, content)| {
            assert!(content.starts_with(b".ie") || content.starts_with(b".TH"), "{}", path.display());
            path.file_name().expect("a name").to_string_lossy().into_owned()
        })
        .collect();
    for name in ["keyfold.1", "keyfold-protect.1", "keyfold-reveal.1", "keyfold-keys-rotate.1", "keyfold-inspect.1"] {
        assert!(names.contains(&name.to_owned()), "{names:?}");
    }
    let protect = fs::read_to_string(world.path("pages/man1/keyfold-protect.1")).expect("a page");
    assert!(protect.contains("\\-\\-pass\\-unmatched"));
    world.write("file", "");
    world.refuses(&["man", "file/man1"], common::STORAGE, &["cannot write man pages"]);
}

#[test]
fn help_says_what_matters() {
    let help =
        |arguments: &[&str]| run(keyfold().args(arguments).arg("--help"), b"").expect(0, &[]).stdout_text().to_owned();
    let cases: [(&[&str], &[&str]); 6] = [
        (&[], &["init", "protect", "reveal", "inspect", "keys", "selftest", "Exit codes", "--log"]),
        (
            &["protect"],
            &["--config", "--policy", "--output", "--format", "--scope", "--context", "--force", "--seal-sealed"],
        ),
        (&["reveal"], &["--config", "Never passes plaintext through"]),
        (&["keys", "rotate"], &["--root", "--scope", "--json"]),
        (&["inspect"], &["standard input", "--json"]),
        (&["init"], &["--environment", "Nothing in it is overwritten"]),
    ];
    for (arguments, says) in cases {
        let text = help(arguments);
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        for word in says {
            assert!(text.contains(word), "{arguments:?} does not say {word:?}: {text}");
        }
    }
    let version = run(keyfold().arg("-V"), b"").expect(0, &[]);
    assert_eq!(version.stdout_text(), format!("keyfold {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn wrong_command_lines_exit_2() {
    let world = World::new();
    let lines: [&[&str]; 18] = [
        &[],
        &["encrypt"],
        &["protect"],
        &["protect", "in.csv"],
        &["protect", "--output", "out.csv"],
        &["protect", "in.csv", "more.csv", "--output", "out.csv"],
        &["protect", "in.csv", "--output", "out.csv", "--format", "xml"],
        &["protect", "in.csv", "--output", "out.csv", "--delimiter", "::"],
        &["protect", "in.csv", "--output", "out.csv", "--delimiter", "\""],
        &["protect", "in.csv", "--output", "out.csv", "--delimiter", "é"],
        &["protect", "in.csv", "--output", "out.csv", "--threads", "0"],
        &["protect", "in.csv", "--output", "out.csv", "--unknown"],
        &["keys"],
        &["keys", "rotate", "--root", "--scope", "a"],
        &["inspect"],
        &["init"],
        &["man"],
        &["completions"],
    ];
    for line in lines {
        world.refuses(line, USAGE, &[]);
    }
    let run = run(world.command(&["inspect", "x"]).args(["--log", "loud"]), b"")
        .expect(USAGE, &["error, warn, info, debug, trace"]);
    assert!(run.stdout.is_empty());
}

#[test]
fn a_value_that_is_the_name_of_a_file_gets_a_hint() {
    let world = World::new();
    world.protect(&[]);
    let hint = "a file has this name: --file goes before each of several";
    let both = world.run(&["inspect", "--file", "sealed.csv", "in.csv"]);
    assert_eq!(both.stdout_text().matches(hint).count() + both.stderr.matches(hint).count(), 1, "{}", both.stderr);
    let none = world.run(&["inspect", "nowhere.csv"]);
    assert!(!none.stdout_text().contains(hint) && !none.stderr.contains(hint), "{}", none.stderr);
}
