//! One PostgreSQL server: made from a template data directory, started, killed, restarted, removed.

use postgres::{Client, Config, NoTls};
use std::ffi::OsStr;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How to bring a server down.
pub enum Stop {
    /// As an administrator does it.
    Fast,
    /// kill -9 of the postmaster and all its children: the machine is gone.
    Kill,
}

pub struct Server {
    pub name: String,
    pub port: u16,
    dir: PathBuf,
    /// Of its PostgreSQL's programs.
    bin: PathBuf,
}

impl Server {
    /// A new, running server with these lines at the end of its postgresql.conf, out of the PostgreSQL in `bin`.
    pub fn create(name: &str, bin: &Path, settings: &str) -> Server {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let dir = base().join(format!("{}-{number}-{name}", std::process::id()));
        run(as_server("cp").arg("-R").arg(template(bin)).arg(&dir));
        let port = free_port();
        let conf = format!(
            "port = {port}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = '{}'\n\
             max_prepared_transactions = 50\nmax_connections = 60\nshared_buffers = 16MB\nfsync = off\n\
             restart_after_crash = on\nlog_line_prefix = '%m [%p] '\ntimezone = 'UTC'\n{settings}",
            dir.display()
        );
        write(&dir.join("data/postgresql.auto.conf"), &conf);
        let server = Server {
            name: name.to_string(),
            port,
            dir,
            bin: bin.to_path_buf(),
        };
        server.start();
        server
    }

    pub fn start(&self) {
        run(self
            .pg_ctl("start")
            .arg("-l")
            .arg(self.dir.join("log"))
            .args(["-w", "-t", "60"]));
    }

    pub fn stop(&self, how: Stop) {
        match how {
            Stop::Fast => run(self.pg_ctl("stop").args(["-m", "fast", "-w"])),
            Stop::Kill => {
                let postmaster = self.postmaster();
                let mut all = children(postmaster);
                all.insert(0, postmaster);
                kill(&all);
                let deadline = Instant::now() + Duration::from_secs(10);
                while all.iter().any(|pid| alive(*pid)) {
                    assert!(Instant::now() < deadline, "{} does not die", self.name);
                    std::thread::sleep(Duration::from_millis(10));
                }
                run(as_server("rm")
                    .arg("-f")
                    .arg(self.dir.join("data/postmaster.pid"))
                    // a killed process that nobody waits for still has its pid
                    .arg(self.dir.join(format!(".s.PGSQL.{}.lock", self.port))));
            }
        }
    }

    /// Sessions go on, but new connections get no answer; or they get one again.
    pub fn answers_new_connections(&self, answers: bool) {
        let signal = if answers { "-CONT" } else { "-STOP" };
        run(Command::new("kill").args([signal, &self.postmaster().to_string()]));
    }

    /// Sets lines at the end of the configuration, and reloads it where the server is running.
    pub fn configure(&self, settings: &str) {
        let file = self.dir.join("data/postgresql.auto.conf");
        let old = String::from_utf8(run_output(as_server("cat").arg(&file)))
            .expect("a configuration in UTF-8");
        write(&file, &format!("{old}\n{settings}\n"));
        if self.is_running() {
            run(&mut self.pg_ctl("reload"));
        }
    }

    /// From now on this user needs its password over TCP.
    pub fn require_password(&self, user: &str) {
        let file = self.dir.join("data/pg_hba.conf");
        let old = String::from_utf8(run_output(as_server("cat").arg(&file)))
            .expect("a configuration in UTF-8");
        write(
            &file,
            &format!("host all {user} 127.0.0.1/32 scram-sha-256\n{old}"),
        );
        run(&mut self.pg_ctl("reload"));
    }

    pub fn is_running(&self) -> bool {
        self.pg_ctl("status")
            .stdout(Stdio::null())
            .status()
            .is_ok_and(|s| s.success())
    }

    /// A superuser session in database `postgres`; waits for a server that is just recovering.
    pub fn connect(&self) -> Client {
        self.connect_as("postgres", "postgres")
    }

    pub fn connect_as(&self, user: &str, database: &str) -> Client {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            match self.config(user, database).connect(NoTls) {
                Ok(client) => return client,
                Err(error) if Instant::now() > deadline => panic!("{}: {error}", self.name),
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }

    pub fn config(&self, user: &str, database: &str) -> Config {
        let mut config = Config::new();
        config
            .host("127.0.0.1")
            .port(self.port)
            .user(user)
            .dbname(database)
            .connect_timeout(Duration::from_secs(5));
        config
    }

    /// Everything the server logged.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&run_output(as_server("cat").arg(self.dir.join("log"))))
            .into_owned()
    }

    fn postmaster(&self) -> u32 {
        let file = run_output(as_server("cat").arg(self.dir.join("data/postmaster.pid")));
        let text = String::from_utf8_lossy(&file);
        text.lines()
            .next()
            .and_then(|line| line.trim().parse().ok())
            .unwrap_or_else(|| panic!("{} is not running", self.name))
    }

    fn pg_ctl(&self, action: &str) -> Command {
        let mut command = as_server(self.bin.join("pg_ctl"));
        command.arg(action).arg("-D").arg(self.dir.join("data"));
        command.stdout(Stdio::null());
        command
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(25).collect();
            eprintln!("--- end of the log of {}:", self.name);
            tail.iter().rev().for_each(|line| eprintln!("{line}"));
        }
        let _ = self
            .pg_ctl("stop")
            .args(["-m", "immediate", "-w"])
            .stderr(Stdio::null())
            .status();
        let _ = as_server("rm").arg("-rf").arg(&self.dir).status();
    }
}

fn environment(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run tests/run cluster"))
}

fn base() -> PathBuf {
    PathBuf::from(environment("CLUSTER_DIR"))
}

/// The programs of the PostgreSQL that has the extension.
pub fn coordinator_bin() -> PathBuf {
    PathBuf::from(environment("PG_BIN"))
}

/// The programs of a worker's PostgreSQL: WORKER_BINS has those of other versions, which workers take in turn.
pub fn worker_bin(number: usize) -> PathBuf {
    let all = std::env::var("WORKER_BINS").unwrap_or_else(|_| environment("PG_BIN"));
    let all: Vec<&str> = all.split(':').collect();
    PathBuf::from(all[(number - 1) % all.len()])
}

/// A command that runs as the user of the servers: PostgreSQL refuses to be root.
fn as_server(program: impl AsRef<OsStr>) -> Command {
    let user = environment("SERVER_USER");
    let root =
        std::fs::metadata("/proc/self").is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0);
    let mut command = if root {
        let mut command = Command::new("setpriv");
        command
            .arg(format!("--reuid={user}"))
            .arg(format!("--regid={user}"))
            .args(["--init-groups", "--"])
            .arg(program);
        command
    } else {
        Command::new(program)
    };
    // a terminal's Ctrl-C is for the tests, not for the servers, and backtraces would change the DETAIL of errors
    command
        .process_group(0)
        .current_dir("/")
        .env_remove("RUST_BACKTRACE");
    command
}

fn run(command: &mut Command) {
    run_output(command);
}

fn run_output(command: &mut Command) -> Vec<u8> {
    // pg_ctl's server would inherit a pipe and keep it open: only what we read is piped
    let output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(
        output.status.success(),
        "{command:?} failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

fn write(path: &Path, text: &str) {
    use std::io::Write;
    let mut tee = as_server("tee")
        .arg(path)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("tee runs");
    tee.stdin
        .take()
        .expect("a pipe")
        .write_all(text.as_bytes())
        .expect("tee reads");
    assert!(tee.wait().expect("tee ends").success());
}

/// A data directory as initdb leaves it, made once for each PostgreSQL.
fn template(bin: &Path) -> PathBuf {
    static TEMPLATES: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());
    let mut templates = TEMPLATES.lock().unwrap_or_else(|e| e.into_inner());
    let known = templates.iter().position(|known| known == bin);
    let number = known.unwrap_or(templates.len());
    let dir = base().join(format!("{}-template-{number}", std::process::id()));
    if known.is_none() {
        run(as_server("mkdir").args(["-m", "700"]).arg(&dir));
        run(as_server(bin.join("initdb"))
            .arg("-D")
            .arg(dir.join("data"))
            .args(["-U", "postgres", "--auth=trust", "--encoding=UTF8"])
            .args(["--locale=C.UTF-8", "--no-sync"]));
        templates.push(bin.to_path_buf());
    }
    dir
}

/// A TCP port nobody listens on, from CLUSTER_PORTS (56500 by default) upwards.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first: u16 = std::env::var("CLUSTER_PORTS")
        .ok()
        .and_then(|p| p.parse().ok())
        .unwrap_or(56500);
    loop {
        let port = first + NEXT.fetch_add(1, Ordering::Relaxed);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// kill -9, by the shell's own command: a small machine has no other.
fn kill(pids: &[u32]) {
    let list: Vec<String> = pids.iter().map(u32::to_string).collect();
    let _ = Command::new("sh")
        .args(["-c", "kill -KILL \"$@\" 2>/dev/null", "kill"])
        .args(list)
        .status()
        .expect("sh runs");
}

fn alive(pid: u32) -> bool {
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => !stat.contains(") Z "),
        Err(_) => false,
    }
}

fn children(parent: u32) -> Vec<u32> {
    std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"))
        .unwrap_or_default()
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .collect()
}
