//! Objects that are valid.

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Map, Value, json};

/// A valid object's spec as it may be written.
pub(super) fn spec(kind: &str) -> BoxedStrategy<Value> {
    match kind {
        "VirtualService" => virtual_service(),
        "RealServer" => real_server(),
        "DirectorGroup" => director_group(),
        kind => panic!("no strategy for {kind}"),
    }
}

type Field = (&'static str, BoxedStrategy<Option<Value>>);

fn required(name: &'static str, value: impl Strategy<Value = Value> + 'static) -> Field {
    (name, value.prop_map(Some).boxed())
}

fn optional(name: &'static str, value: impl Strategy<Value = Value> + 'static) -> Field {
    (name, option::of(value).boxed())
}

/// Fields that are seldom there, so that most objects stay small.
fn rare(name: &'static str, value: impl Strategy<Value = Value> + 'static) -> Field {
    (name, option::weighted(0.15, value).boxed())
}

fn object(fields: impl IntoIterator<Item = Field>) -> BoxedStrategy<Value> {
    let (names, values): (Vec<_>, Vec<_>) = fields.into_iter().unzip();
    values
        .prop_map(move |values| {
            let members = names.iter().zip(values);
            let members = members.filter_map(|(name, value)| Some(((*name).to_owned(), value?)));
            Value::Object(members.collect::<Map<_, _>>())
        })
        .boxed()
}

fn one_of(values: impl Into<Vec<Value>>) -> BoxedStrategy<Value> {
    select(values.into()).boxed()
}

fn words(words: &[&str]) -> BoxedStrategy<Value> {
    one_of(words.iter().map(|word| json!(word)).collect::<Vec<_>>())
}

fn ports() -> BoxedStrategy<Value> {
    one_of([80, 443, 1, 65535].map(Value::from))
}

fn durations() -> BoxedStrategy<Value> {
    words(&["1s", "2s", "300s", "1500ms", "1m30s", "744h", "1h1h"])
}

fn addresses() -> BoxedStrategy<Value> {
    words(&[
        "10.0.0.11",
        "192.0.2.1",
        "fd00::11",
        "2001:db8::1",
        "::",
        "0.0.0.0",
        "::1.2.3.4",
    ])
}

fn names() -> BoxedStrategy<Value> {
    words(&["a", "web", "web-1", "0"])
}

fn labels() -> BoxedStrategy<Value> {
    btree_map("app|tier|weir.dev/role", "web|db|", 0..3)
        .prop_map(|labels| json!(labels))
        .boxed()
}

fn selector() -> BoxedStrategy<Value> {
    let with_values = object([
        required("key", words(&["app", "tier"])),
        required("operator", words(&["In", "NotIn"])),
        required(
            "values",
            vec(words(&["web", "db", ""]), 1..3).prop_map(Value::Array),
        ),
    ]);
    let without_values = object([
        required("key", words(&["app", "tier"])),
        required("operator", words(&["Exists", "DoesNotExist"])),
        rare("values", Just(json!([]))),
    ]);
    let requirements = vec(prop_oneof![with_values, without_values], 0..3).prop_map(Value::Array);
    object([
        optional("matchLabels", labels()),
        optional("matchExpressions", requirements),
    ])
}

fn forwarding() -> BoxedStrategy<Value> {
    let direct = |method, tunnel: Option<BoxedStrategy<Value>>| {
        let mut fields = vec![
            required("method", Just(json!(method))),
            rare("realServerBinding", words(&["Address", "Redirect", "None"])),
            rare("arpSuppression", words(&["Auto", "Nftables", "Sysctl", "None"])),
        ];
        fields.extend(tunnel.map(|tunnel| ("tunnel", option::weighted(0.9, tunnel).boxed())));
        object(fields)
    };
    let masquerade = object([
        optional("method", Just(json!("Masquerade"))),
        optional("snat", words(&["Auto", "Never", "Always"])),
    ]);
    prop_oneof![
        direct("DirectRoute", None),
        direct("Tunnel", Some(tunnel())),
        masquerade
    ]
    .boxed()
}

fn tunnel() -> BoxedStrategy<Value> {
    prop_oneof![
        object([
            required("type", Just(json!("IPIP"))),
            optional("checksum", Just(json!("None")))
        ]),
        object([
            required("type", Just(json!("GRE"))),
            optional("checksum", words(&["None", "Full"]))
        ]),
        object([
            required("type", Just(json!("GUE"))),
            required("port", ports()),
            optional("checksum", words(&["None", "Full", "Remote"])),
        ]),
    ]
    .boxed()
}

fn health_check() -> BoxedStrategy<Value> {
    let http = object([
        optional("port", ports()),
        optional("path", words(&["/", "/healthz"])),
        optional("host", words(&["example.org"])),
    ]);
    let of_type = |kind: &'static str, member: &'static str, options: BoxedStrategy<Value>| {
        object([
            required("type", Just(json!(kind))),
            optional(member, options),
            optional("interval", durations()),
            optional("timeout", durations()),
            optional("rise", one_of([1, 100].map(Value::from))),
            optional("fall", one_of([1, 100].map(Value::from))),
        ])
    };
    prop_oneof![
        object([required("type", Just(json!("None")))]),
        of_type("TCP", "tcp", object([optional("port", ports())])),
        of_type("HTTP", "http", http),
    ]
    .boxed()
}

fn scheduler() -> BoxedStrategy<Value> {
    let flags = |flags: &[&str]| {
        let flags = flags.iter().map(|flag| json!(flag)).collect::<Vec<_>>();
        subsequence(flags, 0..=3).prop_map(Value::Array)
    };
    let one_packet = || rare("onePacket", Just(json!(false)));
    prop_oneof![
        object([
            required("algorithm", Just(json!("sh"))),
            optional("flags", flags(&["sh-port", "sh-fallback", "flag-3"])),
            one_packet(),
        ]),
        object([
            required("algorithm", Just(json!("mh"))),
            optional("flags", flags(&["mh-port", "mh-fallback", "flag-2"])),
            one_packet(),
        ]),
        object([
            optional("algorithm", words(&["rr", "wlc", "twos", "lblcr"])),
            optional("flags", flags(&["flag-1", "flag-2", "flag-3"])),
            one_packet(),
        ]),
    ]
    .boxed()
}

fn persistence() -> BoxedStrategy<Value> {
    object([
        optional("timeout", durations()),
        optional("netmaskV4", words(&["255.255.255.0", "0.0.0.0", "255.0.255.0"])),
        optional("prefixV6", one_of([1, 64, 128].map(Value::from))),
        rare("engine", words(&["sip"])),
    ])
}

fn backends() -> BoxedStrategy<Value> {
    let selection = object([required("selector", selector())]);
    let service = object([
        required("name", names()),
        optional("namespace", names()),
        required("port", words(&["http", "80"])),
    ]);
    let common = || {
        [
            required("name", Just(Value::Null)),
            optional("weight", one_of([0, 1, 65535].map(Value::from))),
            optional("targetPort", ports()),
        ]
    };
    let backend = prop_oneof![
        object([required("realServers", selection)].into_iter().chain(common())),
        object([required("serviceRef", service)].into_iter().chain(common())),
    ];
    vec(backend, 0..3).prop_map(named).boxed()
}

fn listeners() -> BoxedStrategy<Value> {
    let range = (1..=100, 0..=100)
        .prop_map(|(port, more)| json!({"protocol": "TCP", "port": port, "endPort": port + more}))
        .boxed();
    let single = (words(&["TCP", "UDP", "SCTP"]), ports())
        .prop_map(|(protocol, port)| json!({"protocol": protocol, "port": port}))
        .boxed();
    vec(prop_oneof![4 => single, 1 => range], 1..4)
        .prop_map(distinct)
        .prop_map(named)
        .boxed()
}

/// Names the items of a list, each by its place.
fn named(mut items: Vec<Value>) -> Value {
    for (index, item) in items.iter_mut().enumerate() {
        item["name"] = json!(format!("item-{index}"));
    }
    Value::Array(items)
}

fn distinct(listeners: Vec<Value>) -> Vec<Value> {
    let mut kept: Vec<Value> = Vec::new();
    for listener in listeners {
        let same =
            |other: &Value| other["protocol"] == listener["protocol"] && other["port"] == listener["port"];
        if !kept.iter().any(same) {
            kept.push(listener);
        }
    }
    kept
}

fn virtual_service() -> BoxedStrategy<Value> {
    let vips = subsequence(
        ["10.0.0.200", "10.0.0.201", "fd00::200", "fd00:0::200"]
            .map(Value::from)
            .to_vec(),
        1..=3,
    )
    .prop_map(Value::Array);
    let reference = || object([required("name", names())]);
    let common = || {
        vec![
            optional("scheduler", scheduler()),
            optional("forwarding", forwarding()),
            optional("backends", backends()),
            rare(
                "fallback",
                object([required("address", addresses()), optional("port", ports())]),
            ),
            rare("healthCheck", health_check()),
            rare("whenUnhealthy", words(&["Quiesce", "Remove"])),
            rare(
                "draining",
                object([
                    optional("timeout", durations()),
                    optional("onTimeout", words(&["Drop", "Keep"])),
                ]),
            ),
            rare("directorGroupRef", reference()),
        ]
    };
    let with = |mut fields: Vec<Field>| {
        fields.extend(common());
        object(fields)
    };
    let mark = object([
        required("mark", one_of([1, 100, 4_294_967_295i64].map(Value::from))),
        required("family", words(&["IPv4", "IPv6"])),
    ]);
    let all_ports = json!([{"name": "all", "protocol": "TCP", "port": 0}]);
    let datagrams = json!([{"name": "dns", "protocol": "UDP", "port": 53}]);
    prop_oneof![
        3 => with(vec![
            required("addresses", vips.clone()),
            required("listeners", listeners()),
            rare("groupListeners", one_of([true, false].map(Value::from))),
            optional("persistence", persistence()),
        ]),
        1 => with(vec![
            required("addressPoolRef", reference()),
            required("listeners", listeners()),
            optional("persistence", persistence()),
        ]),
        1 => with(vec![
            optional("addresses", vips.clone()),
            required("firewallMark", mark),
            rare("groupListeners", Just(json!(false))),
            optional("persistence", persistence()),
        ]),
        1 => with(vec![
            required("addresses", vips.clone()),
            required("listeners", Just(all_ports)),
            required("persistence", persistence()),
        ]),
        1 => with(vec![required("addresses", vips), required("listeners", Just(datagrams))]).prop_map(|mut spec| {
            if let Some(scheduler) = spec["scheduler"].as_object_mut() {
                scheduler.insert("onePacket".to_owned(), json!(true));
            }
            // Indexing has left a null where there was no scheduler.
            spec.as_object_mut().unwrap().retain(|_, value| !value.is_null());
            spec
        }),
    ]
    .boxed()
}

fn real_server() -> BoxedStrategy<Value> {
    object([
        required("address", addresses()),
        optional("port", ports()),
        optional("weight", one_of([0, 1, 65535].map(Value::from))),
        rare("nodeName", names()),
        optional("adminState", words(&["Enabled", "Draining", "Disabled"])),
        ("forwarding", option::weighted(0.8, forwarding()).boxed()),
        optional("upperThreshold", one_of([100, 101, i32::MAX].map(Value::from))),
        rare("healthCheck", health_check()),
    ])
    .prop_flat_map(|spec| {
        let lower = option::of(one_of([0, 100].map(Value::from)));
        (Just(spec), lower).prop_map(|(mut spec, lower)| {
            if let (Some(lower), true) = (lower, spec["upperThreshold"].is_number()) {
                spec["lowerThreshold"] = lower;
            }
            spec.as_object_mut().unwrap().retain(|_, value| !value.is_null());
            spec
        })
    })
    .boxed()
}

fn director_group() -> BoxedStrategy<Value> {
    let vrrp = object([
        optional("virtualRouterId", one_of([1, 255].map(Value::from))),
        optional("advertisementInterval", durations()),
    ]);
    let of_type = |kind: &'static str, member: Field| object([required("type", Just(json!(kind))), member]);
    let failover = prop_oneof![
        of_type("VRRP", optional("vrrp", vrrp)),
        of_type(
            "Lease",
            optional("lease", object([optional("duration", durations())]))
        ),
        of_type(
            "Static",
            required("static", object([required("activeNode", names())]))
        ),
        of_type("Routed", optional("routed", Just(json!({})))),
    ];
    let interfaces = || words(&["eth0", "bond0.100", "interface-eins-"]);
    let sync = object([
        optional("syncId", one_of([0, 255].map(Value::from))),
        optional("interface", interfaces()),
    ]);
    let timeouts =
        object(["tcp", "tcpFin", "udp"].map(|name| optional(name, words(&["1s", "15m", "596h", "1500ms"]))));
    let sysctls = btree_map("net\\.ipv4\\.vs\\.(conntrack|drop_entry|x)", "0|1|", 0..3);
    object([
        required("nodeSelector", selector()),
        optional("interface", interfaces()),
        required("failover", failover),
        rare("connectionSync", sync),
        optional("timeouts", timeouts),
        rare("sysctls", sysctls.prop_map(|sysctls| json!(sysctls))),
        rare("arpSuppression", words(&["Auto", "Nftables", "Sysctl", "None"])),
    ])
}
