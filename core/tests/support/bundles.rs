//! The vectors of key bundles (FORMAT.md §16), made byte by byte and not by what writes them in the library.

use super::{Cases, File, Maker, damaged_at, field, flipped, head, hex};
use crate::world::{bytes, lineage, slot};
use aes_kw::KeyInit;
use keyfold::vectors::{self, Key};
use keyfold::{KeyClass, Padding, Value};
use serde_json::{Map, Value as Json, json};
use sha2::{Digest, Sha256};

const HEADER_LEN: usize = 106;
const PASSPHRASE: &str = "six random words of a passphrase";
const SALT: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
/// What Argon2id makes of passphrase and salt at each cost. The decoder computes it.
const DERIVED: [([u32; 3], &str); 2] = [
    ([19_456, 2, 1], "59e178f25fcd3426673b5a09e138e2777f8d3f4657e70cc479224caf2b55aea4"),
    ([65_536, 3, 4], "f4e3611b70418fd8f7e4046dd4e6c51ce6a8fca2b071bacecc49a96d59e3e66c"),
];

/// A bundle in parts, so that each can be changed alone.
#[derive(Clone)]
struct Parts {
    header: Vec<u8>,
    /// What is wrapped beside the key; `None`: what belongs to the header.
    binding: Option<Vec<u8>>,
    key: [u8; 32],
    transport_key: [u8; 32],
}

impl Parts {
    /// The bundle of a member's key, issued to the device `device`.
    fn new(key: &Key, device: &str, cost: Option<[u32; 3]>) -> Self {
        let issued = 1_790_000_000_000_000_u64.to_be_bytes();
        let identity = [&key.key_id().as_bytes()[..], key.lineage.as_bytes(), &key.slot.as_bytes()[..]].concat();
        let mut header = [&b"KFDB\x01\x01"[..], &identity, &bytes::<8>(device), &issued, &[0; 28]].concat();
        let mut transport_key = bytes("transport key");
        if let Some(cost) = cost {
            header[5] = 2;
            header[78..94].copy_from_slice(&SALT);
            for (i, number) in cost.into_iter().enumerate() {
                header[94 + 4 * i..98 + 4 * i].copy_from_slice(&number.to_be_bytes());
            }
            let (_, derived) = DERIVED.iter().find(|(of, _)| *of == cost).unwrap_or(&DERIVED[0]);
            transport_key = data_encoding::HEXLOWER.decode(derived.as_bytes()).unwrap().try_into().unwrap();
        }
        Self { header, binding: None, key: key.bytes, transport_key }
    }

    fn binding(&self) -> Vec<u8> {
        let own = || Sha256::new().chain_update(b"keyfold/device-bundle/v1").chain_update(&self.header).finalize();
        self.binding.clone().unwrap_or_else(|| own().to_vec())
    }

    fn to_bytes(&self) -> Vec<u8> {
        self.wrapping(&[&self.key[..], &self.binding()].concat())
    }

    /// The bundle with something else wrapped.
    fn wrapping(&self, payload: &[u8]) -> Vec<u8> {
        let mut buffer = vec![0; payload.len().next_multiple_of(8) + 8];
        let wrapped = aes_kw::KwpAes256::new((&self.transport_key).into()).wrap_key(payload, &mut buffer).unwrap();
        [&self.header[..], wrapped].concat()
    }

    fn with(&self, change: impl FnOnce(&mut Self)) -> Self {
        let mut parts = self.clone();
        change(&mut parts);
        parts
    }
}

struct Bundles<'a> {
    make: &'a Maker,
    cases: Cases,
}

pub(super) fn file(make: &Maker) -> File {
    let mut bundles = Bundles { make, cases: Cases("bundle", Vec::new()) };
    let plain = Parts::new(&make.key("clinic-17"), "device 1", None);
    let secret = Parts::new(&make.key("clinic-17"), "device 2", Some(DERIVED[0].0));
    bundles.good(&plain, &secret);
    bundles.misshapen(&plain, &secret);
    bundles.costs(&plain, &secret);
    bundles.edited(&plain, &secret);
    bundles.forged(&plain);
    ("bundle.json", head("key bundles of devices: what opens, and what must not"), bundles.cases.1)
}

impl Bundles<'_> {
    fn good(&mut self, plain: &Parts, secret: &Parts) {
        let slow = Parts::new(&self.make.key("clinic-17"), "device 3", Some(DERIVED[1].0));
        let other = Parts::new(&self.make.key("clinic-18"), "device 4", None);
        for (note, parts, key) in [
            ("under a transport key", plain, "clinic-17"),
            ("another scope, generation and device", &other, "clinic-18"),
            ("under a passphrase at the least cost", secret, "clinic-17"),
            ("under a passphrase at the cost of the command", &slow, "clinic-17"),
        ] {
            let key = self.make.key(key);
            let opening = field("device.serial", &[("tenant", "clinic-17")], Some("row-1"));
            let text = Value::Text("SN-0001");
            let encoded = vectors::encode(text, Padding::None).expect("short");
            let name = if key.slot == slot("clinic-17") { "clinic-17" } else { "clinic-18" };
            let (_, sealed) = self.make.seal_encoded(&format!("bundle {note}"), name, &opening, &encoded);
            let mut map = self.opening(parts, &parts.to_bytes());
            for name in ["open", "sealed", "key_id", "nonce"] {
                map.insert(name.into(), sealed[name].clone());
            }
            let more = json!({
                "key": hex(key.bytes), "lineage": key.lineage.to_string(), "slot": key.slot.to_string(),
                "device_id": hex(&parts.header[62..70]), "issued": 1_790_000_000_000_000_u64,
                "type": "text", "value": hex(vectors::canonical(text)), "expect": "ok",
            });
            map.extend(more.as_object().expect("an object").clone());
            self.cases.push(note, Json::Object(map));
        }
    }

    fn opening(&self, parts: &Parts, bundle: &[u8]) -> Map<String, Json> {
        let mut map = Map::new();
        map.insert("bundle".into(), json!(hex(bundle)));
        map.insert("transport_key".into(), json!(hex(parts.transport_key)));
        if parts.header[5] == 2 {
            map.insert("passphrase".into(), json!(PASSPHRASE));
        }
        map
    }

    fn bad(&mut self, note: &str, expect: &str, parts: &Parts, bundle: &[u8]) {
        let mut map = self.opening(parts, bundle);
        map.insert("expect".into(), json!(expect));
        // What is refused before a key is looked at needs none.
        if expect != "DecryptionFailed" {
            map.remove("passphrase");
        }
        self.cases.push(note, Json::Object(map));
    }

    fn misshapen(&mut self, plain: &Parts, secret: &Parts) {
        let bundle = plain.to_bytes();
        for len in [0, 3, 4, 5, 6, 105, HEADER_LEN, 177] {
            self.bad(&format!("the first {len} bytes"), "Malformed", plain, &bundle[..len]);
        }
        self.bad("a byte more", "Malformed", plain, &[&bundle[..], &[0]].concat());
        self.bad("twice", "Malformed", plain, &[&bundle[..], &bundle].concat());
        for at in 0..4 {
            self.bad(&format!("magic, byte {at}"), "Malformed", plain, &flipped(&bundle, at, 5));
        }
        for version in [0, 2, 255] {
            self.bad(&format!("version {version}"), "Unsupported", plain, &damaged_at(&bundle, 4, version));
        }
        let newer = damaged_at(&bundle, 4, 2);
        self.bad("version 2, shorter", "Unsupported", plain, &newer[..100]);
        for protection in [0, 3, 255] {
            let bytes = damaged_at(&bundle, 5, protection);
            self.bad(&format!("protection {protection}"), "Unsupported", plain, &bytes);
        }
        self.bad("protection 3, a byte less", "Malformed", plain, &damaged_at(&bundle, 5, 3)[..177]);
        self.bad("a transport key, said to be a passphrase", "Malformed", plain, &damaged_at(&bundle, 5, 2));
        self.bad("a passphrase, said to be a transport key", "Malformed", plain, &damaged_at(&secret.to_bytes(), 5, 1));
    }

    /// Costs out of bounds, whoever has vouched for them.
    fn costs(&mut self, plain: &Parts, secret: &Parts) {
        for (note, at) in [("a salt", 93), ("memory", 97), ("passes", 101), ("lanes", 105)] {
            let parts = plain.with(|parts| parts.header[at] = 1);
            self.bad(&format!("{note} with a transport key"), "Malformed", plain, &parts.to_bytes());
        }
        for (at, note, numbers) in [
            (94, "KiB", [0, 8, 19_455, 1_048_577, u32::MAX]),
            (98, "passes", [0, 1, 17, 256, u32::MAX]),
            (102, "lanes", [0, 9, 256, 65_536, u32::MAX]),
        ] {
            for number in numbers {
                let parts = secret.with(|parts| parts.header[at..at + 4].copy_from_slice(&number.to_be_bytes()));
                self.bad(&format!("{number} {note}"), "Malformed", secret, &parts.to_bytes());
            }
        }
    }

    fn edited(&mut self, plain: &Parts, secret: &Parts) {
        let failed = "DecryptionFailed";
        let bundle = plain.to_bytes();
        for (note, at) in [
            ("generation", 9),
            ("fingerprint, first byte", 10),
            ("fingerprint, last byte", 29),
            ("lineage", 30),
            ("scope ID", 61),
            ("device ID", 62),
            ("time of issue", 77),
            ("wrapped key, first byte", 106),
            ("wrapped key, byte 40", 146),
            ("wrapped key, last byte", 177),
        ] {
            self.bad(&format!("a bit of the {note}"), failed, plain, &flipped(&bundle, at, 0));
        }
        let under_passphrase = secret.to_bytes();
        for (note, at) in [("salt", 78), ("memory", 97)] {
            self.bad(&format!("a bit of the {note}"), failed, secret, &flipped(&under_passphrase, at, 0));
        }
        let other = plain.with(|parts| parts.transport_key = bytes("another transport key"));
        self.bad("another transport key", failed, &other, &bundle);
        let other = Parts::new(&self.make.key("clinic-17"), "device 5", None).to_bytes();
        let spliced = [&other[..HEADER_LEN], &bundle[HEADER_LEN..]].concat();
        self.bad("header of another bundle of the same key", failed, plain, &spliced);
    }

    /// What only somebody with the transport key can make.
    fn forged(&mut self, plain: &Parts) {
        let failed = "DecryptionFailed";
        let mut bad = |note: &str, change: &dyn Fn(&mut Parts)| {
            let parts = plain.with(change);
            self.bad(note, failed, &parts, &parts.to_bytes());
        };
        bad("another key, same ID", &|parts| parts.key = bytes("another key"));
        bad("ID of another generation, vouched for", &|parts| parts.header[9] += 1);
        bad("another fingerprint, vouched for", &|parts| parts.header[20] ^= 1);
        bad("another lineage, vouched for", &|parts| parts.header[40] ^= 1);
        bad("another scope, vouched for", &|parts| parts.header[61] ^= 1);
        bad("no binding", &|parts| parts.binding = Some(vec![0; 32]));
        bad("binding of another label", &|parts| {
            let digest = Sha256::new().chain_update(b"keyfold/device-bundle/v2").chain_update(&parts.header).finalize();
            parts.binding = Some(digest.to_vec());
        });
        bad("the key alone, twice", &|parts| parts.binding = Some(parts.key.to_vec()));
        let payload = [&plain.key[..], &plain.binding()].concat();
        for len in [57, 63] {
            self.bad(&format!("{len} bytes wrapped"), failed, plain, &plain.wrapping(&payload[..len]));
        }
        let mut wrapped = [0; 72];
        let kw = aes_kw::KwAes256::new((&plain.transport_key).into());
        kw.wrap_key(&payload, &mut wrapped).expect("64 bytes wrap");
        self.bad("AES-KW without padding", failed, plain, &[&plain.header[..], &wrapped].concat());
        let lookup = self.make.key("lookup-default");
        assert!(lookup.class == KeyClass::Lookup && lookup.lineage == lineage());
        let parts = Parts::new(&lookup, "device 6", None);
        self.bad("a lookup key", failed, &parts, &parts.to_bytes());
    }
}
