//! A throw-away cluster of real PostgreSQL servers: one coordinator and its workers, each with its own data directory,
//! which tests stop, kill and start again. Everything is removed when the cluster goes out of scope.
//!
//! `tests/run cluster` sets the environment: PG_BIN (PostgreSQL's programs, with the extension installed beside them),
//! CLUSTER_DIR (a directory that SERVER_USER may write) and SERVER_USER (who runs servers when we are root). WORKER_BINS may
//! name the programs of other versions of PostgreSQL for the workers, separated by colons.

mod server;

pub use postgres::{self, Client, Error};
use server::{coordinator_bin, worker_bin};
pub use server::{Server, Stop};
use std::time::{Duration, Instant};

/// A coordinator with the extension and workers that are its nodes `worker_1`, `worker_2`, …
pub struct Cluster {
    pub coordinator: Server,
    pub workers: Vec<Server>,
}

impl Cluster {
    /// Starts the servers and adds the nodes; workers listen on TCP, as they would on other machines.
    pub fn start(workers: usize) -> Cluster {
        let coordinator = Server::create(
            "coordinator",
            &coordinator_bin(),
            "shared_preload_libraries = 'shard_ext'\nshard_ext.recovery_interval = '1s'\n",
        );
        let workers: Vec<Server> = (1..=workers)
            .map(|number| Server::create(&format!("worker_{number}"), &worker_bin(number), ""))
            .collect();
        let cluster = Cluster {
            coordinator,
            workers,
        };
        let mut client = cluster.connect();
        client.batch_execute("CREATE EXTENSION shard_ext").unwrap();
        for worker in &cluster.workers {
            client
                .execute(
                    "SELECT shard_ext.add_node($1, '127.0.0.1', $2, 'postgres')",
                    &[&worker.name, &(worker.port as i32)],
                )
                .unwrap();
        }
        cluster
    }

    /// The same with a distributed table `accounts (id int primary key, balance int)` of 100 rows with 100 each.
    pub fn with_accounts(workers: usize) -> Cluster {
        let cluster = Cluster::start(workers);
        let mut client = cluster.connect();
        client
            .batch_execute(
                "CREATE TABLE accounts (id int PRIMARY KEY, balance int NOT NULL CHECK (balance >= 0));
                 SELECT create_distributed_table('accounts', 'id', shard_count => 8);",
            )
            .unwrap();
        let rows: Vec<String> = (1..=100).map(|id| format!("({id}, 100)")).collect();
        client
            .batch_execute(&format!("INSERT INTO accounts VALUES {}", rows.join(", ")))
            .unwrap();
        cluster
    }

    /// A session on the coordinator.
    pub fn connect(&self) -> Client {
        self.coordinator.connect()
    }

    /// Two accounts that live on the first and the second worker.
    pub fn accounts_on_two_workers(&self) -> (i32, i32) {
        (
            self.account_on(&self.workers[0]),
            self.account_on(&self.workers[1]),
        )
    }

    /// An account that lives on this worker.
    pub fn account_on(&self, worker: &Server) -> i32 {
        let mut client = worker.connect();
        let shards: Vec<String> = client
            .query(
                "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE tablename = 'accounts'",
                &[],
            )
            .unwrap()
            .iter()
            .map(|row| row.get(0))
            .collect();
        for shard in shards {
            let row = client
                .query_opt(
                    &format!("SELECT min(id) FROM {shard} HAVING count(*) > 0"),
                    &[],
                )
                .unwrap();
            if let Some(row) = row {
                return row.get(0);
            }
        }
        panic!("{} holds no account", worker.name)
    }

    /// The sum of all balances, which no transfer changes.
    pub fn total(&self) -> i64 {
        one(&mut self.connect(), "SELECT sum(balance) FROM accounts")
    }

    /// Prepared transactions on all workers.
    pub fn prepared(&self) -> i64 {
        self.workers
            .iter()
            .filter(|worker| worker.is_running())
            .map(|worker| {
                one::<i64>(
                    &mut worker.connect(),
                    "SELECT count(*) FROM pg_prepared_xacts",
                )
            })
            .sum()
    }

    /// Waits for the coordinator to decide to commit what is prepared.
    pub fn wait_until_decided(&self) {
        let mut observer = self.connect();
        wait_for("the decision", || {
            one::<i64>(
                &mut observer,
                "SELECT count(*) FROM shard_ext.commit_record",
            ) > 0
        });
    }

    /// Waits for the background worker to finish every prepared transaction.
    pub fn wait_until_recovered(&self) {
        wait_for("prepared transactions to be finished", || {
            self.prepared() == 0
        });
    }
}

/// The only value a query returns.
pub fn one<T>(client: &mut Client, sql: &str) -> T
where
    T: for<'a> postgres::types::FromSql<'a>,
{
    client
        .query_one(sql, &[])
        .unwrap_or_else(|e| panic!("{sql}: {}", describe(&e)))
        .get(0)
}

/// A transfer between two accounts, up to but not including COMMIT.
pub fn begin_transfer(client: &mut Client, from: i32, to: i32, amount: i32) {
    client
        .batch_execute(&format!(
            "BEGIN;
             UPDATE accounts SET balance = balance - {amount} WHERE id = {from};
             UPDATE accounts SET balance = balance + {amount} WHERE id = {to};"
        ))
        .unwrap_or_else(|e| panic!("transfer: {}", describe(&e)));
}

pub fn balance(client: &mut Client, id: i32) -> i32 {
    one(
        client,
        &format!("SELECT balance FROM accounts WHERE id = {id}"),
    )
}

/// Polls until the condition holds, for at most 30 seconds.
pub fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The server's own words for an error, with SQLSTATE, detail and context.
pub fn describe(error: &Error) -> String {
    match error.as_db_error() {
        Some(e) => format!(
            "{}: {} DETAIL {:?} HINT {:?} CONTEXT {:?}",
            e.code().code(),
            e.message(),
            e.detail(),
            e.hint(),
            e.where_()
        ),
        None => format!("{error:?}"),
    }
}

/// The SQLSTATE of what must be an error of the server.
pub fn sqlstate<T>(result: Result<T, Error>) -> String {
    match result {
        Ok(_) => panic!("an error was expected"),
        Err(error) => match error.code() {
            Some(code) => code.code().to_string(),
            None => panic!("not an error of the server: {error:?}"),
        },
    }
}
