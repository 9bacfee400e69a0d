//! What the agent makes of what it hears of the kernel.

use std::time::Instant;

use tokio::sync::mpsc;

use crate::host::HostStore;
use crate::ipvs::TableStore;
use crate::netlink::Event;
use crate::phases::contest;

use super::Agent;
use super::heard::Concerned;
use super::timing::Timer;

impl<S: TableStore + Send + 'static, H: HostStore + Send + 'static> Agent<S, H> {
    /// Takes in what was heard of the kernel. While something is done, it waits: what is heard then may be an echo of that.
    pub(super) fn take_heard(&mut self, events: Vec<Event>) {
        self.hearing.hear(events);
        if !self.worker.is_busy() {
            self.judge_heard();
        }
    }

    pub(super) fn judge_heard(&mut self) {
        let now = tokio::time::Instant::now().into_std();
        for concerned in self.hearing.concerned(&self.world, now) {
            match concerned {
                Concerned::Around(work) => self.look_at_heard(work, now),
                Concerned::Table => self.repair_table(),
                Concerned::Everything => {
                    self.look_at_heard(contest::Work::Addresses, now);
                    self.pending.check_for_flush = true;
                }
                Concerned::Carrier(link) => {
                    self.look_at_heard(contest::Work::Addresses, now);
                    self.pending.announce_links.insert(link);
                }
                Concerned::Program(program) => {
                    self.timing.undone.seen(contest::Work::Rules, &program);
                    self.tell_contests();
                }
            }
        }
    }

    /// Plans a look at what is around the table, as soon as somebody else's undoing of it may be repaired.
    fn look_at_heard(&mut self, work: contest::Work, now: Instant) {
        let look = self.hearing.look_at(now);
        let look = self
            .timing
            .undone
            .may_repair(work)
            .map_or(look, |time| time.max(look));
        self.timing.agenda.set_at_latest(Timer::Heard, look);
    }
}

/// What is heard next; waits for ever where nobody listens.
pub(super) async fn next(events: &mut Option<mpsc::Receiver<Vec<Event>>>) -> Vec<Event> {
    let heard = match events {
        Some(events) => events.recv().await,
        None => None,
    };
    match heard {
        Some(heard) => heard,
        None => std::future::pending().await,
    }
}
