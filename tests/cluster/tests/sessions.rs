//! Sessions on the workers behave as the session on the coordinator does.

use shard_ext_cluster_tests::{describe, one, Client, Cluster};

/// A table `notes` with a policy for the setting `app.tenant`, which bob and ann may read on every server under their
/// own names, and a view of it that belongs to ann.
fn cluster_with_row_security() -> Cluster {
    let cluster = Cluster::start(1);
    for server in [&cluster.coordinator, &cluster.workers[0]] {
        server
            .connect()
            .batch_execute("CREATE ROLE bob LOGIN; CREATE ROLE ann LOGIN; GRANT ann TO bob")
            .unwrap();
    }
    cluster
        .connect()
        .batch_execute(
            "CREATE TABLE notes (id int PRIMARY KEY, tenant text);
             CREATE POLICY mine ON notes USING (tenant = current_setting('app.tenant', true));
             CREATE POLICY anns ON notes TO ann USING (id <= 9);
             ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
             GRANT SELECT, UPDATE ON notes TO bob, ann;
             CREATE VIEW notes_of_ann AS SELECT * FROM notes;
             ALTER VIEW notes_of_ann OWNER TO ann;
             GRANT SELECT ON notes_of_ann TO bob;
             SELECT create_distributed_table('notes', 'id', shard_count => 4);
             INSERT INTO notes SELECT g, 't' || g % 2 FROM generate_series(1, 10) g;
             ALTER ROLE bob NOINHERIT",
        )
        .unwrap();
    cluster
}

const COUNT: &str = "SELECT count(*) FROM notes";

fn error_code(client: &mut Client, sql: &str) -> String {
    let error = client.batch_execute(sql).expect_err(sql);
    error
        .code()
        .map(|code| code.code().to_string())
        .unwrap_or_default()
}

#[test]
fn policies_of_a_worker_that_apply_to_the_same_role_hide_nothing() {
    let cluster = cluster_with_row_security();
    let mut bob = cluster.coordinator.connect_as("bob", "postgres");
    assert_eq!(one::<i64>(&mut bob, COUNT), 0);
    bob.batch_execute("SET app.tenant = 't1'").unwrap();
    assert_eq!(one::<i64>(&mut bob, COUNT), 5);
    bob.batch_execute("BEGIN; SET LOCAL app.tenant = 't0'")
        .unwrap();
    assert_eq!(one::<i64>(&mut bob, COUNT), 5);
    assert_eq!(
        one::<String>(&mut bob, "SELECT min(tenant) FROM notes"),
        "t0"
    );
    bob.batch_execute("ROLLBACK").unwrap();
    assert_eq!(
        one::<String>(&mut bob, "SELECT min(tenant) FROM notes"),
        "t1"
    );
    bob.batch_execute("UPDATE notes SET tenant = 't1'").unwrap();
    assert_eq!(one::<i64>(&mut bob, COUNT), 5);
    let mut ann = cluster.coordinator.connect_as("ann", "postgres");
    assert_eq!(one::<i64>(&mut ann, COUNT), 9);
}

#[test]
fn policies_of_a_worker_for_another_role_are_an_error_and_hide_nothing() {
    let cluster = cluster_with_row_security();
    let mut bob = cluster.coordinator.connect_as("bob", "postgres");
    bob.batch_execute("SET app.tenant = 't1'").unwrap();
    let of_ann = "SELECT count(*) FROM notes_of_ann";
    assert_eq!(error_code(&mut bob, of_ann), "42501");
    assert_eq!(one::<i64>(&mut bob, COUNT), 5);
    bob.batch_execute("SET ROLE ann").unwrap();
    assert_eq!(error_code(&mut bob, COUNT), "42501");
    bob.batch_execute("RESET ROLE").unwrap();
    assert_eq!(one::<i64>(&mut bob, COUNT), 5);
    // the way out
    cluster
        .connect()
        .batch_execute("CREATE USER MAPPING FOR bob SERVER worker_1 OPTIONS (user 'postgres')")
        .unwrap();
    let mut bob = cluster.coordinator.connect_as("bob", "postgres");
    bob.batch_execute("SET app.tenant = 't1'").unwrap();
    assert_eq!(one::<i64>(&mut bob, of_ann), 9);
    assert_eq!(one::<i64>(&mut bob, COUNT), 5);
    assert_eq!(
        one::<String>(&mut bob, "SELECT min(current_user || id) FROM notes"),
        "bob1"
    );
    bob.batch_execute("SET ROLE ann").unwrap();
    assert_eq!(one::<i64>(&mut bob, COUNT), 9);
}

#[test]
fn lock_timeout_holds_on_the_workers() {
    let cluster = Cluster::with_accounts(1);
    let (mut first, mut second) = (cluster.connect(), cluster.connect());
    let mut holder = first.transaction().unwrap();
    holder
        .execute("UPDATE accounts SET balance = 1 WHERE id = 1", &[])
        .unwrap();
    second.batch_execute("SET lock_timeout = '200ms'").unwrap();
    let error = second
        .execute("UPDATE accounts SET balance = 2 WHERE id = 1", &[])
        .expect_err("the row is locked");
    assert_eq!(
        error.code().map(|code| code.code()),
        Some("55P03"),
        "{}",
        describe(&error)
    );
    holder.rollback().unwrap();
    second
        .execute("UPDATE accounts SET balance = 2 WHERE id = 1", &[])
        .unwrap();
}

#[test]
fn session_replication_role_reaches_the_workers() {
    let cluster = Cluster::start(1);
    let mut client = cluster.connect();
    client
        .batch_execute(
            "CREATE TABLE parents (id int PRIMARY KEY);
             CREATE TABLE children (id int, n int, FOREIGN KEY (id) REFERENCES parents);
             SELECT create_distributed_table('parents', 'id', shard_count => 2);
             SELECT create_distributed_table('children', 'id', shard_count => 2)",
        )
        .unwrap();
    let orphan = "INSERT INTO children VALUES (1, 1)";
    let error = client.execute(orphan, &[]).expect_err("no parent");
    assert_eq!(error.code().map(|code| code.code()), Some("23503"));
    let mut transaction = client.transaction().unwrap();
    transaction
        .batch_execute("SET LOCAL session_replication_role = replica")
        .unwrap();
    transaction.execute(orphan, &[]).unwrap();
    transaction.commit().unwrap();
    let error = client
        .execute(orphan, &[])
        .expect_err("no parent, checked again");
    assert_eq!(error.code().map(|code| code.code()), Some("23503"));
}
