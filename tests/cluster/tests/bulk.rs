//! Bulk loads that do not come to their end: COPY, and INSERT … SELECT that streams from shards to shards. Nothing is
//! kept, nothing runs on, and the session goes on.

use shard_ext_cluster_tests::postgres::{CancelToken, NoTls};
use shard_ext_cluster_tests::*;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::Duration;

/// A cluster with `source`, which has rows, and the empty `target`, whose rows belong elsewhere.
fn cluster_with_rows() -> Cluster {
    let cluster = Cluster::start(2);
    cluster
        .connect()
        .batch_execute(
            "CREATE TABLE source (id int PRIMARY KEY, pad text);
             CREATE TABLE target (id int PRIMARY KEY, pad text);
             SELECT create_distributed_table('source', 'id', shard_count => 8);
             SELECT create_distributed_table('target', 'id', shard_count => 6);
             INSERT INTO source SELECT i, repeat('x', 200) FROM generate_series(1, 60000) i",
        )
        .unwrap();
    cluster
}

/// Streams with little buffered, and slowly enough to be interrupted.
const STREAM: &str = "INSERT INTO target SELECT id + 1, pad || pg_sleep(CASE WHEN id % 4000 = 0 THEN 0.2 ELSE 0 END)::text FROM source";

fn rows(cluster: &Cluster, table: &str) -> i64 {
    one(
        &mut cluster.connect(),
        &format!("SELECT count(*) FROM {table}"),
    )
}

/// Sessions of the coordinator on a worker that are in the middle of something.
fn busy_on(worker: &Server) -> i64 {
    one(
        &mut worker.connect(),
        "SELECT count(*) FROM pg_stat_activity WHERE state <> 'idle' AND backend_type = 'client backend'
         AND pid <> pg_backend_pid()",
    )
}

fn copying_on(worker: &Server) -> i64 {
    one(
        &mut worker.connect(),
        "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%FROM STDIN%' AND pid <> pg_backend_pid()",
    )
}

/// After a load that failed: nothing of it is there, and the same session loads again.
fn nothing_is_left(cluster: &Cluster, client: &mut Client) {
    wait_for("the workers to stop", || {
        cluster.workers.iter().all(|worker| busy_on(worker) == 0)
    });
    assert_eq!(rows(cluster, "target"), 0);
    assert_eq!(cluster.prepared(), 0);
    let mut copy = client.copy_in("COPY target FROM STDIN").unwrap();
    copy.write_all(b"1\tafter\n2\tafter\n").unwrap();
    assert_eq!(copy.finish().unwrap(), 2);
    assert_eq!(
        client
            .execute(
                "INSERT INTO target SELECT id + 100000, pad FROM source",
                &[]
            )
            .unwrap(),
        60000
    );
    assert_eq!(rows(cluster, "target"), 60002);
}

/// A load that fails when it is interrupted, with the SQLSTATE of that. The flag tells that it was.
type Load = fn(&mut Client, &AtomicBool) -> String;

/// COPY; a server that has failed takes what the client sends until the client asks.
fn copy(client: &mut Client, interrupted: &AtomicBool) -> String {
    let mut copy = client.copy_in("COPY target FROM STDIN").unwrap();
    let pad = "y".repeat(200);
    for id in 0.. {
        copy.write_all(format!("{id}\t{pad}\n").as_bytes()).unwrap();
        if interrupted.load(Ordering::Relaxed) {
            break;
        }
    }
    sqlstate(copy.finish())
}

/// Rows that stream from shards to shards.
fn stream(client: &mut Client, _interrupted: &AtomicBool) -> String {
    client
        .batch_execute("SET shard_ext.copy_buffer_size = '256kB'")
        .unwrap();
    sqlstate(client.execute(STREAM, &[]))
}

/// Runs the load until a worker copies, then interrupts it; answers the error and the session.
fn interrupted(
    cluster: &Cluster,
    load: Load,
    interrupt: impl FnOnce(CancelToken),
) -> (String, Client) {
    let mut client = cluster.connect();
    let token = client.cancel_token();
    let flag = Arc::new(AtomicBool::new(false));
    let told = flag.clone();
    let session = std::thread::spawn(move || (load(&mut client, &told), client));
    wait_for("the workers to copy", || {
        cluster.workers.iter().all(|worker| copying_on(worker) > 0)
    });
    interrupt(token);
    flag.store(true, Ordering::Relaxed);
    session.join().unwrap()
}

fn a_worker_dies(load: Load) {
    let cluster = cluster_with_rows();
    let worker = &cluster.workers[1];
    let (state, mut client) = interrupted(&cluster, load, |_| worker.stop(Stop::Kill));
    assert!(state.starts_with("08"), "{state}");
    worker.start();
    nothing_is_left(&cluster, &mut client);
}

fn cancelled(load: Load) -> (Cluster, Client) {
    let cluster = cluster_with_rows();
    let (state, mut client) = interrupted(&cluster, load, |token| {
        token.cancel_query(NoTls).unwrap();
        // the signal arrives on its own
        std::thread::sleep(Duration::from_millis(500));
    });
    assert_eq!(state, "57014");
    nothing_is_left(&cluster, &mut client);
    (cluster, client)
}

#[test]
fn a_worker_that_dies_during_copy() {
    a_worker_dies(copy);
}

#[test]
fn copy_is_cancelled() {
    cancelled(copy);
}

#[test]
fn a_client_that_goes_away_during_copy() {
    let cluster = cluster_with_rows();
    let mut psql = Command::new(format!("{}/psql", std::env::var("PG_BIN").unwrap()))
        .args(["-X", "-h", "127.0.0.1", "-U", "postgres", "-p"])
        .arg(cluster.coordinator.port.to_string())
        .args(["-c", "COPY target FROM STDIN", "postgres"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = psql.stdin.take().unwrap();
    let pad = "y".repeat(200);
    for id in 0..200_000 {
        writeln!(input, "{id}\t{pad}").unwrap();
    }
    wait_for("the workers to copy", || {
        copying_on(&cluster.workers[0]) > 0
    });
    psql.kill().unwrap();
    psql.wait().unwrap();
    nothing_is_left(&cluster, &mut cluster.connect());
}

#[test]
fn a_worker_that_dies_during_insert_select() {
    a_worker_dies(stream);
}

#[test]
fn insert_select_is_cancelled() {
    let (cluster, mut client) = cancelled(stream);
    // and by the clock, in a transaction that goes on from a savepoint
    client
        .batch_execute(
            "TRUNCATE target; BEGIN; INSERT INTO target VALUES (1, 'kept'); SAVEPOINT s;
             SET LOCAL statement_timeout = '500ms'",
        )
        .unwrap();
    assert_eq!(sqlstate(client.execute(STREAM, &[])), "57014");
    client
        .batch_execute("ROLLBACK TO s; INSERT INTO target VALUES (2, 'kept'); COMMIT")
        .unwrap();
    assert_eq!(rows(&cluster, "target"), 2);
}
