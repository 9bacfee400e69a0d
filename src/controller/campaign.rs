//! Who writes, in the cluster: a replica takes part in the election by the Lease, for as long as it runs.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::election::{Act, Election, INTERVAL as ELECTION_INTERVAL};
use super::write::{LeaseWriter, LeaseWritten};

/// How long one try to take or renew the Lease may take: whoever cannot renew it has to notice before it ends.
const CAMPAIGN: Duration = Duration::from_secs(4);

/// Takes part in the election, and says until when it is won.
pub(super) async fn elect(
    lease: LeaseWriter,
    identity: String,
    leading: watch::Sender<Option<Instant>>,
    shutdown: CancellationToken,
) {
    let mut election = Election::new(identity);
    let (mut problem, mut led) = (None, false);
    loop {
        let result = match timeout(CAMPAIGN, campaign(&lease, &mut election)).await {
            Ok(result) => result.map_err(|error| format!("{error:#}")),
            Err(_) => Err("no answer in time".to_owned()),
        };
        match &result {
            Err(error) if problem.as_ref() != Some(error) => {
                warn!("cannot take part in the election: {error}")
            }
            Ok(()) if problem.is_some() => info!("the Lease can be read and written again"),
            _ => {}
        }
        problem = result.err();
        let until = election.leads_until().map(Instant::from_std);
        let leads = is_to_come(until);
        if leads != led {
            match (leads, election.other_holder()) {
                (true, _) => info!("this controller writes from now on"),
                (false, Some(holder)) => info!("{holder} writes from now on"),
                (false, None) => {
                    warn!("this controller no longer writes: its Lease could not be renewed")
                }
            }
        }
        led = leads;
        leading.send_replace(until);
        tokio::select! {
            () = shutdown.cancelled() => break,
            () = tokio::time::sleep(ELECTION_INTERVAL) => {}
        }
    }
    leading.send_replace(None);
    if let Err(error) = give_back(&lease, &election).await {
        warn!("cannot give the Lease back, another controller has to wait for it: {error:#}");
    }
}

pub(super) fn is_to_come(time: Option<Instant>) -> bool {
    time.is_some_and(|time| Instant::now() < time)
}

async fn campaign(lease: &LeaseWriter, election: &mut Election) -> anyhow::Result<()> {
    let read = lease.read().await?;
    let began = Instant::now().into_std();
    if let Act::Write(spec) = election.look(read.as_ref(), began, Timestamp::now()) {
        match lease.write(read.as_ref(), *spec).await? {
            LeaseWritten::Yes => election.written(began),
            LeaseWritten::Lost => election.lost(),
        }
    }
    Ok(())
}

async fn give_back(lease: &LeaseWriter, election: &Election) -> anyhow::Result<()> {
    let read = lease.read().await?;
    if let Some(read) = &read
        && let Some(spec) = election.released(read)
    {
        lease.write(Some(read), spec).await?;
    }
    Ok(())
}
