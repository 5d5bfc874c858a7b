//! Directed graphs: finds the nodes that are on a cycle together, and the shortest path between two nodes.
//!
//! Takes time in proportion to the size of the graph. It does not recurse, so long paths do not exhaust the stack.

use std::collections::VecDeque;

/// A graph: for each node, the nodes that it leads to.
#[derive(Debug)]
pub(super) struct Graph(pub(super) Vec<Vec<usize>>);

/// The strongly connected components of a graph.
pub(super) struct Components {
    /// The component of each node.
    of: Vec<usize>,
    /// The nodes. Each comes after the nodes that it leads to, except on a cycle.
    pub(super) order: Vec<usize>,
}

impl Components {
    /// The number of a node's component.
    pub(super) fn of(&self, node: usize) -> Option<usize> {
        self.of.get(node).copied()
    }

    /// Whether both nodes lead to each other.
    pub(super) fn are_one(&self, a: usize, b: usize) -> bool {
        self.of.get(a) == self.of.get(b)
    }
}

impl Graph {
    fn next(&self, node: usize) -> &[usize] {
        self.0.get(node).map_or(&[], Vec::as_slice)
    }

    /// The components, by Tarjan's algorithm ("Depth-first search and linear graph algorithms", 1972) with an explicit
    /// stack.
    pub(super) fn components(&self) -> Components {
        const UNSEEN: usize = usize::MAX;
        let count = self.0.len();
        let mut components = Components { of: vec![UNSEEN; count], order: Vec::new() };
        let (mut index, mut lowest) = (vec![UNSEEN; count], vec![UNSEEN; count]);
        let (mut open, mut path, mut seen) = (Vec::new(), Vec::new(), 0);
        let get = |table: &[usize], node: usize| table.get(node).copied().unwrap_or_default();
        let lower = |table: &mut [usize], node: usize, to: usize| {
            if let Some(value) = table.get_mut(node) {
                *value = to.min(*value);
            }
        };
        for start in 0..count {
            if get(&index, start) == UNSEEN {
                path.push((start, 0));
            }
            while let Some((node, at)) = path.pop() {
                if at == 0 {
                    lower(&mut index, node, seen);
                    lower(&mut lowest, node, seen);
                    seen += 1;
                    open.push(node);
                }
                match self.next(node).get(at) {
                    Some(&next) if get(&index, next) == UNSEEN => path.extend([(node, at + 1), (next, 0)]),
                    Some(&next) => {
                        if get(&components.of, next) == UNSEEN {
                            lower(&mut lowest, node, get(&index, next));
                        }
                        path.push((node, at + 1));
                    }
                    None => {
                        if get(&lowest, node) == get(&index, node) {
                            while let Some(member) = open.pop() {
                                lower(&mut components.of, member, node);
                                components.order.push(member);
                                if member == node {
                                    break;
                                }
                            }
                        }
                        if let Some((outer, _)) = path.last() {
                            let to = get(&lowest, node);
                            lower(&mut lowest, *outer, to);
                        }
                    }
                }
            }
        }
        components
    }

    /// The shortest path from `start` to `goal` of at least one step. It includes both ends.
    pub(super) fn path(&self, start: usize, goal: usize) -> Option<Vec<usize>> {
        let mut from = vec![None; self.0.len()];
        let mut todo = VecDeque::from([start]);
        while let Some(node) = todo.pop_front() {
            for &next in self.next(node) {
                let Some(place) = from.get_mut(next).filter(|place| place.is_none()) else {
                    continue;
                };
                *place = Some(node);
                todo.push_back(next);
                if next == goal {
                    let mut path = vec![goal];
                    let mut node = node;
                    while node != start {
                        path.push(node);
                        node = from.get(node).copied().flatten()?;
                    }
                    path.push(start);
                    path.reverse();
                    return Some(path);
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn graphs() -> impl Strategy<Value = Graph> {
        (1..8_usize)
            .prop_flat_map(|count| prop::collection::vec(prop::collection::vec(0..count, 0..4), count).prop_map(Graph))
    }

    proptest! {
        #[test]
        fn components_are_the_nodes_that_reach_each_other(graph in graphs()) {
            let components = graph.components();
            let count = graph.0.len();
            let reaches = |a: usize, b: usize| graph.path(a, b).is_some();
            for a in 0..count {
                for b in 0..count {
                    prop_assert_eq!(components.are_one(a, b), a == b || (reaches(a, b) && reaches(b, a)));
                }
            }
            let place = |node: usize| components.order.iter().position(|other| *other == node).unwrap();
            for (node, nexts) in graph.0.iter().enumerate() {
                for next in nexts {
                    prop_assert!(components.are_one(node, *next) || place(*next) < place(node));
                }
            }
        }

        #[test]
        fn a_path_leads_from_start_to_goal(graph in graphs()) {
            for start in 0..graph.0.len() {
                for goal in 0..graph.0.len() {
                    let Some(path) = graph.path(start, goal) else { continue };
                    prop_assert!(path.len() > 1 && path[0] == start && path[path.len() - 1] == goal);
                    prop_assert!(path.windows(2).all(|step| graph.0[step[0]].contains(&step[1])));
                }
            }
        }
    }
}
