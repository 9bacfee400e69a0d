//! Services.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::ipvs::listing::ListedService;
use crate::ipvs::table::{Family, Granularity, Persistence, SchedulerFlags, Service, ServiceKey};
use crate::netlink::{Attributes, MessageWriter, read_u16, read_u16_be, read_u32};

use super::attribute;
use super::value::{
    address_bytes, family_number, protocol_from_number, protocol_number, read_address, read_family,
    read_statistics, read_string, read_v4, whole_seconds,
};

/// Attributes of a service (`IPVS_SVC_ATTR_*`).
mod service_attribute {
    pub(super) const FAMILY: u16 = 1;
    pub(super) const PROTOCOL: u16 = 2;
    pub(super) const ADDRESS: u16 = 3;
    pub(super) const PORT: u16 = 4;
    pub(super) const MARK: u16 = 5;
    pub(super) const SCHEDULER: u16 = 6;
    pub(super) const FLAGS: u16 = 7;
    pub(super) const TIMEOUT: u16 = 8;
    pub(super) const NETMASK: u16 = 9;
    pub(super) const STATISTICS: u16 = 10;
    pub(super) const ENGINE: u16 = 11;
    pub(super) const STATISTICS64: u16 = 12;
}

/// `IP_VS_SVC_F_*`.
const FLAG_PERSISTENT: u32 = 0x1;
const FLAG_ONE_PACKET: u32 = 0x4;
const FLAG_SCHEDULER: [u32; 3] = [0x8, 0x10, 0x20];
/// The kernel's word for a service that schedules nothing.
const NO_SCHEDULER: &str = "none";

/// Writes what identifies a service, as `DEL_SERVICE`, `GET_DEST` and the destination commands need it.
pub fn write_service_key(message: &mut MessageWriter<'_>, key: &ServiceKey) {
    message.nest(attribute::SERVICE, |service| write_key_attributes(service, key));
}

/// Writes a whole service for `NEW_SERVICE` and `SET_SERVICE`.
pub fn write_service(message: &mut MessageWriter<'_>, key: &ServiceKey, value: &Service) {
    let Service {
        scheduler,
        flags,
        one_packet,
        persistence,
    } = value;
    message.nest(attribute::SERVICE, |service| {
        write_key_attributes(service, key);
        service.string(
            service_attribute::SCHEDULER,
            scheduler
                .as_ref()
                .map_or(NO_SCHEDULER, |scheduler| scheduler.name()),
        );
        let mut bits = 0;
        for (set, bit) in [flags.flag1, flags.flag2, flags.flag3]
            .into_iter()
            .zip(FLAG_SCHEDULER)
        {
            bits |= if set { bit } else { 0 };
        }
        bits |= if *one_packet { FLAG_ONE_PACKET } else { 0 };
        bits |= if persistence.is_some() { FLAG_PERSISTENT } else { 0 };
        let mut flags_and_mask = [0xff; 8];
        flags_and_mask[..4].copy_from_slice(&bits.to_ne_bytes());
        service.array(service_attribute::FLAGS, flags_and_mask);
        let seconds = persistence
            .as_ref()
            .map_or(0, |persistence| whole_seconds(persistence.timeout));
        service.u32(service_attribute::TIMEOUT, seconds);
        let granularity = persistence
            .as_ref()
            .map_or(Granularity::single(key.family()), |persistence| {
                persistence.granularity
            });
        match granularity {
            Granularity::V4(mask) => service.array(service_attribute::NETMASK, mask.octets()),
            Granularity::V6(prefix) => service.u32(service_attribute::NETMASK, prefix.into()),
        }
        if let Some(engine) = persistence
            .as_ref()
            .and_then(|persistence| persistence.engine.as_deref())
        {
            service.string(service_attribute::ENGINE, engine);
        }
    });
}

fn write_key_attributes(service: &mut MessageWriter<'_>, key: &ServiceKey) {
    service.u16(service_attribute::FAMILY, family_number(key.family()));
    match key {
        ServiceKey::Address {
            protocol,
            address,
            port,
        } => {
            service.u16(service_attribute::PROTOCOL, protocol_number(*protocol));
            service.array(service_attribute::ADDRESS, address_bytes(*address));
            service.u16_be(service_attribute::PORT, *port);
        }
        ServiceKey::Mark { mark, .. } => service.u32(service_attribute::MARK, mark.get()),
    }
}

/// Reads a service from a reply to `GET_SERVICE`, without its destinations.
///
/// `None` for a service that Weir cannot name, such as one of a protocol that is neither TCP, UDP nor SCTP.
pub fn read_service(mut attributes: Attributes<'_>) -> Option<ListedService> {
    let (_, nested) = attributes.find(|(kind, _)| *kind == attribute::SERVICE)?;
    let (mut family, mut protocol, mut address, mut port, mut mark) = (None, None, None, 0, None);
    let (mut scheduler, mut bits, mut timeout, mut netmask, mut engine) = (None, 0, 0, None, None);
    let (mut statistics, mut statistics64) = (None, None);
    for (kind, payload) in Attributes::new(nested) {
        match kind {
            service_attribute::FAMILY => family = read_family(payload),
            service_attribute::PROTOCOL => protocol = read_u16(payload),
            service_attribute::ADDRESS => address = Some(payload),
            service_attribute::PORT => port = read_u16_be(payload)?,
            service_attribute::MARK => mark = read_u32(payload).and_then(NonZeroU32::new),
            service_attribute::SCHEDULER => scheduler = read_string(payload),
            service_attribute::FLAGS => bits = read_u32(payload)?,
            service_attribute::TIMEOUT => timeout = read_u32(payload)?,
            service_attribute::NETMASK => netmask = Some(payload),
            service_attribute::STATISTICS => statistics = Some(payload),
            service_attribute::ENGINE => engine = read_string(payload),
            service_attribute::STATISTICS64 => statistics64 = Some(payload),
            _ => {}
        }
    }
    let family = family?;
    let key = match mark {
        Some(mark) => ServiceKey::Mark { family, mark },
        None => ServiceKey::Address {
            protocol: protocol_from_number(protocol?)?,
            address: read_address(family, address?)?,
            port,
        },
    };
    let granularity = match (family, netmask) {
        (_, None) => Granularity::single(family),
        (Family::V4, Some(mask)) => Granularity::V4(read_v4(mask)?),
        (Family::V6, Some(prefix)) => Granularity::V6(u8::try_from(read_u32(prefix)?).ok()?),
    };
    let scheduler = match scheduler {
        None | Some(NO_SCHEDULER) => None,
        Some(name) => name.parse().ok(),
    };
    let [flag1, flag2, flag3] = FLAG_SCHEDULER.map(|bit| bits & bit != 0);
    let service = Service {
        scheduler,
        flags: SchedulerFlags { flag1, flag2, flag3 },
        one_packet: bits & FLAG_ONE_PACKET != 0,
        persistence: (bits & FLAG_PERSISTENT != 0).then(|| Persistence {
            timeout: Duration::from_secs(timeout.into()),
            granularity,
            engine: engine.map(Into::into),
        }),
    };
    let statistics = read_statistics(statistics64, statistics);
    Some(ListedService {
        key,
        service,
        statistics,
        destinations: Vec::new(),
    })
}
