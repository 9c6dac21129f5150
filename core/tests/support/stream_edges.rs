//! More vectors of streams: parts of them, what was released before an error, large numbers of chunks, keys, contexts. They follow the
//! others, whose numbers stay.

use super::document_edges::{contexts, names};
use super::streams::{Made, Streams};
use super::{field, flipped, hex, opening_json};
use crate::world::{Opening, bytes};
use keyfold::aead::Backend;
use keyfold::aead::hazmat::aes256gcm_seal;
use keyfold::vectors::Stream;
use keyfold::wire::{CHUNK_LEN, MAX_CHUNKS, SEALED_CHUNK_LEN, STREAM_HEADER_LEN};
use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};

const FAILED: &str = "DecryptionFailed";
const CUT: &str = "Malformed";

pub(super) fn add(streams: &mut Streams<'_>, short: &Made, one: &Made, other: &Made) {
    released(streams, one, other);
    ranges(streams, one, other);
    numbers(streams);
    keys(streams, short);
    bound(streams, short);
}

/// What is released of a stream that fails: every chunk before the error, and nothing of the one that it is in.
fn released(streams: &mut Streams<'_>, one: &Made, other: &Made) {
    let (h, c) = (one.header(), [0, 1, 2].map(|i| one.chunk(i)));
    let end = one.sealed.len();
    let bit = |at: usize| json!(hex(&flipped(&one.sealed, at, 0)[at..=at]));
    let with_bit = |at: usize| vec![one.part(0, at), bit(at), one.part(at + 1, end)];
    let second = STREAM_HEADER_LEN + SEALED_CHUNK_LEN;
    let cases: [(&str, &str, usize, Vec<Json>); 10] = [
        ("the commitment is another", FAILED, 0, with_bit(82)),
        ("a bit of chunk 0", FAILED, 0, with_bit(STREAM_HEADER_LEN)),
        ("the last bit of chunk 1", FAILED, 1, with_bit(second + SEALED_CHUNK_LEN - 1)),
        ("a bit of the last chunk", FAILED, 2, with_bit(end - 1)),
        ("chunks 1 and 2 exchanged", FAILED, 1, vec![h.clone(), c[0].clone(), c[2].clone(), c[1].clone()]),
        ("chunk 1 of another stream", FAILED, 1, vec![h.clone(), c[0].clone(), other.chunk(1), c[2].clone()]),
        ("cut behind chunk 1", CUT, 2, vec![h.clone(), c[0].clone(), c[1].clone()]),
        ("cut to 15 bytes of the last chunk", CUT, 2, vec![one.part(0, end - 101)]),
        ("the last byte cut off", FAILED, 2, vec![one.part(0, end - 1)]),
        ("bytes behind the last chunk", FAILED, 2, vec![one.part(0, end), json!("0000")]),
    ];
    for (note, expect, chunks, parts) in cases {
        let before = &one.plaintext[..chunks * CHUNK_LEN];
        streams.cases.push(
            &format!("{note}: {chunks} chunks were released"),
            json!({
                "open": opening_json(&one.opening), "sealed": parts, "expect": expect,
                "released": [before.len(), hex(Sha256::digest(before))],
            }),
        );
    }
}

/// Parts of a stream: those that a reader may have without the rest, and those for which it needs the end.
fn ranges(streams: &mut Streams<'_>, one: &Made, other: &Made) {
    let (chunk, len) = (CHUNK_LEN as i64, one.plaintext.len() as i64);
    let whole = vec![one.part(0, one.sealed.len())];
    let cut = vec![one.header(), one.chunk(0), one.chunk(1)];
    let in_chunk_1 = vec![one.part(0, STREAM_HEADER_LEN + SEALED_CHUNK_LEN + 100)];
    let around = vec![one.header(), other.chunk(0), one.chunk(1), other.chunk(2)];
    let longer = vec![one.part(0, one.sealed.len()), json!("00")];
    let cases: [(&str, &str, &[Json], [i64; 2]); 19] = [
        ("within chunk 1", "ok", &whole, [chunk + 10, 100]),
        ("from chunk 0 into chunk 1", "ok", &whole, [chunk - 10, 100]),
        ("from chunk 0 into the last one", "ok", &whole, [chunk - 1, chunk + 2]),
        ("to the end", "ok", &whole, [len - 10, 10]),
        ("past the end: what is there", "ok", &whole, [len - 10, 100]),
        ("at the end: nothing", "ok", &whole, [len, 1]),
        ("a chunk behind the end: nothing", "ok", &whole, [5 * chunk, 1]),
        ("relative to the end", "ok", &whole, [-10, 10]),
        ("relative to the end, in chunk 1", "ok", &whole, [-200, 100]),
        ("within chunk 1, the others being of another stream", "ok", &around, [chunk, chunk]),
        ("one byte more before it", FAILED, &around, [chunk - 1, 2]),
        ("one byte more behind it", FAILED, &around, [chunk, chunk + 1]),
        ("relative to the end, the last chunk being another's", FAILED, &around, [-200, 100]),
        ("all that is left of a stream that was cut", "ok", &cut, [0, 2 * chunk]),
        ("one byte more of it", CUT, &cut, [2 * chunk - 1, 2]),
        ("behind the end of it", CUT, &cut, [len, 1]),
        ("relative to the end of it", CUT, &cut, [-1, 1]),
        ("in a chunk that was cut", FAILED, &in_chunk_1, [chunk, 1]),
        ("relative to the end of a stream that was lengthened", FAILED, &longer, [-1, 1]),
    ];
    for (note, expect, parts, [from, length]) in cases {
        let mut case = json!({
            "open": opening_json(&one.opening), "sealed": parts, "range": [from, length], "expect": expect,
        });
        if expect == "ok" {
            let from = if from < 0 { len + from } else { from.min(len) };
            let read = &one.plaintext[from as usize..len.min(from + length) as usize];
            (case["length"], case["sha256"]) = (json!(read.len()), json!(hex(Sha256::digest(read))));
        }
        streams.cases.push(&format!("a range {note}"), case);
    }
}

/// Chunks by themselves, so that no stream has to be as long as their numbers say.
fn numbers(streams: &mut Streams<'_>) {
    let opening = field("device.recording", &[], None);
    let salt = bytes("salt of large numbers");
    let key = streams.make.key("data");
    let stream = Stream::new(&key, &salt, &opening.field, &opening.context(), None).expect("a good context");
    let plaintext = b"the last chunk";
    let mut put = |note: &str, sealed_as: u64, number: u64, expect: &str| {
        let mut nonce = stream.message.base_nonce;
        nonce.iter_mut().rev().zip(sealed_as.to_le_bytes()).for_each(|(byte, other)| *byte ^= other);
        let mut chunk = plaintext.to_vec();
        let tag = aes256gcm_seal(Backend::default(), &stream.message.key, nonce, &[], &mut chunk).expect("short");
        let mut case = json!({
            "open": opening_json(&opening), "chunk": number, "expect": expect,
            "sealed": [hex(stream.header.as_bytes()), hex([&chunk[..], &tag].concat())],
        });
        if expect == "ok" {
            (case["length"], case["sha256"]) = (json!(plaintext.len()), json!(hex(Sha256::digest(plaintext))));
            (case["nonce"], case["key_id"]) = (json!(hex(nonce)), json!(key.key_id().to_string()));
        }
        streams.cases.push(note, case);
    };
    for (power, number) in [(8, 1 << 8), (16, 1 << 16), (32, 1 << 32), (38, MAX_CHUNKS - 1)] {
        let less = if power == 38 { " − 1" } else { "" };
        put(&format!("chunk 2^{power}{less}, which is the last one"), number, number, "ok");
        put(&format!("chunk 0 as chunk 2^{power}{less}"), 0, number, FAILED);
    }
    put("chunk 2^32 as chunk 0", 1 << 32, 0, FAILED);
    put("chunk 2^38, which no stream has", MAX_CHUNKS, MAX_CHUNKS, "LimitExceeded");
}

fn keys(streams: &mut Streams<'_>, short: &Made) {
    let free = field("patient.image", &[], None);
    streams.good("under a key that is not active yet", "data-pre-active", &free, 1);
    for scope in ["clinic-18", "clinic-19"] {
        let opening = Opening { scope: Some(scope.into()), ..free.clone() };
        streams.good(&format!("of the scope {scope}"), scope, &opening, 1);
    }
    for (key, expect) in [
        ("data-destroy-pending", "KeyState"),
        ("data-pre-active", FAILED),
        ("scope-names", "WrongScope"),
        ("lookup-default", "WrongScope"),
        ("root-1", "WrongScope"),
    ] {
        let mut sealed = short.sealed.clone();
        sealed[2..26].copy_from_slice(streams.make.key(key).key_id().as_bytes());
        streams.bad(&format!("the key ID of {key}"), expect, &short.opening, &[json!(hex(sealed))]);
    }
    let opening = Opening { scope: Some("clinic-99".into()), ..short.opening.clone() };
    streams.bad("a scope that there is not", "NoMatchingKey", &opening, &[short.part(0, short.sealed.len())]);
    let whole = json!([short.part(0, short.sealed.len())]);
    let mut with = |note: &str, expect: &str, name: &str, value: Json| {
        let mut case = json!({ "open": opening_json(&short.opening), "sealed": whole, "expect": expect });
        case[name] = value;
        streams.cases.push(note, case);
    };
    with("a field that is none of streams", "PolicyRefused", "mode", json!("randomized"));
    with("a configuration without pins", "Configuration", "root_pins", json!([]));
}

fn bound(streams: &mut Streams<'_>, short: &Made) {
    let name = format!("{}n", "é".repeat(127));
    let (t, k, row) = ("t".repeat(300), "k".repeat(260), "row-".repeat(100));
    let around = [("a", ""), ("kf", "1"), ("kf;", "2"), ("tenant", &t), (&k, "3"), ("é", "4")];
    streams.good("a context around the row, with long parts", "data", &field("patient.image", &around, Some(&row)), 1);
    streams.good("the same context, bound to no row", "data", &field("patient.image", &around, None), 1);
    streams.good("a field with a name of 255 bytes that are not ASCII", "data", &field(&name, &[], None), 1);
    let whole = [short.part(0, short.sealed.len())];
    for (note, expect, context) in contexts() {
        let pairs = context.as_array().expect("a list").iter().map(|pair| {
            let text = |i: usize| pair[i].as_str().expect("a text");
            (text(0).to_owned(), data_encoding::HEXLOWER.decode(text(1).as_bytes()).expect("hexadecimal"))
        });
        let opening = Opening { context: pairs.collect(), row: Some(b"r".to_vec()), ..short.opening.clone() };
        streams.bad(note, expect, &opening, &whole);
    }
    for (note, name) in names() {
        let opening = Opening { field: name.to_owned(), ..short.opening.clone() };
        streams.bad(note, "Configuration", &opening, &whole);
    }
}
