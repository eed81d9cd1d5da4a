//! Rows that move to other shards while others change them: no change is lost, and none is made twice.

use shard_ext_cluster_tests::*;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::SeqCst};
use std::time::{Duration, Instant};

const ROWS: i32 = 10;

/// A table whose rows are named by `id`; each move adds to the key.
fn cluster_with_rows() -> Cluster {
    let cluster = Cluster::start(2);
    cluster
        .connect()
        .batch_execute(&format!(
            "CREATE TABLE rows (k int PRIMARY KEY, id int, v int);
             CREATE TABLE steps (s int PRIMARY KEY, id int);
             SELECT create_distributed_table('rows', 'k', shard_count => 8);
             SELECT create_distributed_table('steps', 's', shard_count => 8);
             INSERT INTO rows SELECT i, i, 0 FROM generate_series(0, {ROWS} - 1) i;
             INSERT INTO steps SELECT 100 + i, i FROM generate_series(0, {ROWS} - 1) i;"
        ))
        .unwrap();
    cluster
}

const MOVE: &str = "UPDATE rows SET k = k + 100 WHERE id = $1";

/// Ways to add one to a row, wherever it is.
const ADDS: [&str; 5] = [
    "UPDATE rows SET v = v + 1 WHERE id = $1",
    "UPDATE rows SET v = v + 1 + (random() * 0)::int WHERE id = $1",
    "UPDATE rows SET v = v + 1 FROM steps WHERE steps.id = rows.id AND steps.id = $1",
    "MERGE INTO rows USING (SELECT * FROM steps WHERE id = $1) s ON s.id = rows.id WHEN MATCHED THEN UPDATE SET v = rows.v + 1",
    "UPDATE rows SET v = v + 1 WHERE ctid = (SELECT ctid FROM rows WHERE id = $1 LIMIT 1 FOR UPDATE)",
];

/// Runs a statement about one row after the other until it is told to stop; answers how often it succeeded. It may fail
/// because of concurrent updates only.
fn run(mut client: Client, sql: &str, stop: &AtomicBool, first: i32) -> i64 {
    let mut succeeded = 0;
    let mut id = first;
    while !stop.load(SeqCst) {
        id = (id * 7 + 3) % ROWS;
        match client.execute(sql, &[&id]) {
            Ok(_) => succeeded += 1,
            Err(error) => {
                let state = error.code().map(|code| code.code().to_owned());
                assert_eq!(
                    state.as_deref(),
                    Some("40001"),
                    "{sql}: {}",
                    describe(&error)
                );
            }
        }
    }
    succeeded
}

#[test]
fn every_change_that_succeeded_is_in_the_rows() {
    let cluster = cluster_with_rows();
    let stop = AtomicBool::new(false);
    let (moves, adds) = (AtomicI64::new(0), AtomicI64::new(0));
    std::thread::scope(|scope| {
        for first in 0..3 {
            let client = cluster.connect();
            scope.spawn({
                let (stop, moves) = (&stop, &moves);
                move || moves.fetch_add(run(client, MOVE, stop, first), SeqCst)
            });
        }
        let levels = ["read committed", "repeatable read"];
        for (number, (sql, level)) in ADDS
            .iter()
            .map(|sql| (sql, levels[0]))
            .chain([(&ADDS[0], levels[1]), (&ADDS[3], levels[1])])
            .enumerate()
        {
            let mut client = cluster.connect();
            client
                .batch_execute(&format!("SET default_transaction_isolation = '{level}'"))
                .unwrap();
            scope.spawn({
                let (stop, adds) = (&stop, &adds);
                move || {
                    let succeeded = run(client, sql, stop, number as i32);
                    assert!(succeeded > 0, "{sql} never succeeded");
                    adds.fetch_add(succeeded, SeqCst)
                }
            });
        }
        std::thread::sleep(Duration::from_secs(5));
        stop.store(true, SeqCst);
    });
    let mut client = cluster.connect();
    let sum: i64 = one(&mut client, "SELECT sum(v) FROM rows");
    assert_eq!(sum, adds.load(SeqCst));
    assert!(moves.load(SeqCst) > 0);
    println!("{} moves, {} changes", moves.load(SeqCst), sum);
}

const MOVE_ALL: &str = "UPDATE rows SET k = k + 101";
const ADD_TO_ALL: &str = "UPDATE rows SET v = v + 1";

/// Commits a move of all rows that reaches a crash point; answers whether the client heard that it succeeded.
fn move_all(client: &mut Client, crash_point: &str) -> bool {
    let sql = format!("BEGIN; {MOVE_ALL}; SET LOCAL shard_ext.crash_point = '{crash_point}'");
    client.batch_execute(&sql).unwrap();
    client.batch_execute("COMMIT").is_ok()
}

/// A statement over all shards changes all rows or fails, and succeeds in the end.
fn all_rows_are_found(cluster: &Cluster) {
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut states = Vec::new();
    loop {
        let result = match cluster
            .coordinator
            .config("postgres", "postgres")
            .connect(postgres::NoTls)
        {
            Ok(mut client) => client.execute(ADD_TO_ALL, &[]),
            Err(error) => Err(error),
        };
        match result {
            Ok(changed) => {
                assert_eq!(changed, ROWS as u64, "after {states:?}");
                return;
            }
            Err(error) => states.push(error.code().map(|code| code.code().to_owned())),
        }
        assert!(Instant::now() < deadline, "{states:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The same again, with nothing in the way.
fn nothing_is_left(cluster: &Cluster) {
    cluster.wait_until_recovered();
    let mut client = cluster.connect();
    let started = Instant::now();
    assert_eq!(client.execute(ADD_TO_ALL, &[]).unwrap(), ROWS as u64);
    assert!(started.elapsed() < Duration::from_secs(2));
}

#[test]
fn a_move_that_fails_leaves_nothing_in_the_way() {
    let cluster = cluster_with_rows();
    for point in ["before_prepare:error", "after_prepare:error"] {
        assert!(!move_all(&mut cluster.connect(), point));
        nothing_is_left(&cluster);
    }
}

#[test]
fn a_session_that_ends_while_it_moves_rows_leaves_nothing_in_the_way() {
    let cluster = cluster_with_rows();
    for point in ["after_prepare:sleep:1000", "after_local_commit:sleep:1000"] {
        let mut client = cluster.connect();
        let pid: i32 = one(&mut client, "SELECT pg_backend_pid()");
        let mover = std::thread::spawn(move || move_all(&mut client, point));
        wait_for("the moves to be prepared", || cluster.prepared() == 2);
        assert!(one::<bool>(
            &mut cluster.connect(),
            &format!("SELECT pg_terminate_backend({pid})")
        ));
        all_rows_are_found(&cluster);
        mover.join().unwrap();
        nothing_is_left(&cluster);
    }
}

#[test]
fn rows_on_the_way_to_a_node_that_is_lost_are_not_missed() {
    let cluster = cluster_with_rows();
    for lost in &cluster.workers {
        let mut client = cluster.connect();
        let mover =
            std::thread::spawn(move || move_all(&mut client, "after_local_commit:sleep:1000"));
        wait_for("the moves to be prepared", || cluster.prepared() == 2);
        cluster.wait_until_decided();
        lost.stop(Stop::Kill);
        assert!(mover.join().unwrap());
        lost.start();
        all_rows_are_found(&cluster);
        nothing_is_left(&cluster);
    }
}

#[test]
fn rows_on_the_way_when_the_coordinator_dies_are_not_missed() {
    for point in [
        "after_prepare",
        "after_local_commit",
        "after_first_commit_prepared",
    ] {
        let cluster = cluster_with_rows();
        assert!(!move_all(&mut cluster.connect(), point));
        all_rows_are_found(&cluster);
        nothing_is_left(&cluster);
    }
}
