//! Joins that move rows between nodes, and what ends them early: the error is clear, no node keeps tables, locks or
//! transactions, and the session goes on.

use shard_ext_cluster_tests::*;
use std::time::{Duration, Instant};

/// Rows without end go from one table to the shards of another.
const ENDLESS: &str =
    "SELECT count(*) FROM (SELECT (a.id * 31 + g * 17 + h * 7) % 1000000 AS v FROM accounts a, generate_series(1, 10000) g,
                              generate_series(1, 10000) h) endless
     JOIN accounts b ON endless.v = b.id";

/// The same join with an end.
const SHORT: &str =
    "SELECT count(*) FROM (SELECT a.id + g AS v FROM accounts a, generate_series(1, 10) g) q JOIN accounts b ON q.v = b.id";

/// What `SHORT` counts.
const SHORT_ROWS: i64 = 945;

fn mover(cluster: &Cluster) -> Client {
    let mut client = cluster.connect();
    client
        .batch_execute("SET shard_ext.join_strategy = repartition")
        .unwrap();
    assert_eq!(one::<i64>(&mut client, SHORT), SHORT_ROWS);
    client
}

/// Runs `ENDLESS` and answers when every node is at it, as `at_work` counts.
fn start_moving(
    cluster: &Cluster,
    mut client: Client,
    at_work: fn(&Server) -> i64,
) -> std::thread::JoinHandle<(String, Client)> {
    let moving = std::thread::spawn(move || {
        let result = client.query(ENDLESS, &[]);
        (sqlstate(result), client)
    });
    wait_for("rows to be moved", || {
        cluster.workers.iter().all(|worker| at_work(worker) > 0)
    });
    moving
}

/// COPY commands that have stored rows on a worker.
fn arriving_on(worker: &Server) -> i64 {
    one(
        &mut worker.connect(),
        "SELECT count(*) FROM pg_stat_progress_copy WHERE tuples_processed > 0",
    )
}

/// Statements that read the rows on a worker. Where a transaction has written, its connection reads them to their end first.
fn read_on(worker: &Server) -> i64 {
    one(
        &mut worker.connect(),
        "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%endless%' AND pid <> pg_backend_pid()",
    )
}

/// Waits until a worker has no trace of a move.
fn wait_until_clean(worker: &Server) {
    wait_for(
        &format!("{} to keep nothing of the move", worker.name),
        || {
            one::<i64>(
                &mut worker.connect(),
                "SELECT (SELECT count(*) FROM pg_class WHERE relname LIKE 'shard\\_ext\\_move%')
                  + (SELECT count(*) FROM pg_prepared_xacts)
                  + (SELECT count(*) FROM pg_locks WHERE pid <> pg_backend_pid() AND locktype = 'relation')
                  + (SELECT count(*) FROM pg_stat_activity WHERE pid <> pg_backend_pid()
                     AND backend_type = 'client backend' AND state <> 'idle')",
            ) == 0
        },
    );
}

fn all_clean(cluster: &Cluster) {
    for worker in &cluster.workers {
        wait_until_clean(worker);
    }
}

#[test]
fn cancel_ends_a_move() {
    let cluster = Cluster::with_accounts(2);
    let client = mover(&cluster);
    let token = client.cancel_token();
    let moving = start_moving(&cluster, client, arriving_on);
    let asked = Instant::now();
    token.cancel_query(postgres::NoTls).unwrap();
    let (state, mut client) = moving.join().unwrap();
    assert_eq!(state, "57014");
    assert!(
        asked.elapsed() < Duration::from_secs(5),
        "cancelling took {:?}",
        asked.elapsed()
    );
    all_clean(&cluster);
    assert_eq!(one::<i64>(&mut client, SHORT), SHORT_ROWS);
    all_clean(&cluster);
}

#[test]
fn statement_timeout_ends_a_move_and_a_savepoint_saves_its_transaction() {
    let cluster = Cluster::with_accounts(2);
    let (from, to) = cluster.accounts_on_two_workers();
    let mut client = mover(&cluster);
    begin_transfer(&mut client, from, to, 10);
    client
        .batch_execute("SAVEPOINT s; SET LOCAL statement_timeout = '3s'")
        .unwrap();
    let moving = start_moving(&cluster, client, read_on);
    let (state, mut client) = moving.join().unwrap();
    assert_eq!(state, "57014");
    client.batch_execute("ROLLBACK TO s").unwrap();
    assert_eq!(one::<i64>(&mut client, SHORT), SHORT_ROWS);
    client.batch_execute("COMMIT").unwrap();
    all_clean(&cluster);
    assert_eq!(balance(&mut client, from), 90);
    assert_eq!(balance(&mut client, to), 110);
    assert_eq!(one::<i64>(&mut client, SHORT), SHORT_ROWS);
}

#[test]
fn a_worker_that_dies_during_a_move_fails_the_statement() {
    let cluster = Cluster::with_accounts(2);
    let moving = start_moving(&cluster, mover(&cluster), arriving_on);
    cluster.workers[1].stop(Stop::Kill);
    let (state, mut client) = moving.join().unwrap();
    assert!(state.starts_with("08"), "{state}");
    wait_until_clean(&cluster.workers[0]);
    // still away: an error again, and nothing is left on the other one
    assert!(sqlstate(client.query(SHORT, &[])).starts_with("08"));
    wait_until_clean(&cluster.workers[0]);
    cluster.workers[1].start();
    cluster.workers[1].connect();
    assert_eq!(one::<i64>(&mut client, SHORT), SHORT_ROWS);
    all_clean(&cluster);
}

#[test]
fn a_worker_that_dies_during_a_move_aborts_the_transaction() {
    let cluster = Cluster::with_accounts(2);
    let (from, to) = cluster.accounts_on_two_workers();
    let mut client = mover(&cluster);
    begin_transfer(&mut client, from, to, 10);
    let moving = start_moving(&cluster, client, read_on);
    cluster.workers[0].stop(Stop::Kill);
    let (state, mut client) = moving.join().unwrap();
    assert!(state.starts_with("08"), "{state}");
    client.batch_execute("ROLLBACK").unwrap();
    cluster.workers[0].start();
    cluster.workers[0].connect();
    assert_eq!(cluster.total(), 10_000);
    assert_eq!(one::<i64>(&mut client, SHORT), SHORT_ROWS);
    all_clean(&cluster);
}

#[test]
fn a_session_that_ends_during_a_move_leaves_nothing_behind() {
    let cluster = Cluster::with_accounts(2);
    let (from, to) = cluster.accounts_on_two_workers();
    let mut client = mover(&cluster);
    begin_transfer(&mut client, from, to, 10);
    let moving = start_moving(&cluster, client, read_on);
    let ended: bool = one(
        &mut cluster.connect(),
        "SELECT bool_and(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query LIKE '%endless%' AND pid <> pg_backend_pid()",
    );
    assert!(ended);
    let (state, _) = moving.join().unwrap();
    assert!(state == "57P01" || state.is_empty(), "{state}");
    all_clean(&cluster);
    assert_eq!(cluster.total(), 10_000);
}
