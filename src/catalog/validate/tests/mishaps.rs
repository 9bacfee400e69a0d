//! Mishaps: what can happen to an object that was valid.

use std::collections::BTreeSet;
use std::net::IpAddr;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Value, json};

use super::objects::spec;
use crate::api::Duration;

/// A valid object's spec after up to two mishaps.
pub(super) fn mutated_spec(kind: &str) -> BoxedStrategy<Value> {
    let mishaps = vec((any::<Index>(), mishap()), 0..=2);
    (spec(kind), spec(kind), mishaps)
        .prop_map(|(mut spec, donor, mishaps)| {
            for (place, mishap) in mishaps {
                mishap.befall(&mut spec, place, &donor);
            }
            spec
        })
        .boxed()
}

/// What can happen to one place of an object.
#[derive(Debug, Clone)]
enum Mishap {
    /// It is gone.
    Remove,
    /// It holds another value of its type.
    Change(Odd),
    /// A list holds its first item so many times more; a map has so many entries more.
    Repeat(usize),
    /// A map's entry has another name.
    Rename(String),
    /// Another valid object has something here, and so has this one now.
    Graft(Index),
}

/// What to put in the place of a value, by what it was.
#[derive(Debug, Clone, Default)]
struct Odd {
    address: &'static str,
    duration: &'static str,
    text: String,
    number: i64,
}

fn odd() -> impl Strategy<Value = Odd> {
    (
        select(ADDRESS_LIKE),
        select(DURATION_LIKE),
        odd_text(),
        odd_number(),
    )
        .prop_map(|(address, duration, text, number)| Odd {
            address,
            duration,
            text,
            number,
        })
}

fn mishap() -> impl Strategy<Value = Mishap> {
    prop_oneof![
        2 => Just(Mishap::Remove),
        6 => odd().prop_map(Mishap::Change),
        1 => prop_oneof![Just(1usize), 6..18usize, 30..70usize].prop_map(Mishap::Repeat),
        1 => odd_text().prop_map(Mishap::Rename),
        4 => any::<Index>().prop_map(Mishap::Graft),
    ]
}

/// Texts on either side of some bound or grammar.
fn odd_text() -> impl Strategy<Value = String> {
    let lengths = select(LENGTHS);
    prop_oneof![
        5 => select(WORDS).prop_map(str::to_owned),
        1 => lengths.clone().prop_map(|length| "a".repeat(length)),
        1 => lengths.prop_map(|length| "ä".repeat(length)),
        1 => "[a-z0-9.:/ %-]{0,12}",
        1 => "([0-9]{1,10}(ms|s|m|h|d)){0,4}",
    ]
}

const LENGTHS: &[usize] = &[
    1, 2, 15, 16, 32, 33, 45, 46, 63, 64, 65, 253, 254, 317, 318, 1024, 1025,
];
const NUMBERS: &[i64] = &[
    0,
    1,
    80,
    100,
    101,
    128,
    255,
    65_535,
    2_147_483_647,
    -2_147_483_648,
    4_294_967_295,
];
const ADDRESS_LIKE: &[&str] = &[
    "10.0.0.1",
    "010.0.0.1",
    "10.0.0.01",
    "10.0.0",
    "10.0.0.256",
    "10.0.0.1/24",
    "10.0.0.1:80",
    " 10.0.0.1",
    "::",
    "::1",
    "fd00::1%eth0",
    "fd00::1/64",
    "[fd00::1]",
    "::ffff:10.0.0.1",
    "::ffff:a00:1",
    "::10.0.0.1",
    "1:2:3:4:5:6:7:8",
    "1:2:3:4:5:6:7::",
    "1:2:3:4:5:6:7:8:9",
    "1:2:3:4::5:6:7:8",
    "00001::",
    "FD00::1",
    "0:0:0:0:0:ffff:10.0.0.1",
    "64:ff9b::10.0.0.1",
    "1::2::3",
    "255.255.255.255",
    "224.0.0.1",
    "0x7f.1",
    "0000:0000:0000:0000:0000:0000:255.255.255.255",
    "255.255.255.0",
    "::ffff:0:10.0.0.1",
];
const DURATION_LIKE: &[&str] = &[
    "0s",
    "1s",
    "999ms",
    "1000ms",
    "744h",
    "744h1ms",
    "744h1s",
    "745h",
    "596h1ms",
    "999999999h",
    "2562047h",
    "2562048h",
    "1.5s",
    "-1s",
    "1",
    "s",
    "1S",
    "1d",
    "1us",
    "1ns",
    "1h1m1s1ms",
    "1s1s",
    "9999999999s",
    "000000001s",
    "+1s",
    "999999999h999999999h999999999h",
    "1s ",
    "½s",
];
const WORDS: &[&str] = &[
    "",
    "None",
    "TCP",
    "UDP",
    "tcp",
    "IPv4",
    "IPIP",
    "GUE",
    "GRE",
    "Full",
    "Remote",
    "Masquerade",
    "Tunnel",
    "DirectRoute",
    "Local",
    "sh",
    "mh",
    "wlc",
    "sh-port",
    "mh-port",
    "mh-fallback",
    "flag-1",
    "In",
    "NotIn",
    "Exists",
    "VRRP",
    "Lease",
    "Static",
    "Routed",
    "HTTP",
    "web",
    "web-",
    "-web",
    "Web",
    "we b",
    "web\n",
    "a/b",
    "eth\u{b}0",
    "eth\u{a0}0",
    "eth\t0",
    "net.ipv4.vs.",
    "net.ipv4.ip_forward",
    "net.ipv4.vs.conntrack",
    "app",
    "item-0",
    "item-1",
    "weir.dev/role",
];

/// Numbers on either side of some bound.
fn odd_number() -> impl Strategy<Value = i64> {
    prop_oneof![
        Just(0),
        (select(NUMBERS), -1..=1i64).prop_map(|(bound, step)| bound + step),
        -5..70_000i64
    ]
}

/// A spec after each single mishap that is worth a try, at each place whose field is not among `seen`, which it is
/// from then on.
pub(super) fn after_each_mishap(spec: &Value, seen: &mut BTreeSet<String>) -> Vec<Value> {
    let mut specs = Vec::new();
    for pointer in pointers(spec) {
        if !seen.insert(field(&pointer)) {
            continue;
        }
        specs.extend(mishaps_of(&pointer, spec).into_iter().map(|mishap| {
            let mut spec = spec.clone();
            mishap.befall_at(&pointer, &mut spec);
            spec
        }));
    }
    specs
}

/// The field at a place, whatever the place in a list.
fn field(pointer: &str) -> String {
    let part = |part: &str| {
        if part.parse::<usize>().is_ok() {
            "[]".to_owned()
        } else {
            part.to_owned()
        }
    };
    pointer.split('/').map(part).collect::<Vec<_>>().join(".")
}

fn mishaps_of(pointer: &str, spec: &Value) -> Vec<Mishap> {
    let changes = match spec.pointer(pointer) {
        Some(Value::Number(_)) => {
            let around = |bound: &i64| [bound - 1, *bound, bound + 1];
            let odd = |number| Odd {
                number,
                ..Odd::default()
            };
            NUMBERS.iter().flat_map(around).map(odd).collect()
        }
        Some(Value::String(_)) => {
            let alike = ADDRESS_LIKE.iter().zip(DURATION_LIKE.iter().cycle());
            let alike = alike.map(|(address, duration)| Odd {
                address,
                duration,
                ..Odd::default()
            });
            let words = WORDS.iter().map(|word| (*word).to_owned());
            let long = LENGTHS
                .iter()
                .flat_map(|length| ["a".repeat(*length), "ä".repeat(*length)]);
            alike
                .chain(words.chain(long).map(|text| Odd {
                    text,
                    ..Odd::default()
                }))
                .collect()
        }
        _ => vec![Odd::default()],
    };
    let mut mishaps = vec![Mishap::Remove];
    mishaps.extend(changes.into_iter().map(Mishap::Change));
    if can_repeat(pointer, spec) {
        mishaps.extend([1, 7, 8, 15, 16, 31, 32, 63, 64].map(Mishap::Repeat));
    }
    mishaps
}

impl Mishap {
    fn befall(self, spec: &mut Value, place: Index, donor: &Value) {
        if let Self::Graft(origin) = self {
            let donors = pointers(donor);
            if let Some(pointer) = pick(&donors, origin) {
                graft(spec, pointer, donor);
            }
            return;
        }
        let mut places = pointers(spec);
        if let Self::Repeat(_) = self {
            places.retain(|pointer| can_repeat(pointer, spec));
        }
        if let Some(pointer) = pick(&places, place) {
            self.befall_at(pointer, spec);
        }
    }

    fn befall_at(self, pointer: &str, spec: &mut Value) {
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        match self {
            Self::Change(odd) => {
                if let Some(value) = spec.pointer_mut(pointer) {
                    change(value, odd);
                }
            }
            Self::Repeat(times) => match spec.pointer_mut(pointer) {
                Some(Value::Array(items)) => {
                    let more = items.first().cloned();
                    items.extend(std::iter::repeat_n(more, times).flatten());
                }
                Some(Value::Object(members)) => {
                    members.extend((0..times).map(|number| (format!("net.ipv4.vs.{number}"), json!("1"))));
                }
                _ => {}
            },
            Self::Remove | Self::Rename(_) => match spec.pointer_mut(parent) {
                Some(Value::Array(items)) => drop(items.remove(name.parse().unwrap())),
                Some(Value::Object(members)) => {
                    let value = members.remove(&unescape(name));
                    if let (Self::Rename(name), Some(value)) = (self, value) {
                        members.insert(name, value);
                    }
                }
                _ => {}
            },
            Self::Graft(_) => {}
        }
    }
}

fn can_repeat(pointer: &str, spec: &Value) -> bool {
    let is_map = ["/matchLabels", "/sysctls"]
        .iter()
        .any(|name| pointer.ends_with(name));
    is_map || spec.pointer(pointer).is_some_and(Value::is_array)
}

fn change(value: &mut Value, odd: Odd) {
    match value {
        Value::String(old) if old.parse::<IpAddr>().is_ok() => *old = odd.address.to_owned(),
        Value::String(old) if Duration(old.clone()).parse().is_ok() => *old = odd.duration.to_owned(),
        Value::String(old) => *old = odd.text,
        Value::Number(old) => *old = odd.number.into(),
        Value::Bool(old) => *old = !*old,
        Value::Array(items) => items.clear(),
        Value::Object(members) => members.clear(),
        Value::Null => {}
    }
}

fn graft(spec: &mut Value, pointer: &str, donor: &Value) {
    let Some(value) = donor.pointer(pointer).cloned() else {
        return;
    };
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    match spec.pointer_mut(parent) {
        Some(Value::Object(members)) => drop(members.insert(unescape(name), value)),
        Some(Value::Array(items)) => items.push(value),
        _ => {}
    }
}

fn unescape(token: &str) -> String {
    token.replace("~1", "/").replace("~0", "~")
}

/// JSON pointers of everything in a value, but for the value itself.
fn pointers(value: &Value) -> Vec<String> {
    let mut all = Vec::new();
    collect("", value, &mut all);
    all
}

fn collect(path: &str, value: &Value, all: &mut Vec<String>) {
    let children: Vec<(String, &Value)> = match value {
        Value::Object(members) => members
            .iter()
            .map(|(name, member)| (name.replace('~', "~0").replace('/', "~1"), member))
            .collect(),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .map(|(index, item)| (index.to_string(), item))
            .collect(),
        _ => Vec::new(),
    };
    for (name, child) in children {
        let path = format!("{path}/{name}");
        all.push(path.clone());
        collect(&path, child, all);
    }
}

fn pick(pointers: &[String], place: Index) -> Option<&String> {
    (!pointers.is_empty()).then(|| place.get(pointers))
}
