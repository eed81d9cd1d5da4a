# The tour: each stop shows a statement, its result, and what went where. Sourced by demo/run.

# stop TITLE WHY SQL: runs the statement and explains it
stop() {
    printf '\n%s%s%s\n%s%s%s\n\n' "$BOLD" "$1" "$PLAIN" "$DIM" "$2" "$PLAIN"
    printf '%s;\n' "$3"
    coordinator -c "$3"
    coordinator -At -c "EXPLAIN (COSTS OFF) $3" | sed 's/^/    /'
}

# script TITLE WHY: runs the statements of standard input in one session
script() {
    printf '\n%s%s%s\n%s%s%s\n\n' "$BOLD" "$1" "$PLAIN" "$DIM" "$2" "$PLAIN"
    coordinator -e
}

printf '\n%sThe cluster%s\n' "$BOLD" "$PLAIN"
coordinator -c "SELECT node_name, dbname, version, shard_groups FROM shard_ext.nodes" \
    -c "SELECT table_name, table_type, distribution_column, shard_count, pg_size_pretty(size) AS size FROM shard_ext.tables ORDER BY 1"

stop "1. A routed read" "The key is known, so the whole statement goes to the one shard that holds it." \
    "SELECT time_hour, carrier, flight, origin, dest, dep_delay
FROM flights WHERE tailnum = 'N14228' ORDER BY time_hour LIMIT 5"

stop "2. A scattered aggregate" "Each shard aggregates its part; the coordinator combines the parts." \
    "SELECT carrier, count(*) AS flights, round(avg(dep_delay), 1) AS delay
FROM flights GROUP BY carrier ORDER BY flights DESC LIMIT 5"

stop "3. A colocated join" "flights and planes with the same tail number are neighbours: the join runs on the workers." \
    "SELECT p.manufacturer, count(*) AS flights, round(avg(f.distance)) AS miles
FROM flights f JOIN planes p USING (tailnum)
GROUP BY p.manufacturer ORDER BY flights DESC LIMIT 5"

stop "4. A join with reference tables" "airlines and airports are on every node." \
    "SELECT a.name AS airline, d.name AS destination, count(*) AS flights
FROM flights f JOIN airlines a USING (carrier) JOIN airports d ON d.faa = f.dest
GROUP BY 1, 2 ORDER BY flights DESC, 1, 2 LIMIT 5"

stop "5. Top-N" "Each shard sends its five, already sorted; the coordinator merges them and stops." \
    "SELECT tailnum, carrier, flight, dest, dep_delay
FROM flights WHERE dep_delay IS NOT NULL ORDER BY dep_delay DESC LIMIT 5"

script "6. A transaction over two nodes, committed" "Both planes change or none: two-phase commit behind an ordinary COMMIT." <<'SQL'
SELECT tailnum, seats FROM planes WHERE tailnum IN ('N14228', 'N668DN') ORDER BY 1;
BEGIN;
UPDATE planes SET seats = seats - 1 WHERE tailnum = 'N14228';
UPDATE planes SET seats = seats + 1 WHERE tailnum = 'N668DN';
COMMIT;
SELECT tailnum, seats FROM planes WHERE tailnum IN ('N14228', 'N668DN') ORDER BY 1;
EXPLAIN (COSTS OFF) UPDATE planes SET seats = seats - 1 WHERE tailnum = 'N14228';
EXPLAIN (COSTS OFF) UPDATE planes SET seats = seats + 1 WHERE tailnum = 'N668DN';
SQL

script "7. A transaction over all nodes, rolled back" "Nothing of it stays anywhere." <<'SQL'
BEGIN;
DELETE FROM flights WHERE carrier = 'UA';
SELECT count(*) FROM flights;
ROLLBACK;
SELECT count(*) FROM flights;
SQL
