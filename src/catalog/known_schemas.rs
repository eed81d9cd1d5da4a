//! The schemas of shards and of copies that this session has named to nodes, with the user's schemas behind them.
//! Errors of nodes speak of the former; users should hear of the latter.

use super::names;
use super::types::ShardGroupId;
use std::cell::RefCell;
use std::collections::HashMap;

thread_local! {
    static KNOWN: RefCell<HashMap<String, String>> = RefCell::default();
}

/// Beyond that they are forgotten, which only costs errors their clarity.
const MOST: usize = 100_000;

/// The schema of a worker that holds shard group `group` of tables of `schema`: `app_102008`.
pub fn shard_schema(schema: &str, group: ShardGroupId) -> String {
    noted(names::shard_schema(schema, group), schema)
}

/// The schema of copies of reference tables on the node that is the coordinator's database.
pub fn own_reference_schema(schema: &str) -> String {
    noted(names::suffixed(schema, "_reference"), schema)
}

fn noted(on_node: String, schema: &str) -> String {
    KNOWN.with_borrow_mut(|known| {
        if !known.contains_key(&on_node) {
            if known.len() >= MOST {
                known.clear();
            }
            known.insert(on_node.clone(), schema.to_owned());
        }
    });
    on_node
}

/// The user's name for a schema of a node.
pub fn users_schema(on_node: &str) -> Option<String> {
    KNOWN.with_borrow(|known| known.get(on_node).cloned())
}

/// A text of a node with the user's names of schemas.
pub fn with_users_schemas(text: &str) -> String {
    let mut changed = text.to_owned();
    KNOWN.with_borrow(|known| {
        let mut found: Vec<_> = known
            .iter()
            .filter(|(on_node, _)| text.contains(on_node.as_str()))
            .collect();
        // the longest first: one may be the beginning of another
        found.sort_by_key(|(on_node, _)| std::cmp::Reverse(on_node.len()));
        for (on_node, schema) in found {
            changed = changed.replace(on_node.as_str(), schema);
        }
    });
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_nodes_get_the_users_schemas() {
        assert_eq!(shard_schema("shop", 102_008), "shop_102008");
        assert_eq!(shard_schema("my shop", 102_008), "my shop_102008");
        assert_eq!(users_schema("shop_102008").as_deref(), Some("shop"));
        assert_eq!(users_schema("shop_102009"), None);
        assert_eq!(
            with_users_schemas("permission denied for schema shop_102008"),
            "permission denied for schema shop"
        );
        shard_schema("shop", 1_020_081);
        assert_eq!(
            with_users_schemas("relation \"my shop_102008.t\" and shop_1020081"),
            "relation \"my shop.t\" and shop"
        );
    }
}
