use proptest::prelude::*;

use super::*;

/// Texts made of what manifests are made of, so that most of them get past the first character.
fn manifest_like() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "apiVersion: weir.dev/v1alpha1\n",
        "kind: RealServer\n",
        "kind: VirtualService\n",
        "kind: List\n",
        "items:\n",
        "metadata: {name: a}\n",
        "metadata:\n",
        "spec:\n",
        "spec: {address: 10.0.0.1, port: 80}\n",
        "{\"apiVersion\": \"weir.dev/v1alpha1\", \"kind\": \"RealServer\",",
        "\"spec\": {\"address\": \"10.0.0.1\"}}",
        "  name: é\n",
        "  address: 10.0.0.1\n",
        "- ",
        "  ",
        "---\n",
        "...\n",
        "# comment\n",
        "&a ",
        "*a ",
        "<<: ",
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"",
        "'",
        "|\n",
        "\t",
        "\r\n",
        "\n",
        "\u{feff}",
        "\u{0}",
        "~",
        "!!str ",
        "%YAML 1.2\n",
    ]);
    let piece = prop_oneof![8 => word.prop_map(str::to_owned), 1 => any::<String>()];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

/// Values of JSON, but for what no manifest has and the scanner refuses: control characters above ASCII, very long keys.
fn json() -> impl Strategy<Value = serde_json::Value> {
    use serde_json::Value;
    let string = "[^\\x7f-\\u{9f}\\u{feff}\\u{fffe}\\u{ffff}]{0,8}";
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>()
            .prop_filter("no integer", |number| number.fract() != 0.0)
            .prop_map(Value::from),
        string.prop_map(Value::from),
        "(0|1|-|\\.|e|y|no|null|~|\\[|\\{|: |#|&a|\\*a|!x){0,4}".prop_map(Value::from),
    ];
    scalar.prop_recursive(5, 64, 8, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
            prop::collection::btree_map(string, inner, 0..8)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn check(file: &str, content: &[u8]) -> Result<(), TestCaseError> {
    let manifest = read(&file.into(), content);
    let text = String::from_utf8_lossy(content);
    let lines: Vec<&str> = text.split('\n').collect();
    for diagnostic in &manifest.diagnostics {
        let Place { line, column } = diagnostic.place.expect("it is about a place in the file");
        prop_assert!(
            (1..=lines.len()).contains(&line),
            "line {line} of {}",
            lines.len()
        );
        let length = lines[line - 1].chars().count();
        prop_assert!((1..=length + 1).contains(&column), "column {column} of {length}");
        prop_assert!(!diagnostic.draw(true).is_empty());
    }
    for object in &manifest.objects {
        prop_assert!((1..=lines.len()).contains(&object.line));
        prop_assert!(object.form.is_some() || !object.remarks.is_empty());
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_read_or_refused(text in manifest_like()) {
        check("a.yaml", text.as_bytes())?;
        check("a.json", text.as_bytes())?;
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in any::<Vec<u8>>()) {
        check("a.yaml", &bytes)?;
    }

    #[test]
    fn json_is_read_as_what_it_is(value in json()) {
        for text in [value.to_string(), serde_json::to_string_pretty(&value).expect("it is JSON")] {
            let (documents, fault) = document::split_json(&text);
            prop_assert_eq!((documents.len(), fault), (1, None), "{}", text);
            let tree = yaml::parse(&text, 0);
            prop_assert_eq!(&tree.faults, &vec![], "{}", text);
            prop_assert_eq!(tree.root.map(|root| root.to_json()), Some(value.clone()), "{}", text);
        }
    }
}
