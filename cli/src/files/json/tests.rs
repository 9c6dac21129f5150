use super::*;
use std::io::{self, Cursor, Read};

/// Hands out its bytes in pieces of the given length.
struct Pieces<'a>(&'a [u8], usize);

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.1.min(self.0.len()).min(buffer.len());
        buffer[..len].copy_from_slice(&self.0[..len]);
        self.0 = &self.0[len..];
        Ok(len)
    }
}

fn batches(input: impl Read) -> Result<Vec<LineBatch>, JsonError> {
    let mut source = LineSource::new(input, MAX_LINE_LEN);
    let mut batches = Vec::new();
    while let Some(batch) = source.next_batch()? {
        batches.push(batch);
    }
    Ok(batches)
}

#[test]
fn lines_keep_every_byte() {
    let file = b"\xEF\xBB\xBF{\"a\":1}\r\n\n \t\r\n{}\n\xEF\xBB\xBF\r\r\n[1]";
    for piece in 1..=file.len() {
        let batches = batches(Pieces(file, piece)).expect("valid");
        let [batch] = batches.as_slice() else { panic!("one batch") };
        let lines: Vec<&[u8]> = (0..batch.len()).map(|index| batch.line(index)).collect();
        let expected: [&[u8]; 6] = [b"{\"a\":1}", b"", b" \t", b"{}", b"\xEF\xBB\xBF\r", b"[1]"];
        assert_eq!(lines, expected);
        let blank: Vec<bool> = (0..batch.len()).map(|index| batch.is_blank(index)).collect();
        assert_eq!(blank, [false, true, true, false, false, false]);
        assert_eq!((batch.number(0), batch.number(5)), (1, 6));
        let mut out = Vec::new();
        batch
            .render::<()>(&mut out, |index, out| {
                out.extend(batch.line(index));
                Ok(())
            })
            .expect("identity");
        assert_eq!(out, file);
        out.clear();
        batch
            .render::<()>(&mut out, |_, out| {
                out.extend(b"X");
                Ok(())
            })
            .expect("replaced");
        assert_eq!(out, b"\xEF\xBB\xBFX\r\n\n \t\r\nX\nX\r\nX");
        assert_eq!(batch.render(&mut out, |index, _| if index == 3 { Err(index) } else { Ok(()) }), Err(3));
    }
    assert!(batches(Cursor::new("")).expect("valid").is_empty());
}

#[test]
fn batches_are_bounded() {
    let mut file = b"{}\n".repeat(10_000);
    file.extend([b' '].repeat(MAX_LINE_LEN));
    file.extend(b"\r\n1\n");
    let batches = batches(Cursor::new(&file)).expect("valid");
    let shape: Vec<_> = batches.iter().map(|batch| (batch.len(), batch.number(0))).collect();
    assert_eq!(shape, [(4096, 1), (4096, 4097), (1809, 8193), (1, 10_002)]);
    assert_eq!(batches.iter().map(LineBatch::raw_len).sum::<usize>(), file.len());
}

#[test]
fn a_long_line_is_refused_early() {
    struct Endless(u64, usize);
    impl Read for Endless {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            buffer.fill(b'x');
            if self.0 > 0 {
                buffer[0] = b'\n';
                self.0 -= 1;
            }
            self.1 += buffer.len();
            Ok(buffer.len())
        }
    }
    let mut input = Endless(2, 0);
    let error = batches(&mut input).err().expect("refused");
    assert_eq!(error.to_string(), "line 3: longer than 16777216 bytes");
    assert!(input.1 < MAX_LINE_LEN + 1024 * 1024);
}
