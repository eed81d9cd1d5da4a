//! How shards are named and how the hash space is cut: pure functions without a server.

use super::ShardGroupId;

/// Bytes of a PostgreSQL name (`NAMEDATALEN` less the NUL).
const NAME_BYTES: usize = 63;

/// The schema of a worker that holds shard group `group` of tables of `schema`: `app_102008`.
///
/// A name that would not fit is cut and gets a hash of the whole schema name instead of its end,
/// so that two long names with one beginning stay apart.
pub fn shard_schema(schema: &str, group: ShardGroupId) -> String {
    suffixed(schema, &format!("_{group}"))
}

/// `schema` with `suffix`, within the length of a name.
pub(super) fn suffixed(schema: &str, suffix: &str) -> String {
    if schema.len() + suffix.len() <= NAME_BYTES {
        return format!("{schema}{suffix}");
    }
    let tail = format!("_{:08x}{suffix}", fnv1a(schema.as_bytes()));
    let mut cut = NAME_BYTES.saturating_sub(tail.len());
    while !schema.is_char_boundary(cut) {
        cut -= 1;
    }
    format!("{}{tail}", &schema[..cut])
}

/// FNV-1a, 32 bits: part of names that outlive the binary, so it must never change.
fn fnv1a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    })
}

/// The hash space cut in `count` equal ranges, both ends inclusive; the last takes the remainder.
/// The arithmetic is that of Citus, so data distributed there falls into the same shards here.
pub fn hash_ranges(count: u32) -> Vec<(i32, i32)> {
    let count = i64::from(count.max(1));
    let width = (1_i64 << 32) / count;
    let lowest = i64::from(i32::MIN);
    (0..count)
        .map(|i| {
            let lower = lowest + i * width;
            let upper = if i == count - 1 {
                i64::from(i32::MAX)
            } else {
                lower + width - 1
            };
            (lower as i32, upper as i32)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shard_schemas_fit_into_a_name() {
        assert_eq!(shard_schema("app", 102008), "app_102008");
        let fits = "s".repeat(56);
        assert_eq!(shard_schema(&fits, 102008), format!("{fits}_102008"));
        let long = "s".repeat(57);
        let name = shard_schema(&long, 102008);
        assert_eq!(name.len(), 63);
        assert!(name.ends_with("_102008"));
        assert_ne!(name, shard_schema(&format!("{}t", "s".repeat(56)), 102008));
        assert_eq!(name, shard_schema(&long, 102008));
    }

    #[test]
    fn shard_schemas_are_cut_between_characters() {
        let long = "ä".repeat(31);
        let name = shard_schema(&long, 9_223_372_036_854_775_807);
        assert!(name.len() <= 63);
        assert!(name.ends_with("_9223372036854775807"));
    }

    #[test]
    fn hash_ranges_are_those_of_citus() {
        let four = hash_ranges(4);
        assert_eq!(
            four,
            [
                (-2147483648, -1073741825),
                (-1073741824, -1),
                (0, 1073741823),
                (1073741824, 2147483647)
            ]
        );
        assert_eq!(hash_ranges(1), [(i32::MIN, i32::MAX)]);
        for count in [3, 32, 7, 64000] {
            let ranges = hash_ranges(count);
            assert_eq!(ranges.len(), count as usize);
            assert_eq!(ranges[0].0, i32::MIN);
            assert_eq!(ranges[ranges.len() - 1].1, i32::MAX);
            assert!(ranges
                .windows(2)
                .all(|pair| i64::from(pair[0].1) + 1 == i64::from(pair[1].0)));
        }
    }
}
