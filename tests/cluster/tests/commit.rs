//! Two-phase commit: what is left of a transfer between two workers when a server dies in the middle. Whatever happens,
//! the sum of all balances stays, a transfer that was reported as committed is there, and nothing stays prepared.

use shard_ext_cluster_tests::*;

const TOTAL: i64 = 100 * 100;

/// Runs COMMIT with a crash point set; returns whether the client heard that it succeeded.
fn commit_with(client: &mut Client, crash_point: &str) -> bool {
    client
        .batch_execute(&format!(
            "SET LOCAL shard_ext.crash_point = '{crash_point}'; COMMIT"
        ))
        .is_ok()
}

/// Both accounts changed, or none.
fn transferred(cluster: &Cluster, from: i32, to: i32) -> bool {
    let mut client = cluster.connect();
    match (balance(&mut client, from), balance(&mut client, to)) {
        (90, 110) => true,
        (100, 100) => false,
        other => panic!("half a transfer: {other:?}"),
    }
}

/// Runs a commit that sleeps for two seconds at a point, meanwhile does something to the cluster, and returns whether
/// the client heard that the commit succeeded.
fn commit_while(
    cluster: &Cluster,
    point: &str,
    from: i32,
    to: i32,
    meanwhile: impl FnOnce(),
) -> bool {
    let mut client = cluster.connect();
    begin_transfer(&mut client, from, to, 10);
    let crash_point = format!("{point}:sleep:2000");
    let committer = std::thread::spawn(move || commit_with(&mut client, &crash_point));
    wait_for("both workers to be prepared", || cluster.prepared() == 2);
    if point == "after_local_commit" {
        cluster.wait_until_decided();
    }
    meanwhile();
    committer.join().expect("the committing thread")
}

#[test]
fn a_transfer_is_on_both_workers() {
    let cluster = Cluster::with_accounts(2);
    let (from, to) = cluster.accounts_on_two_workers();
    let mut client = cluster.connect();
    begin_transfer(&mut client, from, to, 10);
    client.batch_execute("COMMIT").unwrap();
    assert!(transferred(&cluster, from, to));
    assert_eq!(cluster.total(), TOTAL);
    assert_eq!(cluster.prepared(), 0);
}

#[test]
fn a_rolled_back_transfer_is_nowhere() {
    let cluster = Cluster::with_accounts(2);
    let (from, to) = cluster.accounts_on_two_workers();
    let mut client = cluster.connect();
    begin_transfer(&mut client, from, to, 10);
    client.batch_execute("ROLLBACK").unwrap();
    assert!(!transferred(&cluster, from, to));
    assert_eq!(cluster.prepared(), 0);
}

#[test]
fn a_failed_statement_undoes_both_workers() {
    let cluster = Cluster::with_accounts(2);
    let (from, to) = cluster.accounts_on_two_workers();
    let mut client = cluster.connect();
    begin_transfer(&mut client, from, to, 10);
    // the CHECK is the worker's to find
    let error = client.batch_execute(&format!("UPDATE accounts SET balance = -1 WHERE id = {to}"));
    assert_eq!(sqlstate(error), "23514");
    // PostgreSQL answers ROLLBACK to a COMMIT of a failed transaction
    client.batch_execute("COMMIT").unwrap();
    assert!(!transferred(&cluster, from, to));
    assert_eq!(cluster.prepared(), 0);
}

#[test]
fn coordinator_dies_before_prepare() {
    let cluster = Cluster::with_accounts(2);
    let (from, to) = cluster.accounts_on_two_workers();
    let mut client = cluster.connect();
    begin_transfer(&mut client, from, to, 10);
    assert!(!commit_with(&mut client, "before_prepare"));
    cluster.wait_until_recovered();
    assert!(!transferred(&cluster, from, to));
    assert_eq!(cluster.total(), TOTAL);
}

#[test]
fn coordinator_dies_after_prepare() {
    let cluster = Cluster::with_accounts(2);
    let (from, to) = cluster.accounts_on_two_workers();
    let mut client = cluster.connect();
    begin_transfer(&mut client, from, to, 10);
    assert!(!commit_with(&mut client, "after_prepare"));
    cluster.wait_until_recovered();
    assert!(
        !transferred(&cluster, from, to),
        "no commit record was written"
    );
    assert_eq!(cluster.total(), TOTAL);
}

#[test]
fn coordinator_dies_after_its_own_commit() {
    let cluster = Cluster::with_accounts(2);
    let (from, to) = cluster.accounts_on_two_workers();
    let mut client = cluster.connect();
    begin_transfer(&mut client, from, to, 10);
    assert!(!commit_with(&mut client, "after_local_commit"));
    cluster.wait_until_recovered();
    assert!(transferred(&cluster, from, to), "the decision was made");
    assert_eq!(cluster.total(), TOTAL);
}

#[test]
fn coordinator_dies_between_two_commits() {
    let cluster = Cluster::with_accounts(2);
    let (from, to) = cluster.accounts_on_two_workers();
    let mut client = cluster.connect();
    begin_transfer(&mut client, from, to, 10);
    assert!(!commit_with(&mut client, "after_first_commit_prepared"));
    cluster.wait_until_recovered();
    assert!(transferred(&cluster, from, to));
    assert_eq!(cluster.total(), TOTAL);
}

#[test]
fn worker_dies_between_prepare_and_commit_prepared() {
    let cluster = Cluster::with_accounts(2);
    let (from, to) = cluster.accounts_on_two_workers();
    let committed = commit_while(&cluster, "after_local_commit", from, to, || {
        cluster.workers[1].stop(Stop::Kill);
    });
    assert!(committed, "the decision was made before the worker died");
    // the other worker has its half, the dead one gets it when it is back
    assert_eq!(balance(&mut cluster.connect(), from), 90);
    cluster.workers[1].start();
    cluster.wait_until_recovered();
    assert!(transferred(&cluster, from, to));
    assert_eq!(cluster.total(), TOTAL);
}

#[test]
fn worker_dies_after_prepare_before_the_decision() {
    let cluster = Cluster::with_accounts(2);
    let (from, to) = cluster.accounts_on_two_workers();
    let committed = commit_while(&cluster, "after_prepare", from, to, || {
        cluster.workers[0].stop(Stop::Kill);
    });
    cluster.workers[0].start();
    cluster.wait_until_recovered();
    // both prepared, so the coordinator may commit; what it told the client must be what happened
    assert_eq!(transferred(&cluster, from, to), committed);
    assert_eq!(cluster.total(), TOTAL);
}

#[test]
fn worker_dies_before_commit() {
    let cluster = Cluster::with_accounts(2);
    let (from, to) = cluster.accounts_on_two_workers();
    let mut client = cluster.connect();
    begin_transfer(&mut client, from, to, 10);
    cluster.workers[1].stop(Stop::Kill);
    let error = sqlstate(client.batch_execute("COMMIT"));
    assert!(error.starts_with("08"), "a connection failure, not {error}");
    cluster.workers[1].start();
    cluster.wait_until_recovered();
    assert!(!transferred(&cluster, from, to));
    assert_eq!(cluster.total(), TOTAL);
}

#[test]
fn the_answer_to_prepare_is_lost() {
    let cluster = Cluster::with_accounts(2);
    let (from, to) = cluster.accounts_on_two_workers();
    // PREPARE is durable but never answered: it waits for a standby that does not exist
    cluster.workers[1].configure("synchronous_standby_names = 'nobody'");
    let mut client = cluster.connect();
    begin_transfer(&mut client, from, to, 10);
    let committer = std::thread::spawn(move || client.batch_execute("COMMIT").is_ok());
    wait_for("the worker to prepare", || {
        one::<i64>(
            &mut cluster.workers[1].connect(),
            "SELECT count(*) FROM pg_prepared_xacts",
        ) == 1
    });
    cluster.workers[1].stop(Stop::Kill);
    cluster.workers[1].configure("synchronous_standby_names = ''");
    assert!(!committer.join().expect("the committing thread"));
    cluster.workers[1].start();
    cluster.wait_until_recovered();
    assert!(!transferred(&cluster, from, to));
    assert_eq!(cluster.total(), TOTAL);
}

#[test]
fn running_transactions_are_left_alone_by_recovery() {
    let cluster = Cluster::with_accounts(2);
    let (from, to) = cluster.accounts_on_two_workers();
    // several rounds of the background worker pass while both workers are prepared and nothing is decided
    let committed = commit_while(&cluster, "after_prepare", from, to, || {
        std::thread::sleep(std::time::Duration::from_millis(1200));
        assert_eq!(cluster.prepared(), 2);
    });
    assert!(committed);
    cluster.wait_until_recovered();
    assert!(transferred(&cluster, from, to));
}

#[test]
fn prepared_transactions_of_others_are_left_alone() {
    let cluster = Cluster::with_accounts(2);
    let mut worker = cluster.workers[0].connect();
    worker
        .batch_execute("CREATE TABLE own (x int); BEGIN; INSERT INTO own VALUES (1); PREPARE TRANSACTION 'mine'")
        .unwrap();
    cluster
        .connect()
        .batch_execute("SELECT shard_ext.recover_prepared_transactions()")
        .unwrap();
    std::thread::sleep(std::time::Duration::from_millis(600));
    assert_eq!(
        one::<i64>(&mut worker, "SELECT count(*) FROM pg_prepared_xacts"),
        1
    );
    worker.batch_execute("COMMIT PREPARED 'mine'").unwrap();
}

#[test]
fn many_transfers_survive_a_coordinator_that_crashes() {
    let cluster = Cluster::with_accounts(2);
    for round in 0..3 {
        let workers: Vec<_> = (0..3)
            .map(|thread| {
                let mut client = cluster.connect();
                std::thread::spawn(move || {
                    for step in 0..40 {
                        let from = 1 + (step * 7 + thread * 13) % 50;
                        let transfer = format!(
                            "BEGIN; UPDATE accounts SET balance = balance - 1 WHERE id = {from};
                             UPDATE accounts SET balance = balance + 1 WHERE id = {}; COMMIT",
                            from + 50
                        );
                        if client.batch_execute(&transfer).is_err() && client.is_closed() {
                            return;
                        }
                    }
                })
            })
            .collect();
        std::thread::sleep(std::time::Duration::from_millis(150 + 100 * round));
        cluster.coordinator.stop(Stop::Kill);
        workers
            .into_iter()
            .for_each(|w| w.join().expect("a client thread"));
        cluster.coordinator.start();
        cluster.wait_until_recovered();
        assert_eq!(cluster.total(), TOTAL);
    }
}

#[test]
fn many_transfers_survive_a_worker_that_crashes() {
    let cluster = Cluster::with_accounts(2);
    let clients: Vec<_> = (0..3)
        .map(|thread| {
            let mut client = cluster.connect();
            std::thread::spawn(move || {
                let mut done = 0;
                for step in 0..60 {
                    let from = 1 + (step * 7 + thread * 13) % 50;
                    let transfer = format!(
                        "BEGIN; UPDATE accounts SET balance = balance - 1 WHERE id = {from};
                         UPDATE accounts SET balance = balance + 1 WHERE id = {}; COMMIT",
                        from + 50
                    );
                    match client.batch_execute(&transfer) {
                        Ok(()) => done += 1,
                        Err(_) => {
                            let _ = client.batch_execute("ROLLBACK");
                            std::thread::sleep(std::time::Duration::from_millis(20));
                        }
                    }
                }
                done
            })
        })
        .collect();
    std::thread::sleep(std::time::Duration::from_millis(200));
    cluster.workers[1].stop(Stop::Kill);
    std::thread::sleep(std::time::Duration::from_millis(200));
    cluster.workers[1].start();
    let done: i32 = clients
        .into_iter()
        .map(|c| c.join().expect("a client thread"))
        .sum();
    assert!(done > 0, "no transfer went through");
    cluster.wait_until_recovered();
    assert_eq!(cluster.total(), TOTAL);
}
