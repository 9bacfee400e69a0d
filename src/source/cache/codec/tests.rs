use proptest::prelude::*;
use serde_json::json;

use super::*;

fn object(kind: Kind, name: &str, label: &str) -> (ObjectRef, Arc<str>) {
    let namespace = kind.is_namespaced().then_some("shop");
    let json = json!({
        "metadata": { "name": name, "namespace": namespace, "labels": { "text": label } },
        "spec": { "ofAnotherVersion": [1, 2.5, null] },
    });
    let object = ObjectRef {
        kind,
        namespace: namespace.map(Arc::from),
        name: name.into(),
    };
    (object, json.to_string().into())
}

fn cache() -> Cache {
    Cache {
        node: "d1".to_owned(),
        saved: UNIX_EPOCH + Duration::from_secs(1_764_150_000),
        labels: BTreeMap::from([("weir.dev/role".to_owned(), "director".to_owned())]),
        objects: Kind::ALL
            .into_iter()
            .map(|kind| object(kind, "web", "a\nline"))
            .collect(),
    }
}

#[test]
fn a_cache_is_read_as_it_was_written() {
    let text = encode(&cache()).unwrap();
    assert_eq!(decode(text.as_bytes(), "d1"), Ok(cache()));
    let none = Cache {
        objects: BTreeMap::new(),
        ..cache()
    };
    assert_eq!(decode(encode(&none).unwrap().as_bytes(), "d1"), Ok(none));
}

/// As this version writes it, so that no later one forgets how to read it.
#[test]
fn a_cache_of_the_first_version_is_read() {
    let body = "{\"node\":\"d1\",\"saved\":1764150000,\"labels\":{},\"objects\":2,\"later\":true}\n\
        RealServer {\"metadata\":{\"name\":\"rs1\",\"namespace\":\"shop\"},\"spec\":{\"address\":\"10.0.0.11\"}}\n\
        AddressPool {\"metadata\":{\"name\":\"a kind of later\"}}";
    let cache = decode(durable::document("weir cache 1", body).as_bytes(), "d1").unwrap();
    let names: Vec<String> = cache.objects.keys().map(ToString::to_string).collect();
    assert_eq!(names, ["RealServer shop/rs1"]);
}

#[test]
fn a_cache_that_is_cut_off_anywhere_is_damaged() {
    let text = encode(&cache()).unwrap();
    for length in 0..text.len() {
        assert_eq!(
            decode(&text.as_bytes()[..length], "d1"),
            Err(DecodeError::Damaged),
            "cut at {length}"
        );
    }
}

#[test]
fn a_cache_with_any_bit_changed_is_of_no_use() {
    let text = encode(&cache()).unwrap();
    for at in 0..text.len() {
        for bit in 0..8 {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1 << bit;
            assert!(decode(&bytes, "d1").is_err(), "bit {bit} of byte {at}");
        }
    }
}

#[test]
fn what_no_version_writes_is_damaged() {
    let bodies = [
        "",
        "[]",
        "{\"node\":\"d1\",\"saved\":18446744073709551615,\"labels\":{},\"objects\":0}",
        "{\"node\":\"d1\",\"saved\":1,\"labels\":{},\"objects\":1}",
        "{\"node\":\"d1\",\"saved\":1,\"labels\":{},\"objects\":1}\nRealServer",
        "{\"node\":\"d1\",\"saved\":1,\"labels\":{},\"objects\":1}\nRealServer {}",
        "{\"node\":\"d1\",\"saved\":1,\"labels\":{},\"objects\":1}\nRealServer {\"metadata\":{\"name\":\"no namespace\"}}",
    ];
    for body in bodies {
        let text = durable::document("weir cache 1", body);
        assert_eq!(decode(text.as_bytes(), "d1"), Err(DecodeError::Damaged), "{body}");
    }
}

#[test]
fn a_cache_of_another_version_or_node_is_said_to_be_that() {
    let text = encode(&cache()).unwrap();
    let other = text.replace("weir cache 1 ", "weir cache 2 ");
    assert_eq!(decode(other.as_bytes(), "d1"), Err(DecodeError::Version));
    let node = "d1".to_owned();
    assert_eq!(decode(text.as_bytes(), "d2"), Err(DecodeError::Node { node }));
}

#[test]
fn a_cache_that_would_be_too_large_is_not_written() {
    let mut large = cache();
    let (object, _) = object(Kind::Service, "large", "");
    let json = format!("\"{}\"", "x".repeat(MAX_SIZE as usize));
    large.objects.insert(object, json.into());
    assert!(matches!(encode(&large), Err(TooLarge { size }) if size > MAX_SIZE));
}

fn any_object() -> impl Strategy<Value = (ObjectRef, Arc<str>)> {
    let kind = proptest::sample::select(Kind::ALL.to_vec());
    (kind, "[a-z]{1,8}", any::<String>()).prop_map(|(kind, name, label)| object(kind, &name, &label))
}

proptest! {
    #[test]
    fn decoding_undoes_encoding(
        node in any::<String>(),
        saved in 0..=u64::from(u32::MAX),
        labels in proptest::collection::btree_map(any::<String>(), any::<String>(), 0..4),
        objects in proptest::collection::btree_map(any_object(), Just(()), 0..8),
    ) {
        let cache = Cache {
            node: node.clone(),
            saved: UNIX_EPOCH + Duration::from_secs(saved),
            labels,
            objects: objects.into_keys().collect(),
        };
        prop_assert_eq!(decode(encode(&cache).unwrap().as_bytes(), &node), Ok(cache));
    }

    #[test]
    fn whatever_is_read_nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), body in any::<String>()) {
        let _ = decode(&bytes, "d1");
        let _ = decode(durable::document("weir cache 1", &body).as_bytes(), "d1");
    }
}
