//! A document → objects: whether it is Weir's, its name, its resource, its validated form.

use std::collections::hash_map::Entry as HashEntry;
use std::hash::{DefaultHasher, Hash, Hasher};

use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use crate::api::{API_VERSION, GROUP, VERSION};
use crate::catalog::validate::{self, Remark, Validation};
use crate::catalog::{Form, Kind, ObjectRef, Reason};
use crate::source::decode::{self, Decoded, FaultKind, Shape, suggest};

use super::diagnostic::{Fault, Level, Source};
use super::tree::{Entry, Node, Span, Value};
use super::yaml::Tree;
use super::{ManifestObject, Reader};

const NODE_STATE: &str = "NodeState";
/// The longest name of an object, a DNS subdomain, and of a namespace, a DNS label.
const NAME_MAX: usize = 253;
const NAMESPACE_MAX: usize = 63;

/// Takes in a document: an object or a list of them.
pub(super) fn read(reader: &mut Reader, source: Source<'_>, tree: Tree<'_>, span: Span) {
    let mut document = Document {
        reader,
        source,
        span,
        is_whole: tree.has_aliases,
        is_readable: tree.faults.is_empty(),
    };
    if let Some(root) = &tree.root {
        document.take(root, span);
    }
    document.unreadable(tree.faults);
}

struct Document<'r, 's> {
    reader: &'r mut Reader,
    source: Source<'s>,
    span: Span,
    /// Whether an object's own text does not tell all about it, since parts of it are elsewhere in the document.
    is_whole: bool,
    /// Whether it says what it means. If not, what else is wrong with it is said as well, but no object taken from it.
    is_readable: bool,
}

impl Document<'_, '_> {
    fn unreadable(&mut self, faults: Vec<Fault>) {
        for fault in faults {
            self.reader.unreadable(self.source, fault);
        }
    }

    /// Takes in an object or a list of them, which has this text.
    fn take(&mut self, root: &Node<'_>, span: Span) {
        if !is_map(root) {
            let message = "expected an object: a map with apiVersion, kind, metadata and spec";
            return self.unreadable(vec![Fault::new(root.span, message)]);
        }
        let (version, kind) = match (string_field(root, "apiVersion"), string_field(root, "kind")) {
            (Ok(version), Ok(kind)) => (version, kind),
            (version, kind) => {
                return self.unreadable([version.err(), kind.err()].into_iter().flatten().collect());
            }
        };
        if kind.text == "List" || (kind.text.ends_with("List") && group(version.text) == GROUP) {
            return self.take_list(root, span);
        }
        match self.known_kind(&version, &kind) {
            Ok(Some(kind)) => self.take_object(kind, root, span),
            Ok(None) => self.reader.manifest.skipped += 1,
            Err(fault) => self.unreadable(vec![fault]),
        }
    }

    fn take_list(&mut self, root: &Node<'_>, span: Span) {
        let Some(entry) = root.get("items") else {
            return self.unreadable(vec![Fault::new(root.span, "items: required field is missing")]);
        };
        let Value::List(items) = &entry.value.value else {
            return self.unreadable(vec![Fault::new(
                entry.shown(),
                "items: expected a list of objects",
            )]);
        };
        for (index, item) in items.iter().enumerate() {
            // An item's text goes up to the next one: where a block ends, YAML does not say closely enough.
            let end = items.get(index + 1).map_or(span.end, |next| next.span.start);
            let start = item.span.start;
            let is_whole = self.is_whole || end < start;
            self.take(item, if is_whole { self.span } else { Span { start, end } });
        }
    }

    /// Which of Weir's kinds this is, if it is for Weir at all.
    fn known_kind(&mut self, version: &Text<'_>, kind: &Text<'_>) -> Result<Option<Kind>, Fault> {
        let known = Kind::OWN.into_iter().find(|known| known.name() == kind.text);
        if group(version.text) != GROUP {
            let meant =
                suggest::nearest(version.text, [API_VERSION, GROUP]).is_some() || version.text == VERSION;
            return match (known, meant) {
                (Some(_), true) => Err(Fault::new(
                    version.span,
                    format!("unknown API group in {}", version.text),
                )
                .help(format!("did you mean {API_VERSION}?"))),
                _ => Ok(None),
            };
        }
        if version.text != API_VERSION {
            return Err(
                Fault::new(version.span, format!("unsupported version {}", version.text))
                    .help(format!("this version of Weir reads {API_VERSION}")),
            );
        }
        if kind.text == NODE_STATE {
            let fault = Fault::new(
                kind.span,
                "a NodeState is written by Weir's agent and ignored in a manifest",
            )
            .help("remove it");
            self.reader.say(self.source, Level::Warning, None, fault);
            return Ok(None);
        }
        known.map(Some).ok_or_else(|| {
            let names = Kind::OWN.map(Kind::name);
            Fault {
                span: kind.span,
                message: format!("unknown kind `{}` in {API_VERSION}", kind.text),
                help: suggest::help(kind.text, "kinds", &names),
            }
        })
    }

    /// Which object of a kind this is; `None` if its name or namespace is wrong, which has then been said or will be by
    /// the decoder, who sees that something is no string.
    fn identify(&mut self, kind: Kind, root: &Node<'_>) -> Option<ObjectRef> {
        let metadata = root.get("metadata");
        let field = |field| metadata.and_then(|metadata| metadata.value.get(field));
        let (name, namespace) = match (name(metadata, field("name")), namespace(kind, field("namespace"))) {
            (Ok(name), Ok(namespace)) => (name, namespace),
            (name, namespace) => {
                self.reader.manifest.has_unreadable = true;
                let faults = [name.err(), namespace.err()].into_iter().flatten().flatten();
                self.unreadable(faults.collect());
                return None;
            }
        };
        Some(ObjectRef {
            kind,
            namespace: namespace.map(|namespace| self.reader.intern_namespace(namespace)),
            name: name.into(),
        })
    }

    fn take_object(&mut self, kind: Kind, root: &Node<'_>, span: Span) {
        let object = self.identify(kind, root);
        let line = self.reader.line(self.source, root.span.start);
        if let Some(object) = object.as_ref().filter(|_| self.is_readable)
            && let Some(first) = self.first_line(object, line)
        {
            let span = root.locate("metadata.name").unwrap_or(root.span);
            let fault = Fault::new(
                span,
                format!("duplicate {object}: the first one is on line {first}"),
            )
            .help("remove or rename one of them; until then the first one is used");
            return self.reader.say(self.source, Level::Error, Some(object), fault);
        }
        let (form, remarks) = match kind {
            Kind::RealServer => self.resource(
                kind,
                object.as_ref(),
                root,
                validate::real_server,
                Form::RealServer,
            ),
            Kind::VirtualService => {
                self.resource(kind, object.as_ref(), root, validate::virtual_service, |value| {
                    Form::VirtualService(Box::new(value))
                })
            }
            Kind::DirectorGroup => {
                self.resource(kind, object.as_ref(), root, validate::director_group, |value| {
                    Form::DirectorGroup(Box::new(value))
                })
            }
            // Those are none of Weir's own.
            Kind::Service | Kind::EndpointSlice | Kind::ReferenceGrant => return,
        };
        if let Some(object) = object.filter(|_| self.is_readable) {
            self.reader.manifest.objects.push(ManifestObject {
                object,
                line,
                digest: digest(&self.source.text[span.start..span.end]),
                form,
                remarks,
            });
        }
    }

    /// The line of an earlier object of the same name.
    fn first_line(&mut self, object: &ObjectRef, line: usize) -> Option<usize> {
        match self.reader.seen.entry(object.clone()) {
            HashEntry::Occupied(first) => Some(*first.get()),
            HashEntry::Vacant(place) => {
                place.insert(line);
                None
            }
        }
    }

    /// Reads and validates a resource of any kind, and says everything that is wrong with it.
    fn resource<R: DeserializeOwned, V>(
        &mut self,
        kind: Kind,
        object: Option<&ObjectRef>,
        root: &Node<'_>,
        validate: impl FnOnce(&R) -> Validation<V>,
        form: impl FnOnce(V) -> Form,
    ) -> (Option<Form>, Vec<Remark>) {
        let text = self.source.text;
        let written = |field: &str| root.locate(field).and_then(|span| text.get(span.start..span.end));
        let decoded = Decoded::<R>::new(Shape::of_kind(kind.name()), content(root), written);
        let Validation { value, remarks } = decoded.validate(validate);
        for fault in &decoded.faults {
            self.reader
                .say(self.source, Level::Error, object, placed_fault(root, fault));
        }
        for remark in &remarks {
            let (level, fault) = placed_remark(root, remark);
            self.reader.say(self.source, level, object, fault);
        }
        let faults = decoded.faults.iter().map(decode::Fault::to_remark);
        (value.map(form), faults.chain(remarks).collect())
    }
}

/// What a resource is read from: not its type, which is known, and not its status, which is Weir's own report.
fn content(root: &Node<'_>) -> Json {
    let Value::Map(entries) = &root.value else {
        return Json::Null;
    };
    entries
        .iter()
        .filter(|entry| !matches!(entry.key.as_ref(), "apiVersion" | "kind" | "status"))
        .map(|entry| (entry.key.to_string(), entry.value.to_json()))
        .collect()
}

/// What does not fit a kind, with its place.
fn placed_fault(root: &Node<'_>, fault: &decode::Fault) -> Fault {
    let span = match fault.kind {
        FaultKind::UnknownField => root.locate_key(&fault.field),
        FaultKind::MissingField | FaultKind::Value => root.locate(&fault.field),
    };
    Fault {
        span: span.unwrap_or_else(|| kind_span(root)),
        message: with_field(&fault.field, &fault.message),
        help: fault.help.clone(),
    }
}

/// What validation says, with its place.
fn placed_remark(root: &Node<'_>, remark: &Remark) -> (Level, Fault) {
    let level = match remark.reason {
        Reason::Invalid => Level::Error,
        _ => Level::Warning,
    };
    let span = root.locate(&remark.field).unwrap_or_else(|| kind_span(root));
    (
        level,
        Fault::new(span, with_field(&remark.field, &remark.message)),
    )
}

fn with_field(field: &str, message: &str) -> String {
    match field.is_empty() || message.ends_with(field) {
        true => message.to_owned(),
        false => format!("{field}: {message}"),
    }
}

/// The place to show for a document as a whole.
fn kind_span(root: &Node<'_>) -> Span {
    root.get("kind").map_or(root.span, Entry::shown)
}

/// A string with its place.
struct Text<'t> {
    text: &'t str,
    span: Span,
}

fn string_field<'t>(root: &'t Node<'_>, field: &str) -> Result<Text<'t>, Fault> {
    match root.get(field) {
        Some(entry) => string(entry, field),
        None => Err(missing(root, field)),
    }
}

fn missing(root: &Node<'_>, field: &str) -> Fault {
    Fault::new(kind_span(root), format!("{field}: required field is missing"))
}

fn string<'t>(entry: &'t Entry<'_>, field: &str) -> Result<Text<'t>, Fault> {
    let span = entry.shown();
    match &entry.value.value {
        Value::String(text) => Ok(Text { text, span }),
        Value::Bool(_) | Value::Integer(_) | Value::Float(_) => {
            Err(Fault::new(span, format!("{field}: expected a string")).help("put it in quotes"))
        }
        Value::Null => Err(Fault::new(span, format!("{field}: required field is missing"))),
        Value::List(_) | Value::Map(_) => Err(Fault::new(span, format!("{field}: expected a string"))),
    }
}

/// The name of an object, or what is wrong with it unless the decoder says so.
fn name<'t>(metadata: Option<&Entry<'_>>, entry: Option<&'t Entry<'_>>) -> Result<&'t str, Option<Fault>> {
    match entry.map(|entry| (&entry.value.value, entry.shown())) {
        Some((Value::String(name), span)) => match is_subdomain(name) {
            true => Ok(name),
            false => Err(Some(
                Fault::new(span, format!("metadata.name: invalid object name \"{name}\"")).help(
                    "use at most 253 lower-case letters, digits, hyphens and dots, with a letter or digit at both ends",
                ),
            )),
        },
        None | Some((Value::Null, _)) => Err(metadata.filter(|metadata| is_map(&metadata.value)).map(|metadata| {
            Fault::new(metadata.key_span, "metadata.name: required field is missing")
                .help("give the object a name: metadata: {name: web}")
        })),
        Some(_) => Err(None),
    }
}

/// The namespace of an object, or what is wrong with it unless the decoder says so.
fn namespace<'t>(kind: Kind, entry: Option<&'t Entry<'_>>) -> Result<Option<&'t str>, Option<Fault>> {
    let Some(entry) = entry.filter(|entry| entry.value.value != Value::Null) else {
        return Ok(kind.is_namespaced().then_some("default"));
    };
    if !kind.is_namespaced() {
        let message = format!(
            "metadata.namespace: a {} is cluster-scoped and has no namespace",
            kind.name()
        );
        return Err(Some(Fault::new(entry.key_span, message).help("remove the field")));
    }
    match &entry.value.value {
        Value::String(namespace) if namespace.len() <= NAMESPACE_MAX && is_label(namespace) => {
            Ok(Some(namespace))
        }
        Value::String(namespace) => Err(Some(
            Fault::new(
                entry.shown(),
                format!("metadata.namespace: invalid namespace \"{namespace}\""),
            )
            .help(
                "use at most 63 lower-case letters, digits and hyphens, with a letter or digit at both ends",
            ),
        )),
        _ => Err(None),
    }
}

fn is_map(node: &Node<'_>) -> bool {
    matches!(node.value, Value::Map(_))
}

/// The group of an apiVersion; empty for Kubernetes' own `v1`.
fn group(version: &str) -> &str {
    version.split_once('/').map_or("", |(group, _)| group)
}

fn is_subdomain(name: &str) -> bool {
    name.len() <= NAME_MAX && name.split('.').all(is_label)
}

fn is_label(label: &str) -> bool {
    let alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = label.as_bytes();
    bytes.first().is_some_and(alphanumeric)
        && bytes.last().is_some_and(alphanumeric)
        && bytes.iter().all(|byte| alphanumeric(byte) || *byte == b'-')
}

fn digest(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}
