//! The laws of the difference between two tables.

use std::collections::BTreeSet;

use crate::strategies::{service_key, table, table_and_successor};
use proptest::prelude::*;
use weir::ipvs::{Change, DestinationKey, MemoryTable, ServiceKey, Table, TableStore, Weight, diff};

fn applied(changes: &[Change], current: &Table) -> Result<Table, TestCaseError> {
    let mut store = MemoryTable::new(current.clone());
    let outcome = store.apply(changes);
    prop_assert_eq!(outcome.failures, []);
    Ok(store.table)
}

/// Where a change stands in the order: what adds, what is or gets weight 0, what goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Addition,
    Quiescing,
    Removal,
}

fn stage(change: &Change) -> Stage {
    match change {
        Change::DeleteService { .. } | Change::DeleteDestination { .. } => Stage::Removal,
        Change::EditDestination { destination, .. } if destination.weight == Weight::QUIESCED => {
            Stage::Quiescing
        }
        _ => Stage::Addition,
    }
}

fn destination_of(change: &Change) -> Option<DestinationKey> {
    match change {
        Change::AddDestination { key, .. }
        | Change::EditDestination { key, .. }
        | Change::DeleteDestination { key, .. } => Some(*key),
        _ => None,
    }
}

fn takes_connections(table: &Table, key: &ServiceKey) -> bool {
    table.services.get(key).is_some_and(|entry| {
        entry
            .destinations
            .values()
            .any(|destination| destination.weight != Weight::QUIESCED)
    })
}

proptest! {
    #[test]
    fn the_changes_lead_from_one_table_to_the_other_and_none_is_refused((current, desired) in table_and_successor()) {
        let changes = diff(&current, &desired, |_| true);
        prop_assert_eq!(applied(&changes, &current)?, desired);
    }

    #[test]
    fn nothing_is_to_be_done_where_nothing_differs(table in table()) {
        prop_assert_eq!(diff(&table, &table, |_| true), []);
    }

    #[test]
    fn what_is_neither_ours_nor_wanted_is_never_touched(
        (current, desired) in table_and_successor(),
        ours in proptest::collection::btree_set(service_key(), 0..6),
    ) {
        let changes = diff(&current, &desired, |key| ours.contains(key));
        let foreign = |key: &ServiceKey| !ours.contains(key) && !desired.services.contains_key(key);
        prop_assert!(changes.iter().all(|change| !foreign(change.service())));

        let mut expected = desired.clone();
        let left_alone = current.services.iter().filter(|(key, _)| foreign(key));
        expected.services.extend(left_alone.map(|(key, entry)| (*key, entry.clone())));
        prop_assert_eq!(applied(&changes, &current)?, expected);
    }

    #[test]
    fn additions_come_first_then_what_steps_back_then_what_goes((current, desired) in table_and_successor()) {
        let stages: Vec<Stage> = diff(&current, &desired, |_| true).iter().map(stage).collect();
        prop_assert!(stages.is_sorted(), "{:?}", stages);
    }

    #[test]
    fn a_service_comes_before_its_destinations((current, desired) in table_and_successor()) {
        let mut there: BTreeSet<ServiceKey> = current.services.keys().copied().collect();
        for change in diff(&current, &desired, |_| true) {
            match change {
                Change::AddService { key, .. } => prop_assert!(there.insert(key)),
                change => prop_assert!(there.contains(change.service()), "{change}"),
            }
        }
    }

    #[test]
    fn a_service_that_takes_connections_before_and_after_takes_them_all_the_while(
        (current, desired) in table_and_successor(),
    ) {
        let steady: Vec<_> = current
            .services
            .keys()
            .filter(|key| takes_connections(&current, key) && takes_connections(&desired, key))
            .collect();
        let mut store = MemoryTable::new(current.clone());
        for change in diff(&current, &desired, |_| true) {
            prop_assert_eq!(store.change(&change), Ok(()));
            for key in &steady {
                prop_assert!(takes_connections(&store.table, key), "{key} after: {change}");
            }
        }
    }

    #[test]
    fn every_entry_is_touched_at_most_once((current, desired) in table_and_successor()) {
        let mut touched = BTreeSet::new();
        for change in diff(&current, &desired, |_| true) {
            prop_assert!(touched.insert((*change.service(), destination_of(&change))), "{change}");
        }
        // A deleted service takes its destinations along.
        let gone = |key: &ServiceKey| !desired.services.contains_key(key);
        prop_assert!(touched.iter().all(|(service, destination)| !gone(service) || destination.is_none()));
    }
}
