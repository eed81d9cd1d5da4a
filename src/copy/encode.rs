//! COPY's text and binary formats, written: field values to the bytes a worker's COPY FROM reads.

/// Signature, flags and header extension of the binary format.
pub const BINARY_HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// The row of "-1 fields" that ends the binary format.
pub const BINARY_TRAILER: &[u8] = b"\xff\xff";

/// Appends a value in the text format with tab as delimiter and `\N` as NULL.
///
/// Every server encoding keeps ASCII bytes to ASCII characters, so bytes may be looked at one by one.
pub fn text_field(value: Option<&[u8]>, out: &mut Vec<u8>) {
    let Some(value) = value else {
        out.extend_from_slice(b"\\N");
        return;
    };
    let mut clean = 0;
    for (at, byte) in value.iter().enumerate() {
        let escape = match byte {
            b'\\' => b'\\',
            b'\t' => b't',
            b'\n' => b'n',
            b'\r' => b'r',
            _ => continue,
        };
        out.extend_from_slice(&value[clean..at]);
        out.extend_from_slice(&[b'\\', escape]);
        clean = at + 1;
    }
    out.extend_from_slice(&value[clean..]);
}

/// Appends the number of fields that opens a row of the binary format.
pub fn binary_row(fields: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(&(fields as i16).to_be_bytes());
}

/// Appends a value in the binary format.
pub fn binary_field(value: Option<&[u8]>, out: &mut Vec<u8>) {
    match value {
        None => out.extend_from_slice(&(-1i32).to_be_bytes()),
        Some(value) => {
            out.extend_from_slice(&(value.len() as i32).to_be_bytes());
            out.extend_from_slice(value);
        }
    }
}

/// A line of user input in the text format as it may be followed by a newline of ours.
///
/// Only the last line of the input can end in a lone backslash (nothing follows it that it could
/// escape); PostgreSQL ignores it there, but before our newline it would continue the line.
pub fn without_dangling_backslash(line: &[u8]) -> &[u8] {
    let backslashes = line.iter().rev().take_while(|b| **b == b'\\').count();
    &line[..line.len() - backslashes % 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        text_field(Some(value), &mut out);
        out
    }

    #[test]
    fn text_escapes_what_the_format_reserves() {
        assert_eq!(text(b"plain"), b"plain");
        assert_eq!(text(b""), b"");
        assert_eq!(text(b"a\tb\nc\rd\\"), b"a\\tb\\nc\\rd\\\\");
        assert_eq!(text(b"\\N"), b"\\\\N");
        assert_eq!(text("\u{e9}\t".as_bytes()), "\u{e9}\\t".as_bytes());
        let mut out = b"x\t".to_vec();
        text_field(None, &mut out);
        assert_eq!(out, b"x\t\\N");
    }

    #[test]
    fn binary_fields_carry_their_length() {
        let mut out = Vec::new();
        binary_row(2, &mut out);
        binary_field(Some(b"ab"), &mut out);
        binary_field(None, &mut out);
        assert_eq!(out, b"\0\x02\0\0\0\x02ab\xff\xff\xff\xff");
    }

    #[test]
    fn a_dangling_backslash_is_dropped() {
        assert_eq!(without_dangling_backslash(b"abc"), b"abc");
        assert_eq!(without_dangling_backslash(b"abc\\"), b"abc");
        assert_eq!(without_dangling_backslash(b"abc\\\\"), b"abc\\\\");
        assert_eq!(without_dangling_backslash(b"\\\\\\"), b"\\\\");
        assert_eq!(without_dangling_backslash(b""), b"");
    }
}
