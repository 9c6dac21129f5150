use super::*;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use std::io::{self, Read};

/// Hands out its bytes in pieces of the given length, so that every boundary is met.
struct Pieces<'a>(&'a [u8], usize);

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.1.min(self.0.len()).min(buffer.len());
        buffer[..len].copy_from_slice(&self.0[..len]);
        self.0 = &self.0[len..];
        Ok(len)
    }
}

fn rules(paths: &[&str]) -> SegmentRules {
    let paths = paths.iter().map(|path| SegmentPath::parse(path).expect("a path")).collect();
    SegmentRules::new(paths).expect("paths that do not meet")
}

/// The bytes of each message of a file that is read in pieces, and what its number is.
fn read(file: &[u8], piece: usize, max_len: usize) -> Result<Vec<(Vec<u8>, u64)>, Hl7Error> {
    let mut source = MessageSource::new(Pieces(file, piece), max_len);
    let mut messages = Vec::new();
    while let Some(batch) = source.next_batch()? {
        messages.extend(batch.messages().map(|(raw, number)| (raw.to_vec(), number)));
    }
    Ok(messages)
}

/// What the paths select in a file: the number of the rule, that of the message, and the value.
fn values(file: &[u8], paths: &[&str]) -> Result<Vec<(usize, u64, String)>, Hl7Error> {
    let rules = rules(paths);
    let mut values = Vec::new();
    for (raw, number) in read(file, 7, MAX_MESSAGE_LEN)? {
        let Some(message) = Message::parse(&raw, number)? else { continue };
        for located in message.locate(&rules)? {
            values.push((located.rule, number, String::from_utf8_lossy(&raw[located.span]).into_owned()));
        }
    }
    Ok(values)
}

/// Why a file is refused.
fn refusal(file: &[u8]) -> String {
    values(file, &["PID-5"]).expect_err("refused").to_string()
}

const TWO: &str =
    "MSH|^~\\&|A|B\rPID|1||7^a&b&c^x~8^^y|\"\"|Doe^J\\T\\J\rNK1|1|N1\rNK1|2|N2~N3\rMSH|^~\\&|C|D\rPID|1||9\r";

#[test]
fn finds_fields_components_and_subcomponents() {
    let found =
        |path| values(TWO.as_bytes(), &[path]).expect("good").into_iter().map(|found| found.2).collect::<Vec<_>>();
    assert_eq!(found("PID-3"), ["7^a&b&c^x", "8^^y", "9"]);
    assert_eq!(found("PID-3.1"), ["7", "8", "9"]);
    assert_eq!(found("PID-3.2"), ["a&b&c"]);
    assert_eq!(found("PID-3.2.1"), ["a"]);
    assert_eq!(found("PID-3.2.3"), ["c"]);
    assert_eq!(found("PID-3.3.1"), ["x", "y"]);
    assert_eq!(found("PID-3.1.2"), [""; 0]);
    assert_eq!(found("PID-4"), ["\"\""]);
    assert_eq!(found("PID-5"), ["Doe^J\\T\\J"]);
    assert_eq!(found("PID-99"), [""; 0]);
    assert_eq!(found("NK1-2"), ["N1", "N2", "N3"]);
    // MSH-1 is the delimiter itself.
    assert_eq!(found("MSH-3"), ["A", "C"]);
    assert_eq!(found("MSH-4"), ["B", "D"]);
}

#[test]
fn many_rules_in_the_order_of_the_message() {
    let found = values(TWO.as_bytes(), &["NK1-2", "PID-5.2", "PID-3.3", "PID-3.1", "PID-5.1", "MSH-3"]).expect("good");
    let expected = [
        (5, 1, "A"),
        (3, 1, "7"),
        (2, 1, "x"),
        (3, 1, "8"),
        (2, 1, "y"),
        (4, 1, "Doe"),
        (1, 1, "J\\T\\J"),
        (0, 1, "N1"),
    ];
    let expected = expected.into_iter().chain([(0, 1, "N2"), (0, 1, "N3"), (5, 2, "C"), (3, 2, "9")]);
    assert_eq!(found, expected.map(|(rule, message, value)| (rule, message, value.to_owned())).collect::<Vec<_>>());
}

#[test]
fn paths_say_exactly_one_place() {
    for good in ["PID-3", "PID-3.1", "PID-3.1.2", "ZX9-4294967295"] {
        assert_eq!(SegmentPath::parse(good).expect("a path").to_string(), good);
    }
    for wrong in [
        "",
        "PID",
        "PID3",
        "PID-",
        "PID-0",
        "PID-03",
        "PID-+3",
        "PID-3.",
        "PID-3.0",
        "PID-3.1.1.1",
        "PI-3",
        "pid-3",
        "1ID-3",
        "PID-3[1]",
        "PID-4294967296",
        "MSH-1",
        "MSH-2",
        "MSH-18",
        "MSH-2.1",
        "BHS-3",
        "FTS-1",
        "PÏ-3",
    ] {
        assert!(SegmentPath::parse(wrong).is_err(), "{wrong}");
    }
    let meet = |a: &str, b: &str| {
        let paths = [a, b].map(|path| SegmentPath::parse(path).expect("a path"));
        SegmentRules::new(paths.to_vec()).is_err()
    };
    for (a, b) in [("PID-3", "PID-3"), ("PID-3", "PID-3.2"), ("PID-3.2.1", "PID-3"), ("PID-3.2", "PID-3.2.9")] {
        assert!(meet(a, b) && meet(b, a), "{a} {b}");
    }
    for (a, b) in [("PID-3.1", "PID-3.2"), ("PID-3.1.1", "PID-3.1.2"), ("PID-3", "PV1-3"), ("PID-3", "PID-4")] {
        assert!(!meet(a, b), "{a} {b}");
    }
}

#[test]
fn every_sort_of_line_end_and_frame() {
    for (file, messages) in [
        ("MSH|^~\\&|A\rPID|||1\r", 1),
        ("MSH|^~\\&|A\nPID|||1", 1),
        ("\u{feff}MSH|^~\\&|A\r\nPID|||1\r\n\r\n\u{feff}", 0),
        ("\u{feff}MSH|^~\\&|A\r\nPID|||1\r\n\r\n", 1),
        // Segments end with CR, and between the messages is what an editor or a program has put there.
        ("MSH|^~\\&|A\rPID|||1\r\nMSH|^~\\&|A\rPID|||1\r\n", 2),
        ("MSH|^~\\&|A\rPID|||1\r\n\nMSH|^~\\&|A\rPID|||1\n\n\n", 2),
        ("\u{b}MSH|^~\\&|A\rPID|||1\r\u{1c}\r\u{b}MSH|^~\\&|A\rPID|||1\u{1c}\r", 2),
        (
            "FHS|^~\\&|x\rBHS|^~\\&\rMSH|^~\\&|A\rPID|||1\rMSH|^~\\&|A\rPID|||1\rBTS|2\rBHS|^~\\&\rMSH|^~\\&|A\rPID|||1\rBTS|1\rFTS|2\r",
            3,
        ),
        ("MSH|^~\\&#|A\rPID|||1\r", 1),
        ("MSH!@#$%!A\rPID!!!1\r", 1),
        ("MSH|^~\\&\rPID|||1\rZZZ\r", 1),
        ("FHS|^~\\&|x\rBHS|^~\\&\rBTS|0\rFTS|0\r", 0),
        ("", 0),
        ("\r\n\r\n", 0),
    ] {
        if messages == 0 && file.ends_with('\u{feff}') {
            assert!(refusal(file.as_bytes()).contains("no name of a segment"));
            continue;
        }
        let found = values(file.as_bytes(), &["PID-3"]).unwrap_or_else(|error| panic!("{file:?}: {error}"));
        assert_eq!(found.iter().filter(|found| found.2 == "1").count(), messages, "{file:?}");
        assert_eq!(found.len(), messages, "{file:?}");
    }
}

#[test]
fn what_readers_could_cut_in_different_ways_is_refused() {
    for (file, why) in [
        ("PID|1", "message 1: the input does not begin with MSH"),
        ("{\"id\":1}", "does not begin with MSH"),
        (" MSH|^~\\&|A\r", "does not begin with MSH"),
        ("MSH", "message 1, segment 1: MSH has no delimiters"),
        ("MSH|", "4 or 5 delimiters"),
        ("MSH|^~\\|A\r", "4 or 5 delimiters"),
        ("MSH|^~\\&#!|A\r", "4 or 5 delimiters"),
        ("MSH|^^\\&|A\r", "two delimiters are the same"),
        ("MSH|^~\\&~|A\r", "two delimiters are the same"),
        ("MSH|^~\\.|A\r", "occurs in sealed values"),
        ("MSHa^~\\&aA\r", "occurs in sealed values"),
        ("MSH|^~\\ |A\r", "occurs in sealed values"),
        ("MSH|^~\\\"|A\r", "occurs in sealed values"),
        ("MSH|^~\\\0|A\r", "occurs in sealed values"),
        ("MSH|^~\\&|A\rpid|1\r", "message 1, segment 2: it has no name of a segment"),
        ("MSH|^~\\&|A\rPID^1\r", "segment 2: it has no name of a segment"),
        ("MSH|^~\\&|A\rPID|1\rP\r", "segment 3: it has no name of a segment"),
        ("MSH|^~\\&|A\rOBX|1|TX|||line\nOBX|2\r", "segment 3: the segment before ends as no other does"),
        ("MSH|^~\\&|A\rPID|1\nnext line\rPV1\r", "segment 3: the segment before ends as no other does"),
        ("MSH|^~\\&|A\r\nPID|1\nPV1\r\n", "segment 3: the segment before ends as no other does"),
        ("MSH|^~\\&|A\rPID|1\rBTS|1\rPV1|1\r", "segment 3: there is a segment behind the end"),
        ("\u{b}MSH|^~\\&|A\rPID|1\r\u{1c}\rPV1|1\r", "behind the end"),
        ("MSH|^~\\&|A\rPID|1\u{1c}\u{b}MSH|^~\\&|A\r", "hexadecimal 0B, 1C"),
        ("MSH|^~\\&|A\rPID|1\u{b}2\r", "hexadecimal 0B, 1C"),
        ("MSH|^~\\&|A|||||||||||||||BIG-5\rPID|1\r", "another character set"),
        ("MSH|^~\\&|A|||||||||||||||ASCII~ISO IR87\rPID|1\r", "another character set"),
    ] {
        let refused = refusal(file.as_bytes());
        assert!(refused.contains(why), "{file:?}: {refused}");
    }
    let many = format!("MSH|^~\\&|A\rPID|||||{}\r", "x~".repeat(MAX_VALUES + 1));
    assert!(refusal(many.as_bytes()).contains("more than"));
    let many = format!("MSH|^~\\&|A\r{}", "ZZZ\r".repeat(MAX_VALUES));
    assert!(refusal(many.as_bytes()).contains("more than"));
}

#[test]
fn a_message_of_any_length_is_refused_in_bounded_memory() {
    let endless = io::repeat(b'x');
    let mut source = MessageSource::new(b"MSH|^~\\&|".chain(endless), 1000);
    assert!(matches!(source.next_batch(), Err(Hl7Error::TooLong { message: 1, max_len: 1000 })));
    let second = format!("{TWO}{}", "ZZZ|x\r".repeat(200));
    assert!(matches!(read(second.as_bytes(), 64, 200), Err(Hl7Error::TooLong { message: 2, max_len: 200 })));
    assert_eq!(read(second.as_bytes(), 64, 2000).expect("short enough").len(), 2);
}

#[test]
fn character_sets() {
    let message = |set: &str, value: &[u8]| {
        let raw = [format!("MSH|^~\\&|A{}{set}\rPID|||", "|".repeat(15)).as_bytes(), value].concat();
        let message = Message::parse(&raw, 1).expect("good").expect("a message");
        let span = message.locate(&rules(&["PID-3"])).expect("few")[0].span.clone();
        message.text(span).map(str::to_owned)
    };
    for set in ["", "ASCII", "UNICODE UTF-8", "8859/1", "ASCII~8859/15"] {
        assert_eq!(message(set, b"Doe").expect("ASCII"), "Doe");
        assert!(message(set, b"D\xf6e").expect_err("Latin 1").contains("not UTF-8"));
        assert_eq!(message(set, "Döe".as_bytes()).is_ok(), !set.contains("8859"), "{set}");
    }
}

fn delimiters(declared: &str) -> Delimiters {
    Delimiters::parse(format!("MSH{declared}").as_bytes()).expect("delimiters")
}

#[test]
fn values_are_spelled_in_the_standard_delimiters() {
    let (standard, other) = (delimiters("|^~\\&"), delimiters("!@#$%!"));
    let field = SegmentPath::parse("PID-5").expect("a path");
    let component = SegmentPath::parse("PID-5.1").expect("a path");
    let push = |delimiters: &Delimiters, text: &str, path| {
        let mut out = String::new();
        delimiters.push_standard(text, path, &mut out).map(|()| out)
    };
    assert_eq!(standard.to_standard("a^b&c\\T\\").expect("it"), "a^b&c\\T\\");
    assert_eq!(other.to_standard("a@b%c$T$").expect("it"), "a^b&c\\T\\");
    assert_eq!(push(&other, "a^b&c\\T\\", &field).expect("fits"), "a@b%c$T$");
    assert_eq!(push(&standard, "a^b&c\\T\\", &field).expect("fits"), "a^b&c\\T\\");
    for plain in ["a^b", "a|b", "a&b", "a\\b", "a~b"] {
        assert!(other.to_standard(plain).is_err(), "{plain}");
    }
    for (text, path) in [
        ("a^b", &component),
        ("a|b", &field),
        ("a~b", &field),
        ("a\rb", &field),
        ("a\nMSH|", &field),
        ("a\u{1c}", &field),
    ] {
        assert!(push(&standard, text, path).is_err(), "{text:?}");
    }
    for text in ["a@b", "a#b", "a$b", "a%b", "a!b"] {
        assert!(push(&other, text, &field).is_err(), "{text}");
        assert_eq!(push(&standard, text, &field).expect("fits"), text);
    }
}

#[test]
fn escapes_say_one_text() {
    let (standard, other) = (delimiters("|^~\\&"), delimiters("!@#$%!"));
    for (spelled, text) in [
        ("plain", "plain"),
        ("a\\F\\b\\S\\c\\T\\d\\R\\e\\E\\", "a|b^c&d~e\\"),
        ("\\XC3A4\\\\X0d0A\\", "ä\r\n"),
        ("a~", "a~"),
    ] {
        assert_eq!(standard.decode(spelled).expect("text"), text);
    }
    assert_eq!(other.decode("a$F$^").expect("text"), "a!^");
    for wrong in [
        "a\\",
        "\\F",
        "\\F\\\\",
        "\\\\",
        "\\f\\",
        "\\X\\",
        "\\X0\\",
        "\\XZZ\\",
        "\\XFF\\",
        "\\.br\\",
        "\\H\\a\\N\\",
        "a^b",
        "a&b",
    ] {
        assert!(standard.decode(wrong).is_err(), "{wrong}");
    }
}

/// Of these any bytes are made.
const PIECES: [&[u8]; 15] = [
    b"MSH|^~\\&|A",
    b"PID|1|^|7^8&9~|",
    b"PID",
    b"BHS|",
    b"\r",
    b"\n",
    b"\r",
    b"\x0b",
    b"\x1c\r",
    b"\rMSH|^~\\&|B\r",
    b"|",
    b"~",
    b"^",
    b"\xff\0",
    b"NK1|x\r",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_text_goes_into_a_message_and_back(text in "[ -~äß\r\n\u{b}\u{1c}]{0,20}", declared in "[|!][#^][~@][\\\\$][&%]") {
        let delimiters = delimiters(&declared);
        let mut spelled = String::new();
        delimiters.push_encoded(&text, &mut spelled);
        prop_assert!(!spelled.contains(char::is_control));
        prop_assert_eq!(delimiters.decode(&spelled).expect("our spelling"), text);
    }

    #[test]
    fn what_stands_in_a_message_comes_back(text in "[a^&\\\\|~@%$#!]{0,12}", declared in "[|!][#^][~@][\\\\$][&%]") {
        let (delimiters, path) = (delimiters(&declared), SegmentPath::parse("PID-5").expect("a path"));
        // No value has these.
        prop_assume!(!text.bytes().any(|byte| byte == delimiters.field || byte == delimiters.repetition));
        if let Ok(standard) = delimiters.to_standard(&text) {
            let mut again = String::new();
            let pushed = delimiters.push_standard(&standard, &path, &mut again);
            prop_assert!(pushed.is_ok() && again == text, "{:?} {:?} {:?}", standard, pushed, again);
        }
    }

    /// Whatever the bytes: no panic, every byte is in one batch, values are in order and inside of their message.
    #[test]
    fn any_bytes(
        pieces in vec(select(&PIECES[..]), 0..14),
        piece in 1_usize..9,
    ) {
        let file = pieces.concat();
        let messages = read(&file, piece, MAX_MESSAGE_LEN).expect("readable");
        prop_assert_eq!(messages.iter().flat_map(|(raw, _)| raw.clone()).collect::<Vec<_>>(), file.clone());
        prop_assert_eq!(&messages, &read(&file, usize::MAX, MAX_MESSAGE_LEN).expect("readable"));
        let rules = rules(&["PID-3.1", "PID-3.2.1", "PID-2", "NK1-1", "MSH-3"]);
        for (raw, number) in &messages {
            let Ok(Some(message)) = Message::parse(raw, *number) else { continue };
            let mut end = 0;
            for located in message.locate(&rules).expect("few") {
                prop_assert!(located.span.start >= end && !located.span.is_empty());
                end = located.span.end;
                let value = &raw[located.span];
                prop_assert!(!value.iter().any(|byte| b"|~^\r\n".contains(byte)) || rules.path(located.rule).component.is_none());
            }
            prop_assert!(end <= raw.len());
            message.walk(|_, value| { assert!(!value.contains(&b'|')); Ok::<_, ()>(()) }).expect("no failure");
        }
    }
}
