use super::*;
use proptest::collection::vec;
use proptest::prelude::*;

fn rules(paths: &[(&str, &str)]) -> JsonRules {
    JsonRules::compile(paths.iter().copied()).expect("valid paths")
}

/// The rule and the raw token of every place that is found.
fn tokens(line: &str, paths: &[(&str, &str)]) -> Result<Vec<(usize, String)>, String> {
    let document = Document::parse(line.as_bytes(), 7).map_err(|error| error.to_string())?;
    let found = rules(paths).locate(&document).map_err(|error| error.to_string())?;
    Ok(found.into_iter().map(|found| (found.rule, line[found.span].to_owned())).collect())
}

#[test]
fn finds_the_bytes_of_every_path() {
    let line =
        r#" { "i\u0064" : "a\u0062" , "x":[1.50, -0 ,{"y" : 1e2,"z":null}],"o" :{ } , "":[true,false],"é":"ü"} "#;
    let found = |path| tokens(line, &[("r", path)]).expect("valid").into_iter().map(|t| t.1).collect::<Vec<_>>();
    assert_eq!(found("$.id"), [r#""a\u0062""#]);
    assert_eq!(found("$.x[0]"), ["1.50"]);
    assert_eq!(found("$.x[1]"), ["-0"]);
    assert_eq!(found("$.x[-1].y"), ["1e2"]);
    assert_eq!(found("$.x[2]"), [r#"{"y" : 1e2,"z":null}"#]);
    assert_eq!(found("$.o"), ["{ }"]);
    assert_eq!(found("$[''][*]"), ["true", "false"]);
    assert_eq!(found("$['é']"), [r#""ü""#]);
    assert_eq!(found("$..z"), ["null"]);
    assert_eq!(found("$"), [line.trim()]);
    assert_eq!(found("$.nothing"), [""; 0]);
    assert_eq!(found("$.x[?@.y == 100].z"), ["null"]);
    // Selected twice by one rule, but one value.
    assert_eq!(found("$['id','id']"), [r#""a\u0062""#]);
}

#[test]
fn many_rules_in_the_order_of_the_line() {
    let line = r#"{"a":{"b":1,"c":[2,3]},"d":4}"#;
    let paths = [("d", "$.d"), ("c", "$.a.c[*]"), ("b", "$.a.b")];
    let expected = [(2, "1"), (1, "2"), (1, "3"), (0, "4")].map(|(rule, raw)| (rule, raw.to_owned()));
    assert_eq!(tokens(line, &paths).expect("valid"), expected);
}

#[test]
fn overlaps_are_refused_by_name() {
    let line = r#"{"a":[{"b":1}],"id":{"id":1}}"#;
    let overlap = |first, second| tokens(line, &[("one", first), ("two", second)]).expect_err("overlap");
    let both = "line 7: \"one\" and \"two\" both select the same value or a part of it";
    for (first, second) in
        [("$.a[0].b", "$..b"), ("$.a", "$.a[0].b"), ("$.a[0].b", "$.a"), ("$", "$.a"), ("$.a", "$"), ("$", "$")]
    {
        assert_eq!(overlap(first, second), both);
    }
    let alone = tokens(line, &[("one", "$..id")]).expect_err("overlap");
    assert!(alone.starts_with("line 7: \"one\" selects a value and a part of it"), "{alone}");
    tokens(line, &[("one", "$.a[0].b"), ("two", "$.id.id")]).expect("apart");
}

#[test]
fn duplicate_members_are_refused_everywhere() {
    let cases = [
        r#"{"SECRET":1,"SECRET":2}"#,
        r#"{"SECRET":1,"SECR\u0045T":2}"#,
        r#"[1,{"a":[{"SECRET":1,"b":2,"SECRET":1}]}]"#,
        r#"{"SECRET":{"a":1},"SECRET":{"b":1}}"#,
    ];
    for line in cases {
        let error = Document::parse(line.as_bytes(), 3).err().expect("refused");
        assert!(matches!(error, JsonError::DuplicateMember { line: 3, .. }), "{error}");
        assert!(!format!("{error} {error:?}").contains("SECR"));
    }
    assert!(Document::parse(br#"{"a":{"a":[{"a":1},{"a":1}]}}"#, 1).is_ok());
}

#[test]
fn names_the_place_and_not_the_content() {
    let cases: [(&[u8], &str); 12] = [
        (b"{\"a\":\"SECRET\xFF\"}", "line 3, column 13: not UTF-8"),
        (b"{\"a\":SECRET}", "line 3, column 6: not valid JSON: expected value"),
        (b"{\"a\":\"SECRET\"", "line 3, column 13: not valid JSON: EOF while parsing an object"),
        (b"{\"a\":\"SECRET", "line 3, column 12: not valid JSON: EOF while parsing a string"),
        (b"{\"a\":\"SECRET\"} SECRET", "line 3, column 16: not valid JSON: trailing characters"),
        (b"{} {}", "line 3, column 4: not valid JSON: trailing characters"),
        (b"{\"SECRET\",1}", "line 3, column 10: not valid JSON: expected `:`"),
        (b"[\"SECRET\\q\"]", "line 3, column 10: not valid JSON: invalid escape"),
        (b"[\"SECRET\\ud800\"]", "line 3, column 15: not valid JSON: unexpected end of hex escape"),
        (b"{1:\"SECRET\"}", "line 3, column 2: not valid JSON: key must be a string"),
        (b"[123456789e999]", "line 3, column 14: not valid JSON: number out of range"),
        (b" ", "line 3, column 1: not valid JSON: EOF while parsing a value"),
    ];
    for (line, expected) in cases {
        let error = Document::parse(line, 3).err().expect("refused");
        assert_eq!(error.to_string(), expected);
        assert!(!format!("{error:?}").contains("SECRET"));
    }
    let deep = "[".repeat(1000) + &"]".repeat(1000);
    let error = Document::parse(deep.as_bytes(), 1).err().expect("refused").to_string();
    assert!(error.ends_with("recursion limit exceeded"), "{error}");
    let error = JsonRules::compile([("patient.mrn", "$.a[")]).err().expect("refused").to_string();
    assert!(error.starts_with("path of \"patient.mrn\": "), "{error}");
}

#[test]
fn tokens_know_whether_they_are_canonical() {
    let string = |raw: &str| match Token::parse(raw) {
        Some(Token::String { text, raw: same, canonical }) => {
            assert_eq!(same, raw);
            (text.into_owned(), canonical)
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(string(r#""""#), (String::new(), true));
    assert_eq!(string("\"Zoë \\n \\\" \u{1F600}\""), ("Zoë \n \" \u{1F600}".to_owned(), true));
    assert_eq!(string(r#""Zo\u00eb""#), ("Zoë".to_owned(), false));
    assert_eq!(string(r#""a\/b""#), ("a/b".to_owned(), false));
    assert_eq!(string(r#""\u000A""#), ("\n".to_owned(), false));
    assert_eq!(string(r#""\ud83d\ude00""#), ("\u{1F600}".to_owned(), false));
    let kinds = ["1.50", "-0", "true", "false", "null", "[1, 2]", "{ }"].map(|raw| Token::parse(raw).expect("valid"));
    let expected = [
        Token::Number("1.50"),
        Token::Number("-0"),
        Token::Bool(true),
        Token::Bool(false),
        Token::Null,
        Token::Array("[1, 2]"),
        Token::Object("{ }"),
    ];
    assert!(kinds == expected);
    for bad in ["", " 1", "1 ", "1,2", "tru", "\"a", "\"a\"b", "\"\\ud800\"", "01", "NaN"] {
        assert!(Token::parse(bad).is_none(), "{bad}");
    }
    let secret =
        [r#""SECRET""#, "[\"SECRET\"]", "{\"SECRET\":1}", "74207281"].map(|raw| format!("{:?}", Token::parse(raw)));
    assert_eq!(secret, ["Some(String(..))", "Some(Array(..))", "Some(Object(..))", "Some(Number(..))"]);
    let mut out = Vec::new();
    push_string("Zoë \"\n", &mut out);
    // What makes room for a string knows how long it is going to be, whatever is in it.
    for text in (0..0x300).filter_map(char::from_u32).map(String::from).chain(["Zoë \"\n\u{1}".to_owned()]) {
        let mut out = Vec::new();
        push_string(&text, &mut out);
        assert_eq!(string_len(&text), out.len(), "{text:?}");
    }
    assert!(
        Token::parse(std::str::from_utf8(&out).expect("UTF-8"))
            .is_some_and(|t| matches!(t, Token::String { canonical: true, .. }))
    );
}

#[test]
fn splices() {
    let mut out = b">".to_vec();
    splice(br#"{"a":1 ,"b":2}"#, [(5..6, "\"kf1\""), (12..13, "")], &mut out).expect("apart");
    assert_eq!(out, br#">{"a":"kf1" ,"b":}"#);
}

/// JSON text with the spellings that a parser would lose.
fn json() -> impl Strategy<Value = String> {
    let space = prop_oneof![Just(""), Just(" "), Just("\t ")];
    let leaf = prop_oneof![
        Just("1.50".to_owned()),
        Just("-0".to_owned()),
        Just("1E+2".to_owned()),
        Just("12345678901234567890123".to_owned()),
        Just("null".to_owned()),
        Just(r#""\u00e9\/\ud83d\ude00""#.to_owned()),
        "\\PC{0,4}".prop_map(|text| serde_json::to_string(&text).expect("a string")),
    ];
    leaf.prop_recursive(4, 40, 5, move |inner| {
        let item = (space.clone(), inner, space.clone()).prop_map(|(a, value, b)| format!("{a}{value}{b}"));
        prop_oneof![
            vec(item.clone(), 0..5).prop_map(|items| format!("[{}]", items.join(","))),
            vec((item, any::<bool>()), 0..5).prop_map(|items| {
                // Every other name starts with an escape; the number keeps the names apart.
                let name = |n: usize, escaped| if escaped { format!(r#""\u0061{n}""#) } else { format!("\"a{n}\"") };
                let member = |(n, (value, escaped)): (usize, (String, bool))| format!("{} :{value}", name(n, escaped));
                format!("{{{}}}", items.into_iter().enumerate().map(member).collect::<Vec<_>>().join(","))
            }),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn every_path_leads_to_its_own_bytes(line in json(), path in prop_oneof![
        Just("$"), Just("$.*"), Just("$.*.*"), Just("$.a0"), Just("$..a1"), Just("$[1].a0"), Just("$[::2]"), Just("$.a2[0]"),
    ]) {
        let document = Document::parse(line.as_bytes(), 1).expect("valid");
        prop_assert_eq!(document.text(), &line);
        let selected = serde_json_path::JsonPath::parse(path).expect("valid").query(document.value()).all();
        match rules(&[("r", path)]).locate(&document) {
            // Only `..` can select something inside of what it selects.
            Err(JsonError::Overlap { .. }) => prop_assert_eq!(path, "$..a1"),
            Err(JsonError::Shape { .. }) => {}
            Err(error) => panic!("{error}"),
            Ok(found) => {
                let raw = |found: &Located| &line[found.span.clone()];
                let values: Vec<serde_json::Value> = found.iter().map(|f| serde_json::from_str(raw(f)).expect("JSON")).collect();
                prop_assert_eq!(values.len(), selected.len());
                for value in &values {
                    prop_assert!(selected.contains(&value));
                }
                prop_assert!(found.windows(2).all(|pair| pair[0].span.end < pair[1].span.start));
                for place in &found {
                    prop_assert!(document.token(place.span.clone()).is_ok());
                }
                let (mut same, mut sealed) = (Vec::new(), Vec::new());
                splice(line.as_bytes(), found.iter().map(|f| (f.span.clone(), raw(f))), &mut same).expect("apart");
                prop_assert_eq!(same, line.as_bytes());
                // What replaces the values is found again at the same paths, and restores the line.
                splice(line.as_bytes(), found.iter().map(|f| (f.span.clone(), serde_json::to_string(raw(f)).expect("a string"))), &mut sealed).expect("apart");
                let sealed = String::from_utf8(sealed).expect("UTF-8");
                let document = Document::parse(sealed.as_bytes(), 1).expect("valid");
                let again = rules(&[("r", path)]).locate(&document).expect("no more overlaps than before");
                let open = |f: &Located| match document.token(f.span.clone()) {
                    Ok(Token::String { text, canonical: true, .. }) => text.into_owned(),
                    _ => panic!("not what was put there"),
                };
                let mut restored = Vec::new();
                splice(sealed.as_bytes(), again.iter().map(|f| (f.span.clone(), open(f))), &mut restored).expect("apart");
                prop_assert_eq!(restored, line.as_bytes());
            }
        }
    }
}

proptest! {
    #[test]
    fn a_string_is_canonical_if_our_serialiser_writes_it_so(text in "\\PC{0,8}|[\\x00-\\x7f]{0,8}", raw in "\"[ -~é\\x00\\x1f\\x7f]{0,6}\"?") {
        let written = serde_json::to_string(&text).expect("a string");
        let parsed = Token::parse(&written);
        prop_assert_eq!(parsed.as_ref(), Some(&Token::String { text: text.into(), raw: &written, canonical: true }));
        // serde_json takes space behind the string as well, which is no part of it.
        let expected = serde_json::from_str::<String>(&raw).ok().filter(|_| raw.ends_with('"'));
        match Token::parse(&raw) {
            Some(Token::String { text, canonical, .. }) => {
                prop_assert_eq!(canonical, serde_json::to_string(&text).expect("a string") == raw);
                prop_assert_eq!(Some(text.into_owned()), expected);
            }
            other => prop_assert!(other.is_none() && expected.is_none()),
        }
    }
}

/// What a path selects, as the engine of paths says.
fn by_engine(document: &Document<'_>, path: &str) -> Result<Vec<String>, ()> {
    let mut shapes = shape::Shapes::default();
    shapes.add(0, path);
    if shapes.misfit(document.value()).is_some() {
        return Err(());
    }
    let parsed = serde_json_path::JsonPath::parse(path).expect("a path");
    let nodes = parsed.query_located(document.value()).dedup();
    let mut places: Vec<String> = nodes.iter().map(|node| path::normalized(node.location().iter())).collect();
    places.sort();
    Ok(places)
}

/// Documents in which the same few names and texts are everywhere.
fn small_json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::json!("x")),
        Just(serde_json::json!("y'\"")),
        Just(serde_json::json!("é\n")),
        Just(serde_json::json!(1)),
        Just(serde_json::json!(true)),
        Just(serde_json::Value::Null),
    ];
    leaf.prop_recursive(5, 60, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(serde_json::Value::from),
            vec((name(), inner), 0..4)
                .prop_map(|members| members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()),
        ]
    })
}

fn name() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just("a"), Just("b"), Just("c")]
}

fn filter() -> impl Strategy<Value = String> {
    let place = vec(prop_oneof![Just(""), Just(".a"), Just(".b"), Just("[0]"), Just("['c']")], 0..3)
        .prop_map(|steps| steps.concat());
    let text = prop_oneof![Just("'x'"), Just("\"x\""), Just("'z'"), Just("\"y'\""), Just("'é'")];
    let one = prop_oneof![
        (place.clone(), prop_oneof![Just("=="), Just(" != ")], text)
            .prop_map(|(at, is, text)| format!("@{at}{is}{text}")),
        place.clone().prop_map(|at| format!("@{at}")),
        place.clone().prop_map(|at| format!("! @{at}")),
        place.clone().prop_map(|at| format!("@{at}[*]")),
        place.clone().prop_map(|at| format!("@{at}.*")),
        place.clone().prop_map(|at| format!("@{at}['a','b']")),
        (place.clone(), place).prop_map(|(at, inside)| format!("@{at}[?@{inside} == 'x']")),
    ];
    one.prop_recursive(3, 8, 2, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{a} && {b}")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{a}||{b}")),
            inner.clone().prop_map(|a| format!("({a})")),
            inner.prop_map(|a| format!("!({a})")),
        ]
    })
}

fn quick_path() -> impl Strategy<Value = String> {
    let step = prop_oneof![
        3 => name().prop_map(|name| format!(".{name}")),
        2 => Just("[*]".to_owned()),
        1 => Just(".*".to_owned()),
        1 => Just("[0]".to_owned()),
        1 => Just("['a', 'b']".to_owned()),
        2 => filter().prop_map(|filter| format!("[?{filter}]")),
    ];
    vec(step, 0..4).prop_map(|steps| format!("${}", steps.concat()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn simple_paths_select_what_the_engine_selects(value in small_json(), paths in vec(quick_path(), 1..4)) {
        let text = value.to_string();
        let document = Document::parse(text.as_bytes(), 1).expect("JSON");
        prop_assert_eq!(document.value(), &value);
        let expected: Result<Vec<_>, ()> = paths.iter().map(|path| by_engine(&document, path)).collect();
        for path in &paths {
            prop_assert!(simple::Simple::parse(path).is_some(), "{}", path);
        }
        let rules = JsonRules::compile(paths.iter().map(|path| ("r", path))).expect("good paths");
        match (rules.locate(&document), expected) {
            (Err(JsonError::Shape { .. }), Err(())) => {}
            (Ok(found), Ok(expected)) => {
                prop_assert!(found.windows(2).all(|pair| pair[0].span.end <= pair[1].span.start));
                for (rule, expected) in expected.iter().enumerate() {
                    let of_rule = found.iter().filter(|found| found.rule == rule);
                    let mut places: Vec<_> = of_rule.map(|found| found.path.clone()).collect();
                    places.sort();
                    prop_assert_eq!(&places, expected, "{} in {}", &paths[rule], &text);
                }
            }
            // Whether there is an overlap is looked for in the places of all.
            (Err(JsonError::Overlap { .. }), Ok(expected)) => {
                let all: Vec<_> = expected.iter().flatten().collect();
                let overlaps = all.iter().enumerate().any(|(at, a)| {
                    all.iter().enumerate().any(|(other, b)| at != other && b.starts_with(a.as_str()))
                });
                prop_assert!(overlaps, "{:?} {}", &paths, &text);
            }
            (found, expected) => panic!("{paths:?} in {text}: {:?}, expected {expected:?}", found.err()),
        }
    }

    #[test]
    fn a_tree_is_what_serde_json_reads(line in json(), at in 0_usize..200, change in "[\\[\\]{}:,\"\\\\u0-9a.eE+ \n\x01-]{0,2}", cut in 0_usize..3) {
        let mut text = line;
        let at = (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        let end = (at..=text.len()).find(|end| *end >= at + cut && text.is_char_boundary(*end)).unwrap_or(at);
        text.replace_range(at..end, &change);
        let tree = tree::Tree::parse(&text);
        match value::parse(&text) {
            Ok(value) => prop_assert_eq!(tree.map(|tree| tree.to_value()), Some(value), "{}", text),
            Err(_) => prop_assert!(tree.is_none(), "{}", text),
        }
    }
}

#[test]
fn a_tree_nests_as_deep_as_serde_json_and_knows_twins() {
    for depth in [126, 127, 128, 129] {
        for (open, close) in [("[", "]"), ("{\"a\":", "}"), ("[{\"a\":", "}]")] {
            let text = open.repeat(depth) + "1" + &close.repeat(depth);
            assert_eq!(tree::Tree::parse(&text).is_some(), value::parse(&text).is_ok(), "{depth} {open}");
        }
        let text = "[".repeat(depth) + &"]".repeat(depth);
        assert_eq!(tree::Tree::parse(&text).is_some(), value::parse(&text).is_ok(), "{depth}");
    }
    let many = |last: &str| {
        let members: Vec<String> = (0..100).map(|n| format!("\"n{n}\":{n}")).chain([format!("\"{last}\":0")]).collect();
        format!("{{{}}}", members.join(","))
    };
    assert!(tree::Tree::parse(&many("n100")).is_some());
    assert!(tree::Tree::parse(&many("n57")).is_none() && tree::Tree::parse(&many("\\u006e57")).is_none());
    for text in [
        "1e999",
        "-1e-999",
        "1E5",
        &"9".repeat(400),
        &("0.".to_owned() + &"9".repeat(400)),
        "-",
        "01",
        "1.",
        ".5",
        "+1",
    ] {
        let value = value::parse(text).ok();
        assert_eq!(tree::Tree::parse(text).map(|tree| tree.to_value()), value, "{text}");
    }
}

#[test]
fn conditions_hold_where_some_value_is_the_text() {
    let text = r#"{"type":"Ob\u0073ervation","code":{"coding":[{"code":"x"},{"code":"y"},7]}}"#;
    let document = Document::parse(text.as_bytes(), 1).expect("JSON");
    let hold = |conditions: &[(&str, &str)]| {
        Conditions::compile("r", conditions.iter().copied()).expect("good paths").hold(&document)
    };
    assert!(hold(&[]) && hold(&[("$.type", "Observation"), ("$.code.coding[*].code", "y")]));
    assert!(hold(&[("$..code", "x")]) && hold(&[("$.code.coding[?@.code == 'x'].code", "x")]));
    assert!(!hold(&[("$.type", "Observation"), ("$.code.coding[0].code", "y")]) && !hold(&[("$.code", "x")]));
    assert!(!hold(&[("$.code.coding[2]", "7")]) && !hold(&[("$..code", "z")]));
    assert!(Conditions::compile("r", [("$.[", "x")]).is_err());
}

#[test]
fn what_is_settled_selects_the_same_afterwards() {
    let of = |paths: &[&str]| JsonRules::compile(paths.iter().map(|path| (*path, *path))).expect("good paths");
    assert!(
        of(&["$.id", "$.name[*].family", "$.name[*].given[*]"]).is_settled([("$.id", true), ("$.resourceType", false)])
    );
    let filters =
        ["$.x[?@.url == 'a']['v', 'w']", "$.x[?@.url != 'a' && @.url != 'b'].v", "$.id", "$.y[?@.t[?@.c == 'd']].v"];
    assert!(of(&filters).is_settled([("$.id", true), ("$.t[*].c", false)]));
    for (paths, other) in [
        (&["$.name", "$.name[*].family"][..], ("$.id", true)),
        (&["$.id"], ("$.id", false)),
        (&["$.a"], ("$.a.id", true)),
        (&["$.a.id"], ("$.a", true)),
        (&["$.*"], ("$.resourceType", false)),
        (&["$..id"], ("$.x", true)),
        (&["$.id"], ("$..x", true)),
        (&["$.name[?@.use == 'official'].family", "$.name[*].use"], ("$.id", true)),
        (&["$.name[?@.use[?@.x == 'y']].family", "$.name[*].use"], ("$.id", true)),
        (&["$.name[?length(@.use) == 1].family"], ("$.id", true)),
        (&["$.b[*].c"], ("$.b[?@.c == 'd'].a", false)),
        (&["$.a.b"], ("$.a[*]", false)),
        (&["$.a.b"], ("$.a[?@ == 'x']", false)),
        (&["$.a.b.c"], ("$.a[?@.c == 'x'].d", false)),
        (&["$.b"], ("$[*]", false)),
    ] {
        assert!(!of(paths).is_settled([other]), "{paths:?} {other:?}");
    }
}

#[test]
fn paths_with_descendants_take_steps_as_the_document_has_values() {
    let steps = |text: &str, path: &str| {
        let document = Document::parse(text.as_bytes(), 1).expect("JSON");
        let before = tree::STEPS.get();
        let found = rules(&[("r", path)]).locate(&document).expect("no overlaps");
        (found.len(), tree::STEPS.get() - before)
    };
    let nested = |levels: usize| format!("{}[[{{\"a\":1}}]]{}", "{\"b\":".repeat(levels), "}".repeat(levels));
    let list = |text: &str, count: usize| format!("[{}]", vec![text; count].join(","));
    let members = |count: usize| {
        let members: Vec<String> = (0..count).map(|n| format!("\"n{n}\":{{\"a\":{n}}}")).collect();
        format!("{{{}}}", members.join(","))
    };
    for path in ["$..a", "$[::1]..a", "$[?length(@) >= 0]..a"] {
        for item in ["{\"a\":1}".to_owned(), nested(20)] {
            let text = |count| list(&item, count);
            let [(few, steps_of_few), (many, steps_of_many)] = [100, 1000].map(|count| steps(&text(count), path));
            assert_eq!((few, many), (100, 1000), "{path}");
            assert!(steps_of_many <= steps_of_few * 10 + 100, "{path}: {steps_of_few}, {steps_of_many}");
        }
    }
    let [(few, steps_of_few), (many, steps_of_many)] = [100, 1000].map(|count| steps(&members(count), "$..a"));
    assert!((few, many) == (100, 1000) && steps_of_many <= steps_of_few * 10 + 100, "{steps_of_few}, {steps_of_many}");
}
