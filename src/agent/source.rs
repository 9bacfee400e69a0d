//! What the agent knows of its source.

use tokio::sync::watch;

use crate::plan::{Knowledge, World};

/// What the agent knows of its source.
#[derive(Debug, Default)]
pub(super) struct SourceState {
    /// Where the agent says whether it wants to know of Services and their endpoints; absent where there are none.
    wants_endpoints: Option<watch::Sender<bool>>,
    /// Whether they are known.
    pub(super) knows_endpoints: bool,
    /// What has been reported.
    pub(super) reported: Reported,
    /// What is wrong with it.
    pub(super) problems: Vec<String>,
}

/// What a source has reported.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Reported {
    /// Not everything yet.
    #[default]
    Something,
    /// Everything that it can read; there is more.
    Readable,
    /// Everything.
    Everything,
}

impl SourceState {
    /// A source that is asked for Services and their endpoints while there is use for them.
    pub(super) fn asked_for_endpoints(wants: watch::Sender<bool>) -> Self {
        Self {
            wants_endpoints: Some(wants),
            ..Self::default()
        }
    }

    /// Says whether endpoints are wanted, and whether they are and nothing is known of them yet: then they would look as
    /// if they were gone.
    pub(super) fn lacks_endpoints(&self, world: &World) -> bool {
        let Some(wants) = &self.wants_endpoints else {
            return false;
        };
        let needed = world.needs_endpoints();
        wants.send_if_modified(|wanted| std::mem::replace(wanted, needed) != needed);
        needed && !self.knows_endpoints
    }

    /// How much is known of what is wanted, after all that has been reported until now. What was known once as a whole stays
    /// so: of an object that cannot be read any more an earlier version is in force.
    pub(super) fn knowledge(&self, world: &World) -> Knowledge {
        match (world.knowledge, self.reported) {
            (Knowledge::Whole, _) => Knowledge::Whole,
            (_, Reported::Something) => Knowledge::Awaited,
            (_, Reported::Everything) if !world.catalog.has_formless() => Knowledge::Whole,
            (_, Reported::Everything | Reported::Readable) => Knowledge::Partial,
        }
    }
}
