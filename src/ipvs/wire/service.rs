//! Services.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use neli::consts::genl::NlAttrType;
use neli::neli_enum;

use crate::ipvs::listing::ListedService;
use crate::ipvs::table::{Family, Granularity, Persistence, Protocol, SchedulerFlags, Service, ServiceKey};
use crate::netlink::{Attributes, Fixed, MessageWriter, Word, read_string, read_u16, read_u16_be, read_u32};

use super::CommandAttribute;
use super::value::{
    address_bytes, family_number, protocol_from_number, protocol_number, read_address, read_family,
    read_statistics, read_v4, whole_seconds,
};

/// Attributes of a service (`IPVS_SVC_ATTR_*`).
#[neli_enum(serialized_type = "u16")]
enum ServiceAttribute {
    Family = 1,
    Protocol = 2,
    Address = 3,
    Port = 4,
    Mark = 5,
    Scheduler = 6,
    Flags = 7,
    Timeout = 8,
    Netmask = 9,
    Statistics = 10,
    Engine = 11,
    Statistics64 = 12,
}

impl NlAttrType for ServiceAttribute {}

/// `IP_VS_SVC_F_*`.
const FLAG_PERSISTENT: u32 = 0x1;
const FLAG_ONE_PACKET: u32 = 0x4;
const FLAG_SCHEDULER: [u32; 3] = [0x8, 0x10, 0x20];
/// The kernel's word for a service that schedules nothing.
const NO_SCHEDULER: &str = "none";

/// Writes what identifies a service, as `DEL_SERVICE`, `GET_DEST` and the destination commands need it.
#[inline]
pub fn write_service_key(message: &mut MessageWriter<'_, CommandAttribute>, key: &ServiceKey) {
    let kind = CommandAttribute::Service;
    match key {
        ServiceKey::Address {
            protocol,
            address,
            port,
        } => message.nest_fixed::<_, { 4 + ADDRESS_KEY }>(kind, |service| {
            write_address_attributes(service, *protocol, *address, *port)
        }),
        ServiceKey::Mark { family, mark } => message.nest_fixed::<_, { 4 + MARK_KEY }>(kind, |service| {
            write_mark_attributes(service, *family, *mark)
        }),
    }
}

/// Writes a whole service for `NEW_SERVICE` and `SET_SERVICE`.
pub fn write_service(message: &mut MessageWriter<'_, CommandAttribute>, key: &ServiceKey, value: &Service) {
    let Service {
        scheduler,
        flags,
        one_packet,
        persistence,
    } = value;
    message.nest(CommandAttribute::Service, |service| {
        match key {
            ServiceKey::Address {
                protocol,
                address,
                port,
            } => service.fixed::<ADDRESS_KEY>(|service| {
                write_address_attributes(service, *protocol, *address, *port)
            }),
            ServiceKey::Mark { family, mark } => {
                service.fixed::<MARK_KEY>(|service| write_mark_attributes(service, *family, *mark))
            }
        }
        service.string(
            ServiceAttribute::Scheduler,
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
        service.array(ServiceAttribute::Flags, flags_and_mask);
        let seconds = persistence
            .as_ref()
            .map_or(0, |persistence| whole_seconds(persistence.timeout));
        service.u32(ServiceAttribute::Timeout, seconds);
        let granularity = persistence
            .as_ref()
            .map_or(Granularity::single(key.family()), |persistence| {
                persistence.granularity
            });
        match granularity {
            Granularity::V4(mask) => service.array(ServiceAttribute::Netmask, mask.octets()),
            Granularity::V6(prefix) => service.u32(ServiceAttribute::Netmask, prefix.into()),
        }
        if let Some(engine) = persistence
            .as_ref()
            .and_then(|persistence| persistence.engine.as_deref())
        {
            service.string(ServiceAttribute::Engine, engine);
        }
    });
}

/// Bytes of the attributes that identify a service: an address and three small ones, or two small ones.
const ADDRESS_KEY: usize = 20 + 3 * 8;
const MARK_KEY: usize = 2 * 8;

#[inline(always)]
fn write_address_attributes(
    service: &mut Fixed<'_, ServiceAttribute>,
    protocol: Protocol,
    address: IpAddr,
    port: u16,
) {
    service.words([
        Word::u16(ServiceAttribute::Family, family_number(Family::of(address))),
        Word::u16(ServiceAttribute::Protocol, protocol_number(protocol)),
    ]);
    service.array(ServiceAttribute::Address, address_bytes(address));
    service.words([Word::u16_be(ServiceAttribute::Port, port)]);
}

fn write_mark_attributes(service: &mut Fixed<'_, ServiceAttribute>, family: Family, mark: NonZeroU32) {
    service.words([
        Word::u16(ServiceAttribute::Family, family_number(family)),
        Word::u32(ServiceAttribute::Mark, mark.get()),
    ]);
}

/// Reads a service from a reply to `GET_SERVICE`, without its destinations.
///
/// `None` for a service that Weir cannot name, such as one of a protocol that is neither TCP, UDP nor SCTP.
pub fn read_service(attributes: Attributes<'_, CommandAttribute>) -> Option<ListedService> {
    let nested = attributes.get(CommandAttribute::Service)?;
    let (mut family, mut protocol, mut address, mut port, mut mark) = (None, None, None, 0, None);
    let (mut scheduler, mut bits, mut timeout, mut netmask, mut engine) = (None, 0, 0, None, None);
    let (mut statistics, mut statistics64) = (None, None);
    for (kind, payload) in Attributes::new(nested) {
        match kind {
            ServiceAttribute::Family => family = read_family(payload),
            ServiceAttribute::Protocol => protocol = read_u16(payload),
            ServiceAttribute::Address => address = Some(payload),
            ServiceAttribute::Port => port = read_u16_be(payload)?,
            ServiceAttribute::Mark => mark = read_u32(payload).and_then(NonZeroU32::new),
            ServiceAttribute::Scheduler => scheduler = read_string(payload),
            ServiceAttribute::Flags => bits = read_u32(payload)?,
            ServiceAttribute::Timeout => timeout = read_u32(payload)?,
            ServiceAttribute::Netmask => netmask = Some(payload),
            ServiceAttribute::Statistics => statistics = Some(payload),
            ServiceAttribute::Engine => engine = read_string(payload),
            ServiceAttribute::Statistics64 => statistics64 = Some(payload),
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
