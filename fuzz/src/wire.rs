//! What is read without a key: values, frames, headers, bundles, and their texts. There is one encoding of each.

use crate::memory::bounded;
use keyfold::device::Bundle;
use keyfold::wire::{
    DETERMINISTIC_OVERHEAD, DocumentHeader, FIELD_OVERHEAD, Frame, HEADER_LEN, MANIFEST_LEN, Sealed, SealedValue,
    StreamHeader, Suite, body_from_text, from_text, manifest_from_text, manifest_text, push_body_text, push_text,
    text_len,
};

/// Whatever is accepted is written again as the same bytes.
pub fn run(data: &[u8]) {
    bounded(data.len(), 8, || {
        binary(data);
        text(data);
    });
}

fn binary(data: &[u8]) {
    if let Ok(sealed) = Sealed::parse(data) {
        assert_eq!((data[0], data[1]), (0xF5, sealed.suite().id()));
        assert_eq!(data[2..26], *sealed.key_id().as_bytes());
        let overhead = match sealed.suite() {
            Suite::Field => FIELD_OVERHEAD,
            Suite::Deterministic => DETERMINISTIC_OVERHEAD,
            other => panic!("suite {other} is no value"),
        };
        assert_eq!(sealed.encoded_len() + overhead - 1, data.len());
        let (mut text, mut back) = (Vec::new(), Vec::new());
        push_text(data, &mut text).expect("a value has a text");
        assert_eq!(text.len(), text_len(data.len()));
        from_text(&text, &mut back).expect("its text is read");
        assert_eq!(back, data);
    }
    if let Ok(frame) = Frame::parse(data) {
        let each = |record: &[u8]| [&(record.len() as u16).to_be_bytes()[..], record].concat();
        let records = [each(frame.record()), each(frame.root_record())].concat();
        let head = [&[0xF5, 3][..], frame.key_id().as_bytes(), &(records.len() as u32).to_be_bytes()].concat();
        assert_eq!(frame.records_len(), records.len());
        assert_eq!([&head[..], &records, frame.value()].concat(), data);
        assert_eq!(Sealed::parse(frame.value()).expect("a value").key_id(), frame.key_id());
    }
    if let Ok(header) = DocumentHeader::parse(data) {
        assert_eq!(header.as_bytes(), data);
        assert_eq!(DocumentHeader::from_text(&header.to_text()).expect("its text is read"), header);
    }
    if let Ok(header) = StreamHeader::parse(data) {
        assert!(data.starts_with(header.as_bytes()));
        assert_eq!(data[2..26], *header.key_id().as_bytes());
    }
    if let Ok(bundle) = Bundle::parse(data) {
        assert_eq!(data[30..46], *bundle.lineage().as_bytes());
        assert_eq!(data[62..70], bundle.device_id());
    }
}

fn text(data: &[u8]) {
    // What is refused leaves nothing behind.
    let mut out = b"kept".to_vec();
    let read = from_text(data, &mut out);
    assert!(out.starts_with(b"kept") && (read.is_ok() || out == b"kept"));
    if read.is_ok() {
        // Of what is too short for a value, the text is looked at alone.
        let mut again = Vec::new();
        match push_text(&out[4..], &mut again) {
            Ok(()) => assert_eq!(again, data),
            Err(_) => assert!(out.len() - 4 < HEADER_LEN),
        }
    }
    out.truncate(4);
    let read = body_from_text(data, &mut out);
    assert!(out.starts_with(b"kept") && (read.is_ok() || out == b"kept"));
    if read.is_ok() {
        let mut again = Vec::new();
        push_body_text(&out[4..], &mut again);
        assert_eq!(again, data);
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(header) = DocumentHeader::from_text(text) {
        assert_eq!(header.to_text(), text);
    }
    if let Ok(manifest) = manifest_from_text(text) {
        let _: [u8; MANIFEST_LEN] = manifest;
        assert_eq!(manifest_text(&manifest), text);
    }
    if let Ok(value) = SealedValue::from_text(text) {
        assert_eq!(value.to_text(), text);
    }
}
