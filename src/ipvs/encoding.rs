//! A service's entry as bytes, for its digest. What an entry comes to have later belongs at the end of it, and only where
//! it is there: then the digests of all that do not have it stay what they are.

use crate::digest::{Encode, Encoding};

use super::{
    Destination, DestinationKey, Entry, Family, ForwardingMethod, Granularity, Persistence, Protocol,
    SchedulerFlags, Service, ServiceKey, Tunnel, TunnelChecksum,
};

/// A service of a table.
impl Encode for (&ServiceKey, &Entry) {
    fn encode(&self, encoding: &mut Encoding) {
        let (
            key,
            Entry {
                service,
                destinations,
            },
        ) = self;
        key.encode(encoding);
        service.encode(encoding);
        encoding.number(destinations.len() as u64);
        for (key, destination) in destinations {
            key.encode(encoding);
            destination.encode(encoding);
        }
    }
}

impl Encode for ServiceKey {
    fn encode(&self, encoding: &mut Encoding) {
        match self {
            Self::Address {
                protocol,
                address,
                port,
            } => {
                encoding.byte(match protocol {
                    Protocol::Tcp => 1,
                    Protocol::Udp => 2,
                    Protocol::Sctp => 3,
                });
                encoding.address(*address);
                encoding.number((*port).into());
            }
            Self::Mark { family, mark } => {
                encoding.byte(match family {
                    Family::V4 => 4,
                    Family::V6 => 6,
                });
                encoding.number(mark.get().into());
            }
        }
    }
}

impl Encode for Service {
    fn encode(&self, encoding: &mut Encoding) {
        let Self {
            scheduler,
            flags,
            one_packet,
            persistence,
        } = self;
        encoding.optional(scheduler.as_ref(), |encoding, scheduler| {
            encoding.text(scheduler.name());
        });
        let SchedulerFlags { flag1, flag2, flag3 } = *flags;
        for flag in [flag1, flag2, flag3, *one_packet] {
            encoding.byte(flag);
        }
        encoding.optional(persistence.as_ref(), |encoding, persistence| {
            persistence.encode(encoding);
        });
    }
}

impl Encode for Persistence {
    fn encode(&self, encoding: &mut Encoding) {
        let Self {
            timeout,
            granularity,
            engine,
        } = self;
        encoding.number(timeout.as_secs());
        match granularity {
            Granularity::V4(mask) => encoding.address((*mask).into()),
            Granularity::V6(prefix) => encoding.byte(*prefix),
        }
        encoding.optional(engine.as_deref(), Encoding::text);
    }
}

impl Encode for DestinationKey {
    fn encode(&self, encoding: &mut Encoding) {
        let Self { address, port } = self;
        encoding.address(*address);
        encoding.number((*port).into());
    }
}

impl Encode for Destination {
    fn encode(&self, encoding: &mut Encoding) {
        let Self {
            forwarding,
            weight,
            upper_threshold,
            lower_threshold,
        } = self;
        forwarding.encode(encoding);
        for number in [weight.get(), *upper_threshold, *lower_threshold] {
            encoding.number(number.into());
        }
    }
}

impl Encode for ForwardingMethod {
    fn encode(&self, encoding: &mut Encoding) {
        match self {
            Self::Masquerade => encoding.byte(0),
            Self::Local => encoding.byte(1),
            Self::DirectRoute => encoding.byte(2),
            Self::Bypass => encoding.byte(3),
            Self::Tunnel(Tunnel::Ipip) => encoding.byte(4),
            Self::Tunnel(Tunnel::Gue { port, checksum }) => {
                encoding.byte(5);
                encoding.number(port.get().into());
                checksum.encode(encoding);
            }
            Self::Tunnel(Tunnel::Gre { checksum }) => {
                encoding.byte(6);
                checksum.encode(encoding);
            }
        }
    }
}

impl Encode for TunnelChecksum {
    fn encode(&self, encoding: &mut Encoding) {
        encoding.byte(match self {
            Self::None => 0,
            Self::Full => 1,
            Self::Remote => 2,
        });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::time::Duration;

    use super::*;
    use crate::digest;
    use crate::ipvs::Scheduler;

    fn entry() -> (ServiceKey, Entry) {
        let destination = |text: &str| {
            let socket: std::net::SocketAddr = text.parse().unwrap();
            DestinationKey {
                address: socket.ip(),
                port: socket.port(),
            }
        };
        let gre = ForwardingMethod::Tunnel(Tunnel::Gre {
            checksum: TunnelChecksum::Full,
        });
        let entry = Entry {
            service: Service {
                persistence: Some(Persistence {
                    timeout: Duration::from_secs(300),
                    granularity: Granularity::single(Family::V4),
                    engine: None,
                }),
                ..Service::new(Scheduler::WeightedLeastConnections)
            },
            destinations: BTreeMap::from([
                (
                    destination("10.0.0.11:80"),
                    Destination::new(ForwardingMethod::DirectRoute, 1),
                ),
                (destination("[fd00::12]:80"), Destination::new(gre, 7)),
            ]),
        };
        ("TCP 10.0.0.200:80".parse().unwrap(), entry)
    }

    /// Agents of different builds say these numbers to one controller.
    #[test]
    fn an_entry_has_a_known_digest() {
        let (key, entry) = entry();
        assert_eq!(digest::of(&(&key, &entry)), 0x2d2c_89e3_badf_3015);
        let key: ServiceKey = "FWM IPv6 7".parse().unwrap();
        assert_eq!(digest::of(&(&key, &entry)), 0xe2b7_11c6_7915_ea24);
    }

    #[test]
    fn entries_that_differ_in_one_thing_have_different_digests() {
        let (key, original) = entry();
        let first = *original.destinations.keys().next().unwrap();
        let changes: [fn(&mut Entry, &DestinationKey); 9] = [
            |_, _| {},
            |entry, _| entry.service.scheduler = None,
            |entry, _| entry.service.one_packet = true,
            |entry, _| entry.service.flags.flag3 = true,
            |entry, _| entry.service.persistence = None,
            |entry, first| {
                entry.destinations.remove(first);
            },
            |entry, first| *entry.destinations.get_mut(first).unwrap() = entry.destinations[first].quiesced(),
            |entry, first| entry.destinations.get_mut(first).unwrap().upper_threshold = 1,
            |entry, first| entry.destinations.get_mut(first).unwrap().lower_threshold = 1,
        ];
        let digests: BTreeSet<u64> = changes
            .iter()
            .map(|change| {
                let mut entry = original.clone();
                change(&mut entry, &first);
                digest::of(&(&key, &entry))
            })
            .collect();
        assert_eq!(digests.len(), changes.len());
    }
}
