//! Sessions that wait for each other on several nodes, or on a node and on the coordinator.

use shard_ext_cluster_tests::{describe, one, wait_for, Client, Cluster, Error};
use std::thread::{scope, sleep};
use std::time::Duration;

const DETECTOR: &str =
    "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'shard_ext deadlock detector'";

fn cluster(workers: usize) -> Cluster {
    let cluster = Cluster::with_accounts(workers);
    cluster
        .coordinator
        .configure("deadlock_timeout = '200ms'\nstatement_timeout = '30s'");
    cluster
        .connect()
        .batch_execute(
            "CREATE TABLE here (id int PRIMARY KEY, n int); INSERT INTO here VALUES (1, 0)",
        )
        .unwrap();
    cluster
}

fn update(id: i32) -> String {
    format!("UPDATE accounts SET balance = balance + 1 WHERE id = {id}")
}

const UPDATE_HERE: &str = "UPDATE here SET n = n + 1 WHERE id = 1";

fn pid(client: &mut Client) -> i32 {
    one(client, "SELECT pg_backend_pid()")
}

/// Sessions in transactions, the first of which began first, after one statement of each.
fn begin<const N: usize>(cluster: &Cluster, first: [&str; N]) -> [Client; N] {
    first.map(|sql| {
        let mut client = cluster.connect();
        client.batch_execute("BEGIN").unwrap();
        client.batch_execute(sql).unwrap();
        client
    })
}

/// Runs one more statement of each, and rolls back as soon as that has ended.
fn meet<const N: usize>(sessions: &mut [Client; N], second: [&str; N]) -> Vec<Result<(), Error>> {
    scope(|threads| {
        let running: Vec<_> = sessions
            .iter_mut()
            .zip(second)
            .map(|(client, sql)| {
                sleep(Duration::from_millis(50));
                threads.spawn(move || {
                    let result = client.batch_execute(sql);
                    client.batch_execute("ROLLBACK").unwrap();
                    result
                })
            })
            .collect();
        running
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    })
}

/// The last session, and no other, was told of a deadlock. Answers the detail.
fn only_the_last_failed(results: &[Result<(), Error>]) -> String {
    let (last, others) = results.split_last().unwrap();
    for other in others {
        assert!(other.is_ok(), "{}", describe(other.as_ref().unwrap_err()));
    }
    let error = last.as_ref().expect_err("a deadlock");
    let fields = error.as_db_error().unwrap();
    assert_eq!(fields.code().code(), "40P01", "{}", describe(error));
    assert_eq!(fields.message(), "deadlock detected");
    assert_eq!(fields.hint(), Some("See server log for query details."));
    fields.detail().unwrap().to_string()
}

#[test]
fn two_sessions_that_cross() {
    let cluster = cluster(2);
    let (a, b) = cluster.accounts_on_two_workers();
    let mut sessions = begin(&cluster, [&update(a), &update(b)]);
    let [first, second] = [0, 1].map(|i: usize| pid(&mut sessions[i]));
    let results = meet(&mut sessions, [&update(b), &update(a)]);
    let detail = only_the_last_failed(&results);
    for (waiter, worker, blocker) in [(first, "worker_2", second), (second, "worker_1", first)] {
        let line = detail
            .lines()
            .find(|line| {
                line.starts_with(&format!(
                    "Process {waiter} waits for ShareLock on transaction "
                ))
            })
            .unwrap_or_else(|| panic!("{detail}"));
        let end = format!(" on node \"{worker}\"; blocked by process {blocker}.");
        assert!(line.ends_with(&end), "{detail}");
    }
    let log = cluster.coordinator.log();
    assert!(
        log.contains(&format!("Process {first}: {}", update(b))),
        "{log}"
    );
    let counted = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    wait_for("statistics", || {
        one::<i64>(&mut cluster.connect(), counted) == 1
    });
    let mut client = cluster.connect();
    wait_for("the detector to end", || {
        one::<i64>(&mut client, DETECTOR) == 0
    });
}

#[test]
fn three_sessions_in_a_ring() {
    let cluster = cluster(3);
    let [a, b, c] = [0, 1, 2].map(|i| update(cluster.account_on(&cluster.workers[i])));
    let mut sessions = begin(&cluster, [&a, &b, &c]);
    let results = meet(&mut sessions, [&b, &c, &a]);
    assert_eq!(only_the_last_failed(&results).lines().count(), 3);
}

#[test]
fn one_session_waits_on_the_coordinator() {
    let cluster = cluster(1);
    let account = update(cluster.account_on(&cluster.workers[0]));
    // whoever comes first, only the one that waits for the node can be told
    for _ in 0..2 {
        let mut sessions = begin(&cluster, [&account, UPDATE_HERE]);
        let results = meet(&mut sessions, [UPDATE_HERE, &account]);
        only_the_last_failed(&results);
    }
    let mut sessions = begin(&cluster, [UPDATE_HERE, &account]);
    let mut results = meet(&mut sessions, [&account, UPDATE_HERE]);
    results.reverse();
    only_the_last_failed(&results);
}

#[test]
fn reference_and_distributed_tables() {
    let cluster = cluster(2);
    cluster
        .connect()
        .batch_execute(
            "CREATE TABLE rates (id int PRIMARY KEY, n int); INSERT INTO rates VALUES (1, 0);
             SELECT create_reference_table('rates')",
        )
        .unwrap();
    let rates = "UPDATE rates SET n = n + 1 WHERE id = 1";
    let account = update(cluster.account_on(&cluster.workers[0]));
    let mut sessions = begin(&cluster, [rates, &account]);
    let mut results = meet(&mut sessions, [&account, rates]);
    results.reverse();
    only_the_last_failed(&results);
}

#[test]
fn deferred_constraints_cross_at_commit() {
    let cluster = cluster(2);
    cluster
        .connect()
        .batch_execute(
            "CREATE TABLE cards (id int REFERENCES accounts DEFERRABLE INITIALLY DEFERRED, number int, PRIMARY KEY (id, number));
             SELECT create_distributed_table('cards', 'id', shard_count => 8)",
        )
        .unwrap();
    let (a, b) = cluster.accounts_on_two_workers();
    let delete = |id: i32| format!("DELETE FROM accounts WHERE id = {id}");
    let mut sessions = begin(&cluster, [&delete(a), &delete(b)]);
    for (session, id) in sessions.iter_mut().zip([b, a]) {
        let sql = format!("INSERT INTO cards VALUES ({id}, 1)");
        session.batch_execute(&sql).unwrap();
    }
    only_the_last_failed(&meet(&mut sessions, ["COMMIT", "COMMIT"]));
    wait_for("prepared transactions to end", || cluster.prepared() == 0);
}

#[test]
fn a_savepoint_survives_the_deadlock() {
    let cluster = cluster(2);
    let (a, b) = cluster.accounts_on_two_workers();
    let [mut one_, mut two] = begin(&cluster, [&update(a), &update(b)]);
    two.batch_execute("SAVEPOINT s").unwrap();
    scope(|threads| {
        let waiting = threads.spawn(|| one_.batch_execute(&update(b)));
        let error = two.batch_execute(&update(a)).unwrap_err();
        assert_eq!(
            error.code().unwrap().code(),
            "40P01",
            "{}",
            describe(&error)
        );
        two.batch_execute("ROLLBACK TO s").unwrap();
        let caught = format!(
            "DO $$ BEGIN {}; EXCEPTION WHEN deadlock_detected THEN END $$",
            update(a)
        );
        two.batch_execute(&caught).unwrap();
        assert_eq!(one::<i64>(&mut two, "SELECT count(*) FROM accounts"), 100);
        two.batch_execute("COMMIT").unwrap();
        waiting.join().unwrap().unwrap();
    });
    one_.batch_execute("COMMIT").unwrap();
    assert_eq!(cluster.total(), 100 * 100 + 3);
}

#[test]
fn a_long_wait_is_no_deadlock() {
    let cluster = cluster(2);
    let (a, b) = cluster.accounts_on_two_workers();
    let [mut holder] = begin(&cluster, [&update(a)]);
    holder.batch_execute(&update(b)).unwrap();
    scope(|threads| {
        let waiting: Vec<_> = [a, b, a, b]
            .map(|id| {
                let mut client = cluster.connect();
                threads.spawn(move || client.batch_execute(&update(id)))
            })
            .into();
        let mut client = cluster.connect();
        wait_for("the detector", || one::<i64>(&mut client, DETECTOR) == 1);
        sleep(Duration::from_secs(2));
        let waits = "SELECT count(*) FROM shard_ext.lock_waits WHERE node_name LIKE 'worker%' AND lock LIKE '%Lock on %'";
        assert!(one::<i64>(&mut client, waits) >= 4);
        let by_holder = format!(
            "SELECT count(DISTINCT waiting_gpid) FROM citus_lock_waits WHERE blocking_gpid = {}",
            pid(&mut holder)
        );
        assert!(one::<i64>(&mut client, &by_holder) >= 2);
        holder.batch_execute("COMMIT").unwrap();
        for thread in waiting {
            thread.join().unwrap().unwrap();
        }
        wait_for("the detector to end", || {
            one::<i64>(&mut client, DETECTOR) == 0
        });
        assert_eq!(
            one::<i64>(&mut client, "SELECT count(*) FROM shard_ext.lock_waits"),
            0
        );
    });
}

#[test]
fn sessions_that_are_terminated_leave_nothing_behind() {
    let cluster = cluster(2);
    let (a, b) = cluster.accounts_on_two_workers();
    let mut client = cluster.connect();
    for _ in 0..3 {
        let mut sessions = begin(&cluster, [&update(a), &update(b)]);
        let pids = [0, 1].map(|i: usize| pid(&mut sessions[i]));
        scope(|threads| {
            let [first, second] = &mut sessions;
            let waiting = threads.spawn(|| first.batch_execute(&update(b)));
            wait_for("a wait", || {
                one::<i64>(&mut client, "SELECT count(*) FROM shard_ext.lock_waits") == 1
            });
            for pid in pids {
                let sql = format!("SELECT pg_terminate_backend({pid}, 5000)");
                assert!(one::<bool>(&mut client, &sql));
            }
            waiting.join().unwrap().unwrap_err();
            second.batch_execute("SELECT 1").unwrap_err();
        });
        assert_eq!(
            one::<i64>(&mut client, "SELECT count(*) FROM shard_ext.lock_waits"),
            0
        );
        // others take their places
        let mut sessions = begin(&cluster, [&update(a), &update(b)]);
        only_the_last_failed(&meet(&mut sessions, [&update(b), &update(a)]));
    }
}

#[test]
fn a_node_that_cannot_be_asked_hinders_nobody_else() {
    let cluster = cluster(3);
    cluster
        .coordinator
        .configure("shard_ext.node_connection_timeout = '300ms'");
    let [a, b, c] = [0, 1, 2].map(|i| update(cluster.account_on(&cluster.workers[i])));
    let [mut holder, mut waiter] = begin(&cluster, [&c, "SELECT 1"]);
    // the waiter has its connection to the node
    let count = "SELECT count(*) FROM accounts";
    assert_eq!(one::<i64>(&mut waiter, count), 100);
    let mut sessions = begin(&cluster, [&a, &b]);
    cluster.workers[2].answers_new_connections(false);
    scope(|threads| {
        let waiting = threads.spawn(|| waiter.batch_execute(&c));
        only_the_last_failed(&meet(&mut sessions, [&b, &a]));
        cluster.workers[2].answers_new_connections(true);
        holder.batch_execute("COMMIT").unwrap();
        waiting.join().unwrap().unwrap();
    });
    let log = cluster.coordinator.log();
    assert!(
        log.contains("could not connect to node \"worker_3\""),
        "{log}"
    );
}

#[test]
fn logins_without_privileges_are_enough() {
    let cluster = cluster(2);
    let (a, b) = cluster.accounts_on_two_workers();
    for server in cluster.workers.iter().chain([&cluster.coordinator]) {
        let mut client = server.connect();
        client.batch_execute("CREATE ROLE app LOGIN").unwrap();
    }
    // those of the server's owner do not work
    cluster
        .connect()
        .batch_execute(
            "GRANT SELECT, UPDATE ON accounts TO app;
             CREATE USER MAPPING FOR postgres SERVER worker_1 OPTIONS (user 'nobody');
             CREATE USER MAPPING FOR postgres SERVER worker_2 OPTIONS (user 'nobody')",
        )
        .unwrap();
    let mut sessions = [a, b].map(|id| {
        let mut client = cluster.coordinator.connect_as("app", "postgres");
        client.batch_execute("BEGIN").unwrap();
        client.batch_execute(&update(id)).unwrap();
        client
    });
    only_the_last_failed(&meet(&mut sessions, [&update(b), &update(a)]));
}

#[test]
fn upserts_in_opposite_orders_go_on() {
    let cluster = cluster(3);
    let upsert = |ids: Vec<i32>| -> Vec<String> {
        ids.iter()
            .map(|id| {
                format!(
                    "INSERT INTO accounts VALUES ({id}, 1)
                     ON CONFLICT (id) DO UPDATE SET balance = accounts.balance + 1"
                )
            })
            .collect()
    };
    let [mut done, mut deadlocks] = [0; 2];
    scope(|threads| {
        let running: Vec<_> = (0..6)
            .map(|i| {
                let mut client = cluster.connect();
                let mut ids: Vec<i32> = (1..=5).collect();
                if i % 2 == 1 {
                    ids.reverse();
                }
                let sql = format!("BEGIN; {}; COMMIT", upsert(ids).join("; "));
                threads.spawn(move || {
                    let [mut done, mut deadlocks] = [0; 2];
                    while done < 2 {
                        match client.batch_execute(&sql) {
                            Ok(()) => done += 1,
                            Err(error) => {
                                let code = error.code().map_or("", |code| code.code());
                                assert_eq!(code, "40P01", "{}", describe(&error));
                                client.batch_execute("ROLLBACK").unwrap();
                                deadlocks += 1;
                            }
                        }
                    }
                    [done, deadlocks]
                })
            })
            .collect();
        for thread in running {
            let [d, l] = thread.join().unwrap();
            done += d;
            deadlocks += l;
        }
    });
    assert_eq!(done, 12);
    assert!(deadlocks > 0);
    assert_eq!(cluster.total(), 100 * 100 + 12 * 5);
}
