//! Tests of the cache and of reading and writing the catalogs, inside a server.

use pgrx::prelude::*;

#[pg_schema]
mod tests {
    use super::*;
    use crate::catalog::{self, write, Bounds, Method, NodeId};
    use pgrx::pg_sys::{Datum, Oid};
    use pgrx::IntoDatum;

    fn run(sql: &str) {
        Spi::run(sql).expect(sql);
    }

    fn relid(name: &str) -> Oid {
        Spi::get_one_with_args("SELECT $1::regclass::oid", &[name.into()])
            .expect("a relation")
            .expect("an oid")
    }

    fn node(name: &str) -> NodeId {
        run(&format!(
            "CREATE SERVER {name} FOREIGN DATA WRAPPER shard_ext"
        ));
        write::insert_node(&write::NewNode {
            server_name: name,
            is_coordinator: false,
            same_collation: true,
            version_num: 150000,
            system_identifier: None,
            database: Oid::from(1),
            lacking: Default::default(),
        })
        .unwrap()
    }

    /// A table of four hash shard groups on two nodes.
    fn distribute(table: &str, column: &str, key_type: &str) -> catalog::ColocationId {
        let nodes = [node(&format!("{table}_a")), node(&format!("{table}_b"))];
        run(&format!("CREATE TABLE {table} ({column} {key_type})"));
        let (key_type, collation) = Spi::get_two_with_args::<Oid, Oid>(
            "SELECT atttypid, attcollation FROM pg_attribute WHERE attrelid = $1 AND attnum = 1",
            &[relid(table).into()],
        )
        .unwrap();
        let id = write::insert_colocation(Method::Hash, 4, key_type.unwrap(), collation.unwrap())
            .unwrap();
        write::insert_hash_groups(id, &[nodes[0], nodes[1], nodes[0], nodes[1]]).unwrap();
        write::insert_distributed_table(relid(table), column, id).unwrap();
        id
    }

    fn is_known(relid: Oid) -> bool {
        catalog::table(relid).unwrap().is_some()
    }

    /// Runs `f` in a subtransaction that is rolled back.
    fn rolled_back(f: impl FnOnce()) {
        // SAFETY: as PL/pgSQL does for a block with an EXCEPTION clause.
        unsafe {
            let (owner, context) = (pg_sys::CurrentResourceOwner, pg_sys::CurrentMemoryContext);
            pg_sys::BeginInternalSubTransaction(std::ptr::null());
            pg_sys::MemoryContextSwitchTo(context);
            f();
            pg_sys::RollbackAndReleaseCurrentSubTransaction();
            pg_sys::MemoryContextSwitchTo(context);
            pg_sys::CurrentResourceOwner = owner;
        }
    }

    #[pg_test]
    fn keys_go_where_their_hash_says() {
        let id = distribute("hashed", "k", "int");
        let table = catalog::table(relid("hashed"))
            .unwrap()
            .expect("a distributed table");
        let (key, colocation) = table.distribution().expect("a distribution");
        assert_eq!((key, colocation.id, colocation.groups.len()), (1, id, 4));
        for k in -500_i32..500 {
            let hash = Spi::get_one_with_args::<i32>("SELECT hashint4($1)", &[k.into()])
                .unwrap()
                .unwrap();
            let found = colocation.group_for(k.into_datum()).unwrap();
            let Bounds::Hash { lo, hi } = colocation.groups[found].bounds else {
                panic!("hash bounds")
            };
            assert!((lo..=hi).contains(&hash), "{k}");
        }
        assert_eq!(colocation.group_for(None), Some(0));
        assert_eq!(
            catalog::group_node(colocation.groups[3].id).unwrap(),
            colocation.groups[3].node
        );
        assert_eq!(catalog::tables_of(id).unwrap(), [relid("hashed")]);
    }

    #[pg_test]
    fn text_keys_hash_as_postgres_does() {
        distribute("texts", "k", "text COLLATE \"C\"");
        let table = catalog::table(relid("texts")).unwrap().unwrap();
        let (_, colocation) = table.distribution().unwrap();
        assert_eq!(colocation.key_collation, Oid::from(950));
        for k in ["", "a", "ä", "a long text that is more than a few words"] {
            let hash = Spi::get_one_with_args::<i32>("SELECT hashtext($1)", &[k.into()])
                .unwrap()
                .unwrap();
            let found = colocation.group_for(k.into_datum()).unwrap();
            let Bounds::Hash { lo, hi } = colocation.groups[found].bounds else {
                panic!("hash bounds")
            };
            assert!((lo..=hi).contains(&hash), "{k}");
        }
    }

    #[pg_test]
    fn a_domain_is_its_base_type() {
        run("CREATE DOMAIN tenant AS int CHECK (VALUE > 0)");
        let id = distribute("domains", "k", "tenant");
        assert_eq!(catalog::colocation(id).unwrap().key_type, pg_sys::INT4OID);
        let tenant: Oid = Spi::get_one("SELECT 'tenant'::regtype::oid")
            .unwrap()
            .unwrap();
        let found = catalog::find_colocation(Method::Hash, tenant, pg_sys::InvalidOid, 4).unwrap();
        assert_eq!(found, Some(id));
        let other = catalog::find_colocation(Method::Hash, tenant, pg_sys::InvalidOid, 5).unwrap();
        assert_eq!(other, None);
    }

    #[pg_test]
    fn the_cache_follows_subtransactions() {
        run("CREATE TABLE plain (k int)");
        let plain = relid("plain");
        let colocation = distribute("first", "k", "int");
        assert!(!is_known(plain));
        rolled_back(|| {
            write::insert_distributed_table(plain, "k", colocation).unwrap();
            assert!(is_known(plain));
        });
        assert!(!is_known(plain));
        let first = relid("first");
        assert!(is_known(first));
        rolled_back(|| {
            write::delete_table(first).unwrap();
            assert!(!is_known(first));
            rolled_back(|| {
                write::insert_reference_table(first).unwrap();
                assert!(catalog::table(first).unwrap().unwrap().is_reference());
            });
            assert!(!is_known(first));
        });
        assert!(is_known(first));
        rolled_back(|| {
            let group = catalog::colocation(colocation).unwrap().groups[0].id;
            let before = catalog::group_node(group).unwrap();
            rolled_back(|| {
                let after = node("elsewhere");
                run(&format!("UPDATE shard_ext.placement SET node_id = {after}"));
                assert_eq!(catalog::group_node(group).unwrap(), after);
            });
            assert_eq!(catalog::group_node(group).unwrap(), before);
        });
    }

    #[pg_test]
    fn a_dropped_table_is_forgotten() {
        let id = distribute("dropped", "k", "int");
        let dropped = relid("dropped");
        assert!(is_known(dropped));
        write::delete_table(dropped).unwrap();
        run("DROP TABLE dropped");
        assert!(!is_known(dropped));
        write::delete_colocation(id).unwrap();
        assert!(catalog::colocation(id).is_err());
        let left = Spi::get_one_with_args::<i64>(
            "SELECT count(*) FROM shard_ext.shard_group WHERE colocation_id = $1",
            &[id.into()],
        );
        assert_eq!(left, Ok(Some(0)));
    }

    #[pg_test]
    fn memory_of_old_bounds_is_freed() {
        let id = distribute("often", "k", "int");
        for _ in 0..50 {
            run("UPDATE shard_ext.shard_group SET ordinal = ordinal");
            assert_eq!(catalog::colocation(id).unwrap().groups.len(), 4);
        }
        let contexts = Spi::get_one::<i64>(
            "SELECT count(*) FROM pg_backend_memory_contexts WHERE name = 'shard_ext colocation group'",
        );
        assert!(contexts.unwrap().unwrap() <= 3);
    }

    #[pg_test]
    fn changes_by_hand_are_noticed() {
        distribute("by_hand", "k", "int");
        let by_hand = relid("by_hand");
        assert!(is_known(by_hand));
        run("DELETE FROM shard_ext.distributed_table WHERE relid = 'by_hand'::regclass");
        assert!(!is_known(by_hand));
        assert!(
            catalog::node_named("by_hand_a")
                .unwrap()
                .unwrap()
                .should_have_shards
        );
        run("UPDATE shard_ext.node SET should_have_shards = false");
        assert!(
            !catalog::node_named("by_hand_a")
                .unwrap()
                .unwrap()
                .should_have_shards
        );
    }

    #[pg_test]
    fn a_renamed_server_renames_its_node() {
        let id = node("old_name");
        run("ALTER SERVER old_name RENAME TO \"Neuer Name ü\"");
        assert_eq!(catalog::node(id).unwrap().name, "Neuer Name ü");
        run("ALTER SERVER \"Neuer Name ü\" OPTIONS (host 'here')");
        assert_eq!(catalog::node(id).unwrap().name, "Neuer Name ü");
        run("DROP SERVER \"Neuer Name ü\"");
        assert!(catalog::node(id).is_err());
    }

    #[pg_test]
    #[should_panic(expected = "cannot drop server holds_a because it is a node with shards")]
    fn a_server_with_shards_cannot_be_dropped() {
        distribute("holds", "k", "int");
        run("DROP SERVER holds_a");
    }

    /// A colocation group of one node by range or list.
    fn by_bounds(
        method: Method,
        key_type: &str,
        bounds: Vec<write::NewBounds>,
    ) -> catalog::ColocationId {
        let node = node("bounds_node");
        let key_type = Spi::get_one_with_args::<Oid>("SELECT $1::regtype::oid", &[key_type.into()])
            .unwrap()
            .unwrap();
        // SAFETY: a syscache look-up.
        let collation = unsafe { pg_sys::get_typcollation(key_type) };
        let id = write::insert_colocation(method, 0, key_type, collation).unwrap();
        for (i, bounds) in bounds.into_iter().enumerate() {
            write::insert_shard_group(id, i as i32, bounds, node).unwrap();
        }
        id
    }

    fn key(key_type: &str, text: &str) -> Datum {
        let key_type = Spi::get_one_with_args::<Oid>("SELECT $1::regtype::oid", &[key_type.into()])
            .unwrap()
            .unwrap();
        catalog::parse_bound(key_type, text).unwrap()
    }

    #[pg_test]
    fn dates_go_to_their_range_under_any_date_style() {
        let range = |lower: Option<&str>, upper: Option<&str>| {
            run("SET datestyle = 'German'");
            let text = |bound: Option<&str>| {
                bound.map(|bound| catalog::bound_text(pg_sys::DATEOID, key("date", bound)))
            };
            write::NewBounds::Range {
                lower: text(lower),
                upper: text(upper),
            }
        };
        let id = by_bounds(
            Method::Range,
            "date",
            vec![
                range(Some("01.02.2024"), Some("01.03.2024")),
                range(None, Some("01.02.2024")),
                write::NewBounds::Default,
            ],
        );
        let stored = Spi::get_one::<String>(
            "SELECT lower FROM shard_ext.shard_group WHERE lower IS NOT NULL",
        );
        assert_eq!(stored, Ok(Some("2024-02-01".to_string())));
        run("SET datestyle = 'SQL, MDY'");
        let colocation = catalog::colocation(id).unwrap();
        let group = |day: &str| colocation.group_for(Some(key("date", day)));
        // Groups are in the order of their bounds: unbounded below, February, default.
        assert_eq!(group("2024-01-31"), Some(0));
        assert_eq!(group("2024-02-01"), Some(1));
        assert_eq!(group("2024-02-29"), Some(1));
        assert_eq!(group("2024-03-01"), Some(2));
        assert_eq!(colocation.group_for(None), Some(2));
        let between = colocation.groups_between(
            Some((key("date", "2024-02-10"), true)),
            Some((key("date", "2024-02-20"), true)),
        );
        assert_eq!(between, [1]);
    }

    #[pg_test]
    fn texts_and_enums_go_to_their_list() {
        run("CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy')");
        let list = |values: &[&str], null| write::NewBounds::List {
            values: values.iter().map(|value| value.to_string()).collect(),
            null,
        };
        let id = by_bounds(
            Method::List,
            "mood",
            vec![list(&["happy", "sad"], false), list(&["ok"], true)],
        );
        let colocation = catalog::colocation(id).unwrap();
        assert_eq!(colocation.group_for(Some(key("mood", "sad"))), Some(0));
        assert_eq!(colocation.group_for(Some(key("mood", "happy"))), Some(0));
        assert_eq!(colocation.group_for(Some(key("mood", "ok"))), Some(1));
        assert_eq!(colocation.group_for(None), Some(1));
        assert_eq!(
            colocation.groups_between(Some((key("mood", "ok"), false)), None),
            [0]
        );
        run("ALTER SERVER bounds_node RENAME TO first_bounds_node");
        let id = by_bounds(
            Method::List,
            "text",
            vec![list(&["Ä, \"quoted\"", ""], false), list(&[], true)],
        );
        let colocation = catalog::colocation(id).unwrap();
        assert_eq!(
            colocation.group_for(Some(key("text", "Ä, \"quoted\""))),
            Some(0)
        );
        assert_eq!(colocation.group_for(Some(key("text", ""))), Some(0));
        assert_eq!(colocation.group_for(Some(key("text", "x"))), None);
        assert_eq!(colocation.group_for(None), Some(1));
        let shown = Spi::get_one::<String>(
            "SELECT string_agg(method || ' ' || shard_count, ', ' ORDER BY colocation_id) \
             FROM shard_ext.colocation_groups",
        );
        assert_eq!(shown, Ok(Some("list 2, list 2".to_string())));
    }

    #[pg_test]
    #[should_panic(
        expected = "data type point has no default operator class for access method \"hash\""
    )]
    fn a_type_without_a_hash_is_no_key() {
        catalog::check_key(Method::Hash, pg_sys::POINTOID, pg_sys::InvalidOid)
            .unwrap_or_else(|error| error.raise());
    }

    #[pg_test]
    fn collations_are_found_again_by_name() {
        run("CREATE COLLATION public.\"odd Name\" (provider = icu, locale = 'de')");
        distribute("collated", "k", "text COLLATE public.\"odd Name\"");
        let stored = Spi::get_one::<String>("SELECT key_collation FROM shard_ext.colocation_group");
        assert_eq!(stored, Ok(Some("public.\"odd Name\"".to_string())));
        let collation = Spi::get_one::<Oid>("SELECT 'public.\"odd Name\"'::regcollation::oid")
            .unwrap()
            .unwrap();
        let table = catalog::table(relid("collated")).unwrap().unwrap();
        assert_eq!(table.distribution().unwrap().1.key_collation, collation);
    }
}
