//! Clients that notice when something is lost.

use rustix::process::Signal;

use super::VIPS;
use crate::control_plane::{limit, until};
use crate::lab::remote::{Program, Vm};

/// Clients of both VIPs, which ask every 50 ms on a new connection, and clients that hold 20 connections each.
pub(crate) struct Clients<'vm> {
    asking: Vec<Program<'vm>>,
    holding: Vec<Program<'vm>>,
}

impl<'vm> Clients<'vm> {
    /// Starts them; connections are held to these VIPs.
    pub(crate) async fn start(vm: &'vm Vm, held: &[&str]) -> Self {
        let start = |words: &str, vips: &[&str]| {
            let start = |vip: &&str| {
                vm.start(
                    Some("client"),
                    &["sh", "-c", &format!("exec lab {words} {vip}:80")],
                )
            };
            vips.iter().map(start).collect()
        };
        let clients = Self {
            asking: start("probe --every 50 --timeout 5000 --seconds 3600", &VIPS),
            holding: start("hold -n 20 --timeout 5000 --seconds 3600", held),
        };
        for program in &clients.holding {
            until("connections to be open", limit(180), async || {
                let log = program.log();
                if log.contains("open: ") { Ok(()) } else { Err(log) }
            })
            .await;
        }
        clients
    }

    /// Ends them, and says how often was asked. None may have asked in vain, and all connections must still be answered by
    /// whom they were.
    pub(crate) async fn assert_none_lost(self, meanwhile: &str) -> u32 {
        let mut total = 0;
        for program in &self.asking {
            let said = ended(program).await;
            let count = |what: &str| said.split(what).nth(1)?.split(',').next()?.parse::<u32>().ok();
            let (asked, answered) = (count("asked: "), count("answered: "));
            assert!(asked.is_some() && asked == answered, "{meanwhile}: {said}");
            total += asked.unwrap_or_default();
        }
        for program in &self.holding {
            let said = ended(program).await;
            assert!(said.contains("alive: 20, broken: {}"), "{meanwhile}: {said}");
        }
        total
    }
}

/// Asks a program to end, and hands back what it has printed.
async fn ended(program: &Program<'_>) -> String {
    program.signal(Signal::TERM);
    until("a client to end", limit(180), async || {
        let status = program.ended().ok_or("it still runs")?;
        Ok(format!("{} (status {status})", program.log()))
    })
    .await
}
