//! A document → objects: whether it is Weir's, its name, its resource, its validated form.

use std::hash::{DefaultHasher, Hash, Hasher};

use serde::de::DeserializeOwned;

use crate::api::{API_VERSION, GROUP, VERSION};
use crate::catalog::validate::{self, Remark, Validation};
use crate::catalog::{Form, Kind, ObjectRef, Reason};

use super::decode::decode;
use super::diagnostic::{Fault, Level, Source};
use super::tree::{Entry, Node, Span, Value};
use crate::source::decode::suggest;

use super::{ManifestObject, Reader};

const NODE_STATE: &str = "NodeState";
/// The longest name of an object, a DNS subdomain, and of a namespace, a DNS label.
const NAME_MAX: usize = 253;
const NAMESPACE_MAX: usize = 63;

/// Takes in a document: an object or a list of them. `whole` says that an object's own text does not tell all
/// about it, since parts of it were written elsewhere in the document.
pub(super) fn read(reader: &mut Reader, source: Source<'_>, root: &Node<'_>, span: Span, whole: bool) {
    let mut document = Document { reader, source };
    if let Err(fault) = document.take(root, span, whole) {
        reader.unreadable(source, fault);
    }
}

struct Document<'r, 's> {
    reader: &'r mut Reader,
    source: Source<'s>,
}

impl Document<'_, '_> {
    fn take(&mut self, root: &Node<'_>, span: Span, whole: bool) -> Result<(), Fault> {
        if !matches!(root.value, Value::Map(_)) {
            return Err(Fault::new(
                root.span,
                "expected an object: a map with apiVersion, kind, metadata and spec",
            ));
        }
        let (version, kind) = (text_field(root, "apiVersion")?, text_field(root, "kind")?);
        if kind.text == "List" || (kind.text.ends_with("List") && group(version.text) == GROUP) {
            return self.take_list(root, span, whole);
        }
        let Some(kind) = self.known_kind(&version, &kind)? else {
            self.reader.manifest.skipped += 1;
            return Ok(());
        };
        let object = self.name(kind, root)?;
        let digest = digest(&self.source.text[span.start..span.end]);
        self.take_object(object, root, digest);
        Ok(())
    }

    fn take_list(&mut self, root: &Node<'_>, span: Span, whole: bool) -> Result<(), Fault> {
        let Some(entry) = root.get("items") else {
            return Err(Fault::new(root.span, "a list has items"));
        };
        let Value::List(items) = &entry.value.value else {
            return Err(Fault::new(entry.shown(), "items is a list of objects"));
        };
        for (index, item) in items.iter().enumerate() {
            // An item's text goes up to the next one: where a block ends, YAML does not say closely enough.
            let end = items.get(index + 1).map_or(span.end, |next| next.span.start);
            let own = Span {
                start: item.span.start,
                end,
            };
            let span = if whole || end < item.span.start { span } else { own };
            if let Err(fault) = self.take(item, span, whole) {
                self.reader.unreadable(self.source, fault);
            }
        }
        Ok(())
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
                Fault::new(version.span, format!("{} is not served", version.text))
                    .help(format!("this version of Weir reads {API_VERSION}")),
            );
        }
        if kind.text == NODE_STATE {
            let fault = Fault::new(
                kind.span,
                "a NodeState is Weir's own report and means nothing in a manifest",
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

    /// The object's name and namespace.
    fn name(&mut self, kind: Kind, root: &Node<'_>) -> Result<ObjectRef, Fault> {
        let Some(metadata) = root.get("metadata") else {
            return Err(missing(root, "metadata"));
        };
        let name = match metadata.value.get("name") {
            Some(entry) => entry_text(entry)?,
            None => {
                let fault = Fault::new(metadata.key_span, "missing field `name`");
                return Err(fault.help("give the object a name: metadata: {name: web}"));
            }
        };
        if !is_subdomain(name.text) {
            return Err(Fault::new(name.span, format!("\"{}\" is no name of an object", name.text)).help(
                "use at most 253 lower-case letters, digits, hyphens and dots, with a letter or digit at both ends",
            ));
        }
        let namespace = metadata
            .value
            .get("namespace")
            .filter(|entry| !is_nothing(&entry.value));
        let namespace = match namespace {
            Some(entry) if kind.is_namespaced() => Some(self.namespace(entry)?),
            Some(entry) => {
                let fault = Fault::new(entry.key_span, format!("a {} is in no namespace", kind.name()));
                return Err(fault.help("remove the field"));
            }
            None if kind.is_namespaced() => Some(self.reader.intern_namespace("default")),
            None => None,
        };
        Ok(ObjectRef {
            kind,
            namespace,
            name: name.text.into(),
        })
    }

    fn namespace(&mut self, entry: &Entry<'_>) -> Result<std::sync::Arc<str>, Fault> {
        let namespace = entry_text(entry)?;
        if namespace.text.len() > NAMESPACE_MAX || !is_label(namespace.text) {
            return Err(Fault::new(namespace.span, format!("\"{}\" is no namespace", namespace.text)).help(
                "use at most 63 lower-case letters, digits and hyphens, with a letter or digit at both ends",
            ));
        }
        Ok(self.reader.intern_namespace(namespace.text))
    }

    fn take_object(&mut self, object: ObjectRef, root: &Node<'_>, digest: u64) {
        let line = self.reader.line(self.source, root.span.start);
        if let Some(first) = self.reader.seen.insert(object.clone(), line) {
            let span = root.locate("metadata.name").unwrap_or(root.span);
            let fault = Fault::new(
                span,
                format!("{object} stands in this file already, on line {first}"),
            )
            .help("remove or rename one of the two; until then the first one holds");
            self.reader.seen.insert(object.clone(), first);
            self.reader.say(self.source, Level::Error, Some(&object), fault);
            return;
        }
        let (form, remarks) = match object.kind {
            Kind::RealServer => self.resource(&object, root, validate::real_server, Form::RealServer),
            Kind::VirtualService => self.resource(&object, root, validate::virtual_service, |value| {
                Form::VirtualService(Box::new(value))
            }),
            Kind::DirectorGroup => self.resource(&object, root, validate::director_group, |value| {
                Form::DirectorGroup(Box::new(value))
            }),
            // Those are none of Weir's own.
            Kind::Service | Kind::EndpointSlice | Kind::ReferenceGrant => return,
        };
        self.reader.manifest.objects.push(ManifestObject {
            object,
            line,
            digest,
            form,
            remarks,
        });
    }

    /// Reads and validates a resource of any kind.
    fn resource<R: DeserializeOwned, V>(
        &mut self,
        object: &ObjectRef,
        root: &Node<'_>,
        validate: impl FnOnce(&R) -> Validation<V>,
        form: impl FnOnce(V) -> Form,
    ) -> (Option<Form>, Vec<Remark>) {
        match decode::<R>(&members(root), kind_span(root)) {
            Ok(resource) => {
                let Validation { value, remarks } = validate(&resource);
                for remark in &remarks {
                    self.say_remark(object, root, remark);
                }
                (value.map(form), remarks)
            }
            Err(faults) => (None, self.say_faults(object, root, faults)),
        }
    }

    fn say_remark(&mut self, object: &ObjectRef, root: &Node<'_>, remark: &Remark) {
        let level = match remark.reason {
            Reason::Invalid => Level::Error,
            _ => Level::Warning,
        };
        let span = root.locate(&remark.field).unwrap_or_else(|| kind_span(root));
        let fault = match remark.message.ends_with(&remark.field) {
            true => Fault::new(span, remark.message.as_str()),
            false => Fault::new(span, format!("{}: {}", remark.field, remark.message)),
        };
        self.reader.say(self.source, level, Some(object), fault);
    }

    /// Says what kept a resource from being read, and makes remarks of it.
    fn say_faults(&mut self, object: &ObjectRef, root: &Node<'_>, faults: Vec<Fault>) -> Vec<Remark> {
        let mut remarks = Vec::new();
        for fault in faults {
            remarks.push(Remark {
                field: root.path_of(fault.span).unwrap_or_default(),
                reason: Reason::Invalid,
                message: match &fault.help {
                    Some(help) => format!("{}: {help}", fault.message),
                    None => fault.message.clone(),
                },
            });
            self.reader.say(self.source, Level::Error, Some(object), fault);
        }
        remarks
    }
}

/// What a resource is read from: not its type, which is known, and not its status, which is Weir's own report.
fn members<'t>(root: &'t Node<'t>) -> Vec<&'t Entry<'t>> {
    match &root.value {
        Value::Map(entries) => entries
            .iter()
            .filter(|entry| !matches!(entry.key.as_ref(), "apiVersion" | "kind" | "status"))
            .collect(),
        _ => Vec::new(),
    }
}

/// The place to show for a document as a whole.
fn kind_span(root: &Node<'_>) -> Span {
    root.get("kind").map_or(root.span, Entry::shown)
}

/// A text with its place.
struct Text<'t> {
    text: &'t str,
    span: Span,
}

fn text_field<'t>(root: &'t Node<'_>, field: &str) -> Result<Text<'t>, Fault> {
    match root.get(field) {
        Some(entry) => entry_text(entry),
        None => Err(missing(root, field)),
    }
}

fn missing(root: &Node<'_>, field: &str) -> Fault {
    Fault::new(
        root.get("kind").map_or(root.span, |entry| entry.shown()),
        format!("missing field `{field}`"),
    )
}

fn entry_text<'t>(entry: &'t Entry<'_>) -> Result<Text<'t>, Fault> {
    use super::scalar::{Scalar, resolve};
    let span = entry.shown();
    match &entry.value.value {
        Value::Text(text) => Ok(Text { text, span }),
        Value::Plain(text) if matches!(resolve(text), Scalar::String(_)) => Ok(Text { text, span }),
        Value::Plain(text) if !text.is_empty() => Err(Fault::new(span, format!("`{}` is a text", entry.key))
            .help(format!("put it in quotes: \"{text}\""))),
        _ => Err(Fault::new(span, format!("`{}` is a text", entry.key))),
    }
}

fn is_nothing(node: &Node<'_>) -> bool {
    matches!(&node.value, Value::Plain(text) if super::scalar::resolve(text) == super::scalar::Scalar::Null)
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
