//! Everything a node's network holds, as text: what somebody leaves behind shows as a difference.

use std::fs;
use std::path::Path;

use super::topology::Node;

/// Commands whose output together is what a node holds.
const COMMANDS: [&str; 8] = [
    "ip -details link show",
    "ip address show",
    "ip rule show",
    "ip -6 rule show",
    "ip route show table all",
    "ip -6 route show table all | grep -v '^fe80\\|^multicast\\|^anycast' || true",
    "nft list ruleset",
    "ipvsadm -Sn; ipvsadm -Ln --timeout --daemon; ip fou show",
];

/// Drivers make links of their own when they are loaded, in all namespaces and for good: that is nobody's trace.
const DRIVERS: &str = "modprobe -a ipip sit ip_gre ip6_gre ip6_tunnel fou fou6";

/// Links, addresses, rules, routes, nftables, IPVS, GUE ports and every setting of a node.
pub fn of(node: &Node) -> String {
    node.netns.sh(DRIVERS);
    let mut text = String::new();
    for command in COMMANDS {
        text += &format!("# {command}\n{}", node.netns.sh(command));
    }
    text += "# settings\n";
    node.netns.run(|| settings(Path::new("/proc/sys/net"), &mut text));
    without_what_moves_by_itself(&text)
}

fn settings(folder: &Path, text: &mut String) {
    let mut entries: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            settings(&path, text);
        } else if let Ok(value) = fs::read_to_string(&path) {
            *text += &format!("{} {}\n", path.display(), value.trim());
        }
    }
}

/// Counters, lifetimes, and what the kernel reckons from the load.
fn without_what_moves_by_itself(text: &str) -> String {
    let moves = [
        "/nf_conntrack_count ",
        "/stable_secret ",
        "/ip_local_",
        "/random/",
        "/gc_",
        "/tcp_fastopen_key ",
    ];
    text.lines()
        .filter(|line| !moves.iter().any(|name| line.contains(name)))
        .map(|line| line.split(" expires ").next().unwrap_or(line).to_owned() + "\n")
        .collect()
}

/// The lines of either text that the other has not, marked `-` and `+`.
pub fn difference(before: &str, after: &str) -> String {
    let only = |these: &str, those: &str, sign: char| -> String {
        let those: std::collections::BTreeSet<&str> = those.lines().collect();
        these
            .lines()
            .filter(|line| !those.contains(line))
            .map(|line| format!("{sign} {line}\n"))
            .collect()
    };
    only(before, after, '-') + &only(after, before, '+')
}
