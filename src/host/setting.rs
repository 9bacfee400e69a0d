//! What the name of a setting says: `net.ipv4.conf.eth0.rp_filter`.

/// Names of settings of one link begin so.
const OF_LINKS: [&str; 2] = ["net.ipv4.conf.", "net.ipv6.conf."];

/// The link that a setting is of, as it is written there: a dot in a link's name is a slash (sysctl(8)).
pub(super) fn link_of(setting: &str) -> Option<&str> {
    let mut rest = OF_LINKS.iter().filter_map(|prefix| setting.strip_prefix(prefix));
    let (link, _) = rest.next()?.rsplit_once('.')?;
    Some(link)
}

/// Whether a setting is of a link of this name.
pub(super) fn is_of_link(setting: &str, link: &str) -> bool {
    link_of(setting).is_some_and(|of| of == escaped(link))
}

/// Whether a setting is one that keeps a node quiet (`arp_ignore`, `arp_announce`).
pub(super) fn keeps_quiet(setting: &str) -> bool {
    let name = setting.rsplit_once('.').map_or(setting, |(_, name)| name);
    link_of(setting).is_some() && matches!(name, "arp_ignore" | "arp_announce")
}

/// A link's name as settings write it.
pub(super) fn escaped(link: &str) -> String {
    link.replace('.', "/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_of_the_link_that_it_names_and_of_no_other() {
        assert!(is_of_link("net.ipv4.conf.eth0/7.rp_filter", "eth0.7"));
        assert!(!is_of_link("net.ipv4.conf.eth0/7.rp_filter", "eth0"));
        assert!(!is_of_link("net.ipv4.conf.weir-ipip-12.rp_filter", "weir-ipip-1"));
        assert!(!is_of_link("net.ipv4.ip_forward", "ip_forward"));
    }

    #[test]
    fn what_keeps_a_node_quiet_is_told_by_name() {
        assert!(keeps_quiet("net.ipv4.conf.all.arp_ignore"));
        assert!(!keeps_quiet("net.ipv4.conf.all.arp_accept") && !keeps_quiet("net.ipv4.ip_forward"));
    }
}
