//! Tests inside a server: its own databases are the nodes, by loopback connections, which see only what is committed.

use pgrx::prelude::*;

#[pg_schema]
mod tests {
    use super::*;
    use crate::catalog::{write, NodeId};
    use crate::error::Error;
    use crate::remote::{
        execute, execute_all, query, Access, CopyIn, Format, Gather, Params, Request, Statement,
    };
    use std::rc::Rc;

    /// Two nodes, both this database, so that the session has two connections.
    fn nodes() -> [NodeId; 2] {
        ["loopback_1", "loopback_2"].map(|name| {
            let setting = |name: &str| {
                Spi::get_one::<String>(&format!(
                    "SELECT split_part(current_setting('{name}'), ',', 1)"
                ))
                .expect("a setting")
                .unwrap_or_default()
            };
            let (host, port) = (setting("unix_socket_directories"), setting("port"));
            Spi::run(&format!(
                "CREATE SERVER {name} FOREIGN DATA WRAPPER shard_ext \
                    OPTIONS (host '{host}', port '{port}', dbname '{}')",
                Spi::get_one::<String>("SELECT current_database()::text")
                    .expect("a name")
                    .unwrap_or_default()
            ))
            .expect("a server");
            write::insert_node(&write::NewNode {
                server_name: name,
                is_coordinator: false,
                same_collation: true,
                version_num: 150000,
                system_identifier: None,
                database: pg_sys::Oid::from(1),
                lacking: Default::default(),
            })
            .expect("a node")
        })
    }

    fn request(node: NodeId, sql: &str, access: Access) -> Request {
        Request {
            node,
            groups: Rc::from([]),
            access,
            statement: Statement {
                sql: sql.into(),
                params: Rc::default(),
                results: Format::Text,
                named: true,
            },
            sole: access == Access::Read,
            bulk: false,
            as_others: false,
        }
    }

    fn read(node: NodeId, sql: &str) -> Request {
        request(node, sql, Access::Read)
    }

    fn one(node: NodeId, sql: &str) -> String {
        let rows = query(node, sql, &[]).expect(sql);
        rows[0][0].clone().unwrap_or_default()
    }

    fn failure<T>(result: Result<T, Error>) -> Error {
        match result {
            Ok(_) => panic!("an error was expected"),
            Err(error) => error,
        }
    }

    /// Rows and the last value of one request.
    fn count(gather: &mut Gather, request: usize) -> (u64, String) {
        let (mut rows, mut last) = (0, String::new());
        while let Some(row) = gather.next_from(request).expect("a row") {
            rows += 1;
            last = String::from_utf8_lossy(row.get(0).unwrap_or_default()).into_owned();
        }
        (rows, last)
    }

    #[pg_test]
    fn rows_of_all_requests_come() {
        let [a, b] = nodes();
        let requests = [a, b, a, b].map(|n| read(n, "SELECT generate_series(1, 10000), NULL"));
        let mut gather = Gather::start(requests.to_vec()).unwrap();
        let mut rows = [0; 4];
        while let Some((request, row)) = gather.next().unwrap() {
            assert_eq!((row.len(), row.get(1), row.get(2)), (2, None, None));
            rows[request] += 1;
        }
        assert_eq!(rows, [10000; 4]);
        assert_eq!([0, 1, 2, 3].map(|i| gather.affected(i)), [10000; 4]);
        assert_eq!(gather.received(3).rows, 10000);
    }

    #[pg_test]
    fn rows_that_were_read_ahead_are_kept_beyond_work_mem() {
        let [a, b] = nodes();
        Spi::run("SET LOCAL work_mem = '64kB'").unwrap();
        let mut gather = Gather::start(vec![
            read(
                a,
                "SELECT repeat(g::text, 20) FROM generate_series(1, 20000) g",
            ),
            read(a, "SELECT generate_series(1, 20001)"),
            read(b, "SELECT 'b'"),
        ])
        .unwrap();
        assert_eq!(count(&mut gather, 2), (1, "b".to_string()));
        assert_eq!(count(&mut gather, 1), (20001, "20001".to_string()));
        assert_eq!(count(&mut gather, 0), (20000, "20000".repeat(20)));
    }

    #[pg_test]
    fn an_open_scan_does_not_keep_others_from_its_connection() {
        let [a, _] = nodes();
        let sql = "SELECT generate_series(1, 100000)";
        let mut outer = Gather::start(vec![read(a, sql)]).unwrap();
        assert!(outer.next().unwrap().is_some());
        assert_eq!(one(a, "SELECT 'inner'"), "inner");
        execute(a, "CREATE TEMP TABLE made_meanwhile()").unwrap();
        assert_eq!(count(&mut outer, 0), (99999, "100000".to_string()));
    }

    /// A read of many rows in the transaction: it waits until the node has begun.
    fn bulk(node: NodeId) -> Request {
        let mut request = read(node, "SELECT generate_series(1, 1000)");
        (request.sole, request.bulk) = (false, true);
        request
    }

    #[pg_test]
    fn what_waits_to_be_sent_outlives_others_that_are_abandoned() {
        let [a, b] = nodes();
        let mut outer = Gather::start(vec![bulk(a)]).unwrap();
        drop(Gather::start(vec![read(a, "SELECT 'inner'")]).unwrap());
        assert_eq!(one(b, "SELECT 'other'"), "other");
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert_eq!(one(a, "SELECT 'inner'"), "inner");
        assert_eq!(count(&mut outer, 0), (1000, "1000".to_string()));
    }

    #[pg_test]
    fn what_waits_to_be_sent_outlives_a_subtransaction() {
        let [a, _] = nodes();
        let mut outer = Gather::start(vec![bulk(a)]).unwrap();
        // SAFETY: as PL/pgSQL does for a block with an EXCEPTION clause.
        unsafe {
            let (owner, context) = (pg_sys::CurrentResourceOwner, pg_sys::CurrentMemoryContext);
            pg_sys::BeginInternalSubTransaction(std::ptr::null());
            let inner = Gather::start(vec![bulk(a)]).unwrap();
            pg_sys::RollbackAndReleaseCurrentSubTransaction();
            drop(inner);
            pg_sys::MemoryContextSwitchTo(context);
            pg_sys::CurrentResourceOwner = owner;
        }
        assert_eq!(one(a, "SELECT 'next'"), "next");
        assert_eq!(count(&mut outer, 0), (1000, "1000".to_string()));
    }

    #[pg_test]
    fn an_abandoned_request_leaves_a_usable_connection() {
        let [a, b] = nodes();
        let pid = one(a, "SELECT pg_backend_pid()");
        let sql = "SELECT generate_series(1, 100000000)";
        let mut gather = Gather::start(vec![read(a, sql), read(b, sql)]).unwrap();
        assert!(gather.next().unwrap().is_some());
        drop(gather);
        assert_eq!(one(a, "SELECT pg_backend_pid()"), pid);
    }

    #[pg_test]
    fn errors_arrive_whole() {
        let [a, _] = nodes();
        let sql = "CREATE TEMP TABLE t (a int CONSTRAINT positive CHECK (a > 0))";
        execute(a, sql).unwrap();
        let error = failure(execute(a, "INSERT INTO t VALUES (-1)"));
        let fields = error.fields();
        assert_eq!(fields.sqlstate, *b"23514");
        assert_eq!(fields.constraint.as_deref(), Some("positive"));
        assert_eq!(fields.table.as_deref(), Some("t"));
        assert_eq!(
            fields.context.as_deref(),
            Some("node \"loopback_1\", remote SQL: INSERT INTO t VALUES (-1)")
        );
    }

    #[pg_test]
    fn one_requests_error_ends_the_others() {
        let [a, b] = nodes();
        let mut gather = Gather::start(vec![
            read(a, "SELECT 1/0"),
            read(a, "SELECT 1"),
            read(b, "SELECT 1"),
        ])
        .unwrap();
        let error = loop {
            match gather.next() {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the error is missing"),
                Err(error) => break error,
            }
        };
        assert_eq!(error.fields().sqlstate, *b"22012");
        drop(gather);
        assert_eq!(one(a, "SELECT 'still here'"), "still here");
    }

    #[pg_test]
    fn statements_are_prepared_once() {
        let [a, _] = nodes();
        let mut statement = read(a, "SELECT $1::int + 1");
        for i in 0..3 {
            statement.statement.params = Rc::new(Params {
                types: Vec::new(),
                values: vec![Some(i.to_string().into_bytes())],
                formats: Vec::new(),
            });
            let mut gather = Gather::start(vec![statement.clone()]).unwrap();
            assert_eq!(count(&mut gather, 0), (1, (i + 1).to_string()));
        }
        let prepared = "SELECT count(*) FROM pg_prepared_statements";
        assert_eq!(one(a, prepared), "1");
        // lost, as behind a pooler: it is prepared again
        let mut gather = Gather::start(vec![read(a, "DEALLOCATE ALL")]).unwrap();
        assert!(gather.next().unwrap().is_none());
        let mut gather = Gather::start(vec![statement.clone()]).unwrap();
        assert_eq!(count(&mut gather, 0).0, 1);
    }

    #[pg_test]
    fn settings_that_change_results_follow() {
        let [a, _] = nodes();
        let sql = "SELECT '2020-07-01 12:00+00'::timestamptz::text";
        Spi::run("SET LOCAL TimeZone = 'Asia/Tokyo'").unwrap();
        assert_eq!(one(a, sql), "2020-07-01 21:00:00+09");
        Spi::run("SET LOCAL TimeZone = 'UTC'; SET LOCAL DateStyle = 'German'").unwrap();
        assert_eq!(one(a, sql), "01.07.2020 12:00:00 UTC");
    }

    #[pg_test]
    fn savepoints_are_followed() {
        let [a, _] = nodes();
        execute(a, "CREATE TEMP TABLE t (a int)").unwrap();
        Spi::run(
            "DO $$ BEGIN PERFORM 1; BEGIN RAISE EXCEPTION 'x'; EXCEPTION WHEN others THEN END; END $$",
        )
        .unwrap();
        // SAFETY: as PL/pgSQL does for a block with an EXCEPTION clause.
        unsafe {
            let memory = pg_sys::CurrentMemoryContext;
            let owner = pg_sys::CurrentResourceOwner;
            pg_sys::BeginInternalSubTransaction(std::ptr::null());
            execute(a, "INSERT INTO t VALUES (1)").unwrap();
            failure(execute(a, "SELECT 1/0"));
            pg_sys::RollbackAndReleaseCurrentSubTransaction();
            pg_sys::MemoryContextSwitchTo(memory);
            pg_sys::CurrentResourceOwner = owner;
        }
        assert_eq!(execute(a, "INSERT INTO t VALUES (2)").unwrap(), 1);
        assert_eq!(one(a, "SELECT string_agg(a::text, ',') FROM t"), "2");
    }

    #[pg_test]
    fn work_is_done_in_order_on_each_node() {
        let [a, b] = nodes();
        let work: Vec<(NodeId, String)> = [
            (
                a,
                "CREATE TEMP TABLE t (a int); INSERT INTO t VALUES (1), (2)",
            ),
            (b, "SELECT 1"),
            (a, "UPDATE t SET a = a + 1 WHERE a = 2; DELETE FROM t"),
            (b, "SELECT 1 UNION SELECT 2"),
        ]
        .map(|(node, sql)| (node, sql.to_string()))
        .to_vec();
        assert_eq!(execute_all(&work).unwrap(), [2, 1, 2, 2]);
    }

    #[pg_test]
    fn streams_to_one_node_take_turns() {
        let [a, _] = nodes();
        execute(
            a,
            "CREATE TEMP TABLE t (a int); CREATE TEMP TABLE u (a int)",
        )
        .unwrap();
        let mut t = CopyIn::start(a, Rc::from([]), "COPY t FROM STDIN").unwrap();
        let mut u = CopyIn::start(a, Rc::from([]), "COPY u FROM STDIN").unwrap();
        for i in 0..100_000 {
            t.write(format!("{i}\n").as_bytes()).unwrap();
            u.write(b"1\n").unwrap();
        }
        assert_eq!(t.finish().unwrap(), 100_000);
        assert_eq!(u.finish().unwrap(), 100_000);
        assert_eq!(one(a, "SELECT count(DISTINCT a) FROM t"), "100000");
    }

    #[pg_test]
    fn a_connection_that_dies_while_idle_is_replaced() {
        let [a, b] = nodes();
        let pid = one(a, "SELECT pg_backend_pid()");
        let sql = format!("SELECT pg_terminate_backend({pid}, 5000)");
        assert_eq!(one(b, &sql), "t");
        assert_ne!(one(a, "SELECT pg_backend_pid()"), pid);
    }

    #[pg_test]
    fn a_connection_that_dies_in_a_transaction_fails_it() {
        let [a, b] = nodes();
        execute(a, "CREATE TEMP TABLE t (a int)").unwrap();
        let pid = one(a, "SELECT pg_backend_pid()");
        let sql = format!("SELECT pg_terminate_backend({pid}, 5000)");
        assert_eq!(one(b, &sql), "t");
        assert_eq!(failure(execute(a, "SELECT 1")).fields().sqlstate, *b"08006");
        // and for good
        assert_eq!(failure(execute(a, "SELECT 1")).fields().sqlstate, *b"08006");
    }
}
