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
        "# remark\n",
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
    fn json_is_read_as_serde_json_does(text in r#"[\[\]{},:0-9"a\\u .truefalsn-]{0,12}"#) {
        let ours = json::parse(&text, 0).is_ok_and(|(_, end)| end == text.len());
        let theirs = serde_json::from_str::<serde_json::Value>(&text);
        // serde_json lets a key stand twice, and refuses numbers that no double can hold.
        match theirs {
            Ok(_) => prop_assert!(ours || text.contains(':'), "{text}"),
            Err(error) => prop_assert!(!ours || error.to_string().starts_with("number out of range"), "{text}"),
        }
    }
}
