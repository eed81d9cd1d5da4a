//! From a line of the data sent to a worker back to the line of the user's input.
//!
//! A worker reports errors by the line of its own batch. Per row sent we keep how far the user's line
//! number advanced, as one or two bytes, until the batch has succeeded.

/// The lines of one batch.
#[derive(Default, Clone)]
pub struct LineMap {
    steps: Vec<u8>,
    last: u64,
}

impl crate::remote::Note for LineMap {}

impl LineMap {
    /// Notes the next row: the user's line it ended on, and how many lines beyond one it takes in what
    /// the worker reads (newlines inside CSV quotes).
    pub fn push(&mut self, user_line: u64, extra_lines: u64) {
        let step = user_line.wrapping_sub(self.last);
        self.last = user_line;
        self.varint(step << 1 | u64::from(extra_lines > 0));
        if extra_lines > 0 {
            self.varint(extra_lines);
        }
    }

    /// The user's line for a line the worker reported, counted from one.
    pub fn user_line(&self, worker_line: u64) -> Option<u64> {
        let mut steps = self.steps.iter();
        let (mut user, mut worker) = (0u64, 0u64);
        while let Some(step) = read_varint(&mut steps) {
            user += step >> 1;
            worker += 1;
            if step & 1 == 1 {
                worker += read_varint(&mut steps)?;
            }
            if worker >= worker_line {
                return Some(user - (worker - worker_line).min(user));
            }
        }
        None
    }

    /// Rewrites a worker's `COPY table, line n…` to the user's line, without the `computed` columns at
    /// the end of what it shows. Translated messages keep the order of their parts, so the first number
    /// after the table's name is the line.
    pub fn rewrite_context(&self, context: &str, table: &str, computed: usize) -> Option<String> {
        let prefix = format!("COPY {table}, ");
        let start = context.find(&prefix)? + prefix.len();
        let digits = start + context[start..].find(|c: char| c.is_ascii_digit())?;
        if context[start..digits].contains('\n') {
            return None;
        }
        let end = context[digits..]
            .find(|c: char| !c.is_ascii_digit())
            .map_or(context.len(), |length| digits + length);
        let line = self.user_line(context[digits..end].parse().ok()?)?;
        let rest = &context[end..];
        let shown = match rest
            .strip_prefix(": \"")
            .and_then(|text| text.split_once('\n'))
        {
            Some((text, below)) if computed > 0 => {
                match text.rsplitn(computed + 1, '\t').nth(computed) {
                    Some(given) => format!(": \"{given}\"\n{below}"),
                    None => rest.to_string(),
                }
            }
            _ => rest.to_string(),
        };
        Some(format!("{}{line}{shown}", &context[..digits]))
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.steps.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.steps.push(value as u8);
    }
}

fn read_varint<'a>(bytes: &mut impl Iterator<Item = &'a u8>) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.next()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::LineMap;

    fn map(rows: &[(u64, u64)]) -> LineMap {
        let mut map = LineMap::default();
        for (line, extra) in rows {
            map.push(*line, *extra);
        }
        map
    }

    #[test]
    fn every_row_finds_its_line() {
        let map = map(&[(2, 0), (35, 0), (100_000, 0), (100_001, 0)]);
        assert_eq!(map.user_line(1), Some(2));
        assert_eq!(map.user_line(2), Some(35));
        assert_eq!(map.user_line(3), Some(100_000));
        assert_eq!(map.user_line(4), Some(100_001));
        assert_eq!(map.user_line(5), None);
        assert_eq!(map.steps.len(), 6);
    }

    #[test]
    fn rows_of_several_lines() {
        // the second row spans the user's lines 5 to 7
        let map = map(&[(4, 0), (7, 2), (9, 0)]);
        assert_eq!(map.user_line(1), Some(4));
        assert_eq!(map.user_line(2), Some(5));
        assert_eq!(map.user_line(4), Some(7));
        assert_eq!(map.user_line(5), Some(9));
    }

    #[test]
    fn the_context_names_the_users_line() {
        let map = map(&[(10, 0), (77, 0)]);
        assert_eq!(
            map.rewrite_context(
                "COPY users, line 2, column age: \"1x\"\nnode \"w 3\"",
                "users",
                1
            )
            .as_deref(),
            Some("COPY users, line 77, column age: \"1x\"\nnode \"w 3\"")
        );
        assert_eq!(
            map.rewrite_context("COPY users, Zeile 1", "users", 0)
                .as_deref(),
            Some("COPY users, Zeile 10")
        );
        assert_eq!(
            map.rewrite_context("COPY users, line 1: \"a\tb\t1\t\\N\"\nnode", "users", 2)
                .as_deref(),
            Some("COPY users, line 10: \"a\tb\"\nnode")
        );
        assert_eq!(map.rewrite_context("COPY others, line 1", "users", 0), None);
        assert_eq!(map.rewrite_context("COPY users, line 9", "users", 0), None);
    }
}
