//! Who waits for whom, and the cycles in it.

/// One session waits for another (or, over two connections, for itself).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Edge {
    /// Processes of the two sessions here.
    pub waiter: i32,
    pub blocker: i32,
    /// The number of the waiter's wait for nodes; none: it waits for a lock of this server.
    pub wait: Option<u64>,
    /// The server on which it waits, by its name as a node; none: this one.
    pub node: Option<String>,
    /// The processes there; the other is 0 for a prepared transaction.
    pub waiting_process: i32,
    pub blocking_process: i32,
    /// The lock, and since when (seconds since 1970) it is waited for.
    pub lock: String,
    pub since: String,
}

/// Are these the deadlock of one server, which finds it by itself?
fn is_of_one_server(cycle: &[&Edge]) -> bool {
    let next = |i: usize| cycle[(i + 1) % cycle.len()];
    cycle.iter().enumerate().all(|(i, edge)| {
        edge.node == next(i).node && edge.blocking_process == next(i).waiting_process
    })
}

/// Deadlocks over several servers that have no session in common once `victim` has chosen one of each.
pub fn deadlocks<'a>(
    edges: &'a [Edge],
    victim: impl Fn(&[&'a Edge]) -> Option<i32>,
) -> Vec<(i32, Vec<&'a Edge>)> {
    let mut left: Vec<&Edge> = edges.iter().collect();
    let mut found = Vec::new();
    while let Some(cycle) = cycle(&left) {
        let chosen = victim(&cycle).filter(|_| !is_of_one_server(&cycle));
        match chosen {
            Some(pid) => {
                left.retain(|edge| edge.waiter != pid && edge.blocker != pid);
                found.push((pid, cycle));
            }
            // looks for others beside it; those that share this edge are found when the server has ended its own
            None => left.retain(|edge| *edge != cycle[0]),
        }
    }
    found
}

/// Edges that lead from a session back to it, each session once.
fn cycle<'a>(edges: &[&'a Edge]) -> Option<Vec<&'a Edge>> {
    let mut finished = Vec::new();
    for edge in edges {
        let mut path = Vec::new();
        if let Some(start) = follow(edges, edge.waiter, &mut path, &mut finished) {
            return Some(path.split_off(start));
        }
    }
    None
}

/// Goes on from a session along a path of edges. Answers the place in the path where a cycle begins, which is its rest.
fn follow<'a>(
    edges: &[&'a Edge],
    session: i32,
    path: &mut Vec<&'a Edge>,
    finished: &mut Vec<i32>,
) -> Option<usize> {
    if let Some(start) = path.iter().position(|edge| edge.waiter == session) {
        return Some(start);
    }
    if finished.contains(&session) {
        return None;
    }
    for edge in edges.iter().filter(|edge| edge.waiter == session) {
        path.push(edge);
        if let Some(start) = follow(edges, edge.blocker, path, finished) {
            return Some(start);
        }
        path.pop();
    }
    finished.push(session);
    None
}

#[cfg(test)]
mod tests {
    use super::{deadlocks, Edge};

    /// `waiter` waits for `blocker` on a node, where a session's process has the session's number plus 100 times the node's.
    fn edge(waiter: i32, blocker: i32, node: i32) -> Edge {
        Edge {
            waiter,
            blocker,
            wait: Some(1),
            node: Some(format!("node_{node}")),
            waiting_process: waiter + 100 * node,
            blocking_process: blocker + 100 * node,
            lock: "ShareLock on transaction 7".into(),
            since: String::new(),
        }
    }

    fn victims(edges: &[Edge]) -> Vec<(i32, usize)> {
        let youngest = |cycle: &[&Edge]| cycle.iter().map(|edge| edge.waiter).max();
        deadlocks(edges, youngest)
            .into_iter()
            .map(|(pid, cycle)| (pid, cycle.len()))
            .collect()
    }

    #[test]
    fn a_queue_is_no_deadlock() {
        assert_eq!(victims(&[]), []);
        assert_eq!(victims(&[edge(1, 2, 1), edge(2, 3, 2), edge(1, 3, 1)]), []);
    }

    #[test]
    fn two_that_cross_and_three_in_a_ring() {
        assert_eq!(victims(&[edge(1, 2, 1), edge(2, 1, 2)]), [(2, 2)]);
        let ring = [edge(9, 1, 1), edge(1, 2, 1), edge(2, 3, 2), edge(3, 1, 3)];
        assert_eq!(victims(&ring), [(3, 3)]);
    }

    #[test]
    fn what_one_node_finds_is_left_to_it() {
        assert_eq!(victims(&[edge(1, 2, 1), edge(2, 1, 1)]), []);
        let beside = [edge(1, 2, 1), edge(2, 1, 1), edge(3, 4, 1), edge(4, 3, 2)];
        assert_eq!(victims(&beside), [(4, 2)]);
    }

    #[test]
    fn a_session_that_waits_for_itself() {
        let mut edge = edge(1, 1, 1);
        edge.blocking_process += 1000;
        assert_eq!(victims(&[edge]), [(1, 1)]);
    }

    #[test]
    fn one_victim_for_cycles_that_share_it() {
        let edges = [edge(1, 5, 1), edge(5, 1, 2), edge(2, 5, 1), edge(5, 2, 2)];
        assert_eq!(victims(&edges), [(5, 2)]);
        let apart = [edge(1, 2, 1), edge(2, 1, 2), edge(3, 4, 1), edge(4, 3, 2)];
        assert_eq!(victims(&apart), [(2, 2), (4, 2)]);
    }
}
