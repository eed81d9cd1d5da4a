//! Workers that are away, come back, or are told to stop: errors are clear, the rest goes on, nothing runs on.

use shard_ext_cluster_tests::*;
use std::time::{Duration, Instant};

/// Statements that run on a worker for a session of the coordinator.
fn active_on(worker: &Server) -> i64 {
    one(
        &mut worker.connect(),
        "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND backend_type = 'client backend'
         AND pid <> pg_backend_pid()",
    )
}

/// A query that keeps every shard busy for a long time: pg_sleep is volatile, so the work is a big cross join.
const LONG: &str =
    "SELECT count(*) FROM accounts a JOIN accounts b USING (id), generate_series(1, 100000000) g
                    WHERE (a.balance + g) % 1000 = 1";

#[test]
fn a_worker_that_is_down_gives_a_clear_error_and_the_rest_works() {
    let cluster = Cluster::with_accounts(2);
    let (alive, dead) = cluster.accounts_on_two_workers();
    let mut client = cluster.connect();
    cluster.workers[1].stop(Stop::Fast);
    let error = client
        .query("SELECT sum(balance) FROM accounts", &[])
        .expect_err("half of the rows are away");
    let text = describe(&error);
    assert!(text.starts_with("08"), "{text}");
    assert!(text.contains("worker_2"), "the node is named: {text}");
    assert_eq!(balance(&mut client, alive), 100);
    let error = client.query(&format!("SELECT * FROM accounts WHERE id = {dead}"), &[]);
    assert!(sqlstate(error).starts_with("08"));
    // and a new session sees the same
    let mut other = cluster.connect();
    assert_eq!(balance(&mut other, alive), 100);
    other
        .batch_execute(&format!(
            "UPDATE accounts SET balance = 101 WHERE id = {alive}"
        ))
        .unwrap();
}

#[test]
fn a_restarted_worker_is_connected_again() {
    let cluster = Cluster::with_accounts(2);
    let mut client = cluster.connect();
    assert_eq!(
        one::<i64>(&mut client, "SELECT sum(balance) FROM accounts"),
        10_000
    );
    cluster.workers[1].stop(Stop::Fast);
    cluster.workers[1].start();
    // the idle connection is dead, but nothing was lost with it: the session just goes on
    assert_eq!(
        one::<i64>(&mut client, "SELECT sum(balance) FROM accounts"),
        10_000
    );
    cluster.workers[1].stop(Stop::Kill);
    assert!(client
        .query("SELECT sum(balance) FROM accounts", &[])
        .is_err());
    cluster.workers[1].start();
    cluster.workers[1].connect();
    assert_eq!(
        one::<i64>(&mut client, "SELECT sum(balance) FROM accounts"),
        10_000
    );
}

#[test]
fn a_worker_that_dies_inside_a_transaction_aborts_it() {
    let cluster = Cluster::with_accounts(2);
    let (one_account, other) = cluster.accounts_on_two_workers();
    let mut client = cluster.connect();
    begin_transfer(&mut client, one_account, other, 10);
    cluster.workers[0].stop(Stop::Kill);
    let error = client.batch_execute(&format!(
        "UPDATE accounts SET balance = 1 WHERE id = {one_account}"
    ));
    assert!(sqlstate(error).starts_with("08"));
    client.batch_execute("ROLLBACK").unwrap();
    cluster.workers[0].start();
    cluster.workers[0].connect();
    assert_eq!(cluster.total(), 10_000);
}

#[test]
fn cancel_stops_the_workers() {
    let cluster = Cluster::with_accounts(2);
    let mut client = cluster.connect();
    let token = client.cancel_token();
    let query = std::thread::spawn(move || {
        let result = client.query(LONG, &[]);
        (sqlstate(result), client)
    });
    wait_for("both workers to be busy", || {
        cluster.workers.iter().all(|w| active_on(w) > 0)
    });
    let asked = Instant::now();
    token.cancel_query(postgres::NoTls).unwrap();
    let (state, mut client) = query.join().unwrap();
    assert_eq!(state, "57014");
    assert!(
        asked.elapsed() < Duration::from_secs(5),
        "cancelling took {:?}",
        asked.elapsed()
    );
    wait_for("the workers to stop", || {
        cluster.workers.iter().all(|w| active_on(w) == 0)
    });
    assert_eq!(
        one::<i64>(&mut client, "SELECT sum(balance) FROM accounts"),
        10_000
    );
}

#[test]
fn statement_timeout_stops_the_workers() {
    let cluster = Cluster::with_accounts(2);
    let mut client = cluster.connect();
    client
        .batch_execute("SET statement_timeout = '1s'")
        .unwrap();
    assert_eq!(sqlstate(client.query(LONG, &[])), "57014");
    wait_for("the workers to stop", || {
        cluster.workers.iter().all(|w| active_on(w) == 0)
    });
    client.batch_execute("RESET statement_timeout").unwrap();
    assert_eq!(
        one::<i64>(&mut client, "SELECT sum(balance) FROM accounts"),
        10_000
    );
}

/// Workers that take long to commit what they get, and end that early, one way or another, when they are cancelled.
fn that_commits_slowly(on_cancel: &str) -> Cluster {
    let cluster = Cluster::with_accounts(2);
    for worker in &cluster.workers {
        worker
            .connect()
            .batch_execute(&format!(
                "CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                     PERFORM pg_sleep(10); RETURN NULL; EXCEPTION WHEN query_canceled THEN {on_cancel}; RETURN NULL; END $$;
                 DO $$ DECLARE shard text; BEGIN
                     FOR shard IN SELECT oid::regclass FROM pg_class WHERE relname = 'accounts' AND relkind = 'r' LOOP
                         EXECUTE format('CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON %s
                                         DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION slowly()', shard);
                     END LOOP; END $$"
            ))
            .unwrap();
    }
    cluster
}

/// Inserts a row, does `meanwhile` while a worker commits it, and answers the error that the client gets, and the client.
fn while_a_worker_commits(
    cluster: &Cluster,
    meanwhile: impl FnOnce(&Server, postgres::CancelToken),
) -> (Option<String>, Client) {
    let mut client = cluster.connect();
    let token = client.cancel_token();
    let insert = std::thread::spawn(move || {
        let inserted = client.batch_execute("INSERT INTO accounts VALUES (7777, 1)");
        (inserted.err().map(|e| sqlstate(Err::<(), _>(e))), client)
    });
    let sleeping = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    let is_committing = |worker: &&Server| one::<i64>(&mut worker.connect(), sleeping) > 0;
    wait_for("a worker to commit", || {
        cluster.workers.iter().any(|w| is_committing(&w))
    });
    meanwhile(cluster.workers.iter().find(is_committing).unwrap(), token);
    insert.join().unwrap()
}

fn cancelled_while_a_worker_commits(on_cancel: &str) -> (Option<String>, i64) {
    let cluster = that_commits_slowly(on_cancel);
    let (state, mut client) = while_a_worker_commits(&cluster, |_, token| {
        token.cancel_query(postgres::NoTls).unwrap();
    });
    let count = "SELECT count(*) FROM accounts WHERE id = 7777";
    let seen = one::<i64>(&mut client, count);
    (state, seen)
}

#[test]
fn a_worker_that_commits_is_cancelled() {
    let (state, rows) = cancelled_while_a_worker_commits("RAISE");
    assert_eq!((state.as_deref(), rows), (Some("57014"), 0));
}

#[test]
fn a_worker_that_has_committed_is_not_cancelled_any_more() {
    let (state, rows) = cancelled_while_a_worker_commits("NULL");
    assert_eq!((state.as_deref(), rows), (None, 1));
}

#[test]
fn what_became_of_a_write_is_unknown_when_its_worker_dies() {
    let cluster = that_commits_slowly("RAISE");
    for (stop, state) in [(Stop::Kill, "08007"), (Stop::Fast, "08006")] {
        let (found, _) = while_a_worker_commits(&cluster, |worker, _| worker.stop(stop));
        assert_eq!(found.as_deref(), Some(state));
        for worker in cluster.workers.iter().filter(|w| !w.is_running()) {
            worker.start();
        }
    }
}

#[test]
fn a_client_that_goes_away_leaves_nothing_behind() {
    let cluster = Cluster::with_accounts(2);
    let (from, to) = cluster.accounts_on_two_workers();
    let mut client = cluster.connect();
    begin_transfer(&mut client, from, to, 10);
    drop(client);
    wait_for("the locks to go", || {
        cluster.connect().batch_execute(&format!(
            "SET lock_timeout = '100ms'; UPDATE accounts SET balance = balance WHERE id IN ({from}, {to})"
        )).is_ok()
    });
    assert_eq!(cluster.total(), 10_000);
    assert_eq!(cluster.prepared(), 0);
}

#[test]
fn workers_need_a_password_and_get_it_from_the_user_mapping() {
    let cluster = Cluster::with_accounts(1);
    let worker = &cluster.workers[0];
    worker
        .connect()
        .batch_execute("CREATE ROLE shard_user SUPERUSER LOGIN PASSWORD 'correct horse'")
        .unwrap();
    worker.require_password("shard_user");
    let mut client = cluster.connect();
    client
        .batch_execute("CREATE USER MAPPING FOR CURRENT_USER SERVER worker_1 OPTIONS (user 'shard_user', password 'wrong')")
        .unwrap();
    let error = cluster
        .connect()
        .query("SELECT sum(balance) FROM accounts", &[])
        .expect_err("a wrong password");
    assert!(
        !describe(&error).contains("wrong'"),
        "no password in messages: {}",
        describe(&error)
    );
    client
        .batch_execute("ALTER USER MAPPING FOR CURRENT_USER SERVER worker_1 OPTIONS (SET password 'correct horse')")
        .unwrap();
    let mut client = cluster.connect();
    assert_eq!(
        one::<i64>(&mut client, "SELECT sum(balance) FROM accounts"),
        10_000
    );
    let sessions: i64 = one(
        &mut worker.connect(),
        "SELECT count(*) FROM pg_stat_activity WHERE usename = 'shard_user' AND backend_type = 'client backend'",
    );
    assert!(sessions > 0);
}
