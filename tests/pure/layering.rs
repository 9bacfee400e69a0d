//! Who may import whom: a table, and a reading of the `use` lines that holds the sources to it.
//!
//! The rule that matters most: a decision depends on its arguments only. So whatever decides imports no socket, no
//! client, no clock and no runtime.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use regex::Regex;

/// What none of a set of files may name.
struct Rule {
    /// Files, as prefixes of their paths below `src/`.
    files: &'static [&'static str],
    /// Those of them for which it does not hold.
    except: &'static [&'static str],
    /// What they may not name, as prefixes of paths.
    never: &'static [&'static str],
}

/// What waits, asks or looks at the clock.
const INPUT_AND_OUTPUT: &[&str] = &[
    "tokio",
    "kube",
    "rustix",
    "notify",
    "futures",
    "tracing",
    "std::fs",
    "std::net::TcpStream",
    "std::net::UdpSocket",
    "std::process",
    "std::thread",
    "std::sync::Mutex",
    "std::time::Instant",
    "std::time::SystemTime",
];

const RULES: &[Rule] = &[
    // The resources are what users write: they know nothing of this program.
    Rule {
        files: &["api"],
        except: &[],
        never: &[
            "crate::",
            "tokio",
            "kube::Client",
            "kube::Api",
            "kube::runtime",
            "rustix",
        ],
    },
    // Nothing of Kubernetes gets near the kernel: what a node should have follows from what is asked of it, whoever asks.
    Rule {
        files: &["ipvs", "nft", "host"],
        except: &[],
        never: &[
            "crate::api",
            "crate::catalog",
            "crate::plan",
            "crate::source",
            "kube",
            "k8s_openapi",
            "tokio",
        ],
    },
    // The table and its difference are values.
    Rule {
        files: &["ipvs/"],
        except: &["ipvs/netlink.rs"],
        never: INPUT_AND_OUTPUT,
    },
    // So are rulesets.
    Rule {
        files: &["nft/"],
        except: &["nft/netlink.rs"],
        never: INPUT_AND_OUTPUT,
    },
    // So is what a node has around the table.
    Rule {
        files: &["host/"],
        except: &[
            "host/kernel.rs",
            "host/sysctl.rs",
            "host/journal.rs",
            "host/fou.rs",
        ],
        never: INPUT_AND_OUTPUT,
    },
    Rule {
        files: &[
            "catalog",
            "plan",
            "netlink/attribute.rs",
            "netlink/message.rs",
            "agent/report.rs",
            "agent/status.rs",
        ],
        except: &[],
        never: INPUT_AND_OUTPUT,
    },
    Rule {
        files: &["catalog"],
        except: &[],
        never: &["crate::plan"],
    },
    Rule {
        files: &["catalog", "plan"],
        except: &[],
        never: &[
            "crate::source",
            "crate::netlink",
            "crate::ipvs::KernelTable",
            "crate::ipvs::netlink",
            "crate::host::KernelHost",
            "crate::nft",
        ],
    },
    // Sockets are netlink's business.
    Rule {
        files: &[""],
        except: &["netlink"],
        never: &["rustix::net", "neli::socket"],
    },
    // Whoever writes or reads messages knows netlink's words, and nobody else.
    Rule {
        files: &[""],
        except: &[
            "netlink",
            "ipvs/wire",
            "ipvs/netlink.rs",
            "nft/wire",
            "nft/netlink.rs",
            "host/rtnetlink.rs",
            "host/fou.rs",
            "host/kernel.rs",
        ],
        never: &["neli"],
    },
    // A source hands on what it reads and does not know what becomes of it.
    Rule {
        files: &["source"],
        except: &[],
        never: &["crate::ipvs", "crate::netlink", "crate::node", "crate::agent"],
    },
    // What the controller knows, and what follows from it, are values.
    Rule {
        files: &[
            "controller/cluster.rs",
            "controller/conditions.rs",
            "controller/statuses.rs",
        ],
        except: &[],
        never: INPUT_AND_OUTPUT,
    },
    // So are decisions about time, which they are told.
    Rule {
        files: &[
            "controller/election.rs",
            "controller/events.rs",
            "controller/holding.rs",
            "controller/queue.rs",
            "phases",
            "agent/audit.rs",
            "agent/pending.rs",
            "agent/undone.rs",
            "node/globals.rs",
            "node/memory.rs",
            "node/settle.rs",
            "node/steps.rs",
            "node/table_digest.rs",
            "node/work.rs",
        ],
        except: &[],
        never: &["tokio", "kube", "futures", "tracing", "std::fs", "std::thread"],
    },
    // Whoever decides is told; only those at the edge ask the API server.
    Rule {
        files: &[""],
        except: &["source/", "agent/publish.rs", "controller", "main.rs", "cli"],
        never: &["kube::Client", "kube::Api", "kube::runtime"],
    },
    // Whoever is asked says what went wrong in a type of its own.
    Rule {
        files: &[
            "api", "catalog", "plan", "ipvs", "host", "nft", "netlink", "ledger", "node", "phases",
        ],
        except: &[],
        never: &["anyhow"],
    },
];

impl Rule {
    fn concerns(&self, file: &str) -> bool {
        let among = |prefixes: &[&str]| prefixes.iter().any(|prefix| file.starts_with(prefix));
        among(self.files) && !among(self.except)
    }

    fn forbids(&self, name: &str) -> bool {
        self.never.iter().any(|never| {
            name.strip_prefix(never)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with("::") || never.ends_with("::"))
        })
    }
}

/// Every source file by its path below `src/`, but for tests, which may use what they like.
fn sources() -> Vec<(String, String)> {
    fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => collect(&path, files),
                false => files.push(path),
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    files.sort();
    files
        .into_iter()
        .map(|file| {
            let path = file.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
            let text = fs::read_to_string(&file).unwrap();
            let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap().to_owned();
            (path, code)
        })
        .filter(|(path, _)| !path.split('/').any(|part| part == "tests" || part == "tests.rs"))
        .collect()
}

/// Every name that a file imports, written out from `crate` or a crate's name.
fn imports(file: &str, code: &str) -> BTreeSet<String> {
    let statement = Regex::new(r#"(?m)^\s*(?:pub(?:\([a-z]+\))? )?use ([^;"]+);"#).unwrap();
    statement
        .captures_iter(code)
        .flat_map(|found| expand("", &found[1]))
        .map(|name| resolve(file, &name))
        .collect()
}

/// `a::{b, c::d}` → `a::b`, `a::c::d`.
fn expand(prefix: &str, tree: &str) -> Vec<String> {
    let tree = tree.trim();
    match tree.split_once('{') {
        None => vec![format!("{prefix}{}", tree.split(" as ").next().unwrap())],
        Some((path, rest)) => {
            let inner = rest.trim_end().strip_suffix('}').unwrap();
            let mut depth = 0;
            let branches = inner.split(|character| {
                depth += i32::from(character == '{') - i32::from(character == '}');
                character == ',' && depth == 0
            });
            let prefix = format!("{prefix}{path}");
            branches
                .filter(|branch| !branch.trim().is_empty())
                .flat_map(|branch| expand(&prefix, branch))
                .collect()
        }
    }
}

/// Writes `super::x` and `self::x` out from `crate`.
fn resolve(file: &str, name: &str) -> String {
    let module = file.trim_end_matches(".rs").trim_end_matches("/mod");
    let mut module: Vec<&str> = module
        .split('/')
        .filter(|part| *part != "lib" && *part != "main")
        .collect();
    let mut rest = name;
    if let Some(inner) = rest.strip_prefix("self::") {
        return format!("crate::{}::{inner}", module.join("::"));
    }
    if !rest.starts_with("super::") {
        return rest.to_owned();
    }
    while let Some(outer) = rest.strip_prefix("super::") {
        module.pop();
        rest = outer;
    }
    module.insert(0, "crate");
    format!("{}::{rest}", module.join("::"))
}

fn is_of_same_module(file: &str, name: &str) -> bool {
    let module = file.split(['/', '.']).next();
    name.strip_prefix("crate::")
        .and_then(|path| path.split("::").next())
        == module
}

#[test]
fn nobody_imports_what_the_table_forbids() {
    let mut breaches = Vec::new();
    for (file, code) in sources() {
        for name in imports(&file, &code) {
            let forbidden = RULES
                .iter()
                .any(|rule| rule.concerns(&file) && rule.forbids(&name));
            if forbidden && !is_of_same_module(&file, &name) {
                breaches.push(format!("src/{file} imports {name}"));
            }
        }
    }
    assert_eq!(breaches, [""; 0]);
}

/// A path can also be written where it is used.
#[test]
fn the_clock_and_sockets_are_not_named_in_passing_either() {
    let named = Regex::new(r"\b(Instant|SystemTime)::now\(|\b(rustix::net|tokio|kube::Client)::").unwrap();
    let pure = |file: &str| {
        [
            "api/",
            "plan/",
            "ipvs/",
            "nft/",
            "netlink/attribute.rs",
            "netlink/message.rs",
        ]
        .iter()
        .any(|prefix| file.starts_with(prefix))
            && !["ipvs/netlink.rs", "nft/netlink.rs"].contains(&file)
    };
    let breaches: Vec<_> = sources()
        .into_iter()
        .filter(|(file, code)| pure(file) && named.is_match(code))
        .map(|(file, _)| file)
        .collect();
    assert_eq!(breaches, [""; 0]);
}

#[test]
fn every_rule_concerns_some_file() {
    let sources = sources();
    for rule in RULES {
        let concerned = sources.iter().any(|(file, _)| rule.concerns(file));
        assert!(concerned, "no file begins with one of {:?}", rule.files);
    }
}

#[test]
fn use_lines_are_read_as_the_compiler_reads_them() {
    let code = "use a::b;\npub use super::c::{d, e::{f, g as h}};\nuse self::i;\nlet use_nothing = 1;\n";
    let found: Vec<_> = imports("plan/validate/mod.rs", code).into_iter().collect();
    assert_eq!(
        found,
        [
            "a::b",
            "crate::plan::c::d",
            "crate::plan::c::e::f",
            "crate::plan::c::e::g",
            "crate::plan::validate::i"
        ]
    );
    assert_eq!(
        resolve("plan/desired.rs", "super::finding::Finding"),
        "crate::plan::finding::Finding"
    );
    let rule = &RULES[1];
    assert!(rule.concerns("ipvs/table.rs") && !rule.concerns("plan/mod.rs"));
    assert!(rule.forbids("crate::api::Duration") && rule.forbids("kube") && !rule.forbids("kubernetes::x"));
}

/// What outgrows these holds the thoughts of several.
const LINES_OF_A_FILE: usize = 500;
const LINES_OF_A_FUNCTION: usize = 80;
const FIELDS_OF_A_STRUCT: usize = 12;

#[test]
fn files_functions_and_structs_keep_to_a_size() {
    let function = Regex::new(r"^( *)(?:pub(?:\([^)]*\))? )?(?:async |const )*fn (\w+)").unwrap();
    let structure = Regex::new(r"^( *)(?:pub(?:\([^)]*\))? )?struct (\w+).*\{$").unwrap();
    let mut outgrown = Vec::new();
    for (file, text) in sources() {
        let lines: Vec<&str> = text.lines().collect();
        if lines.len() > LINES_OF_A_FILE {
            outgrown.push(format!("{file}: {} lines", lines.len()));
        }
        for (number, line) in lines.iter().enumerate() {
            let end = |indentation: &str| {
                let rest = lines[number..].iter();
                rest.take_while(|line| **line != format!("{indentation}}}"))
                    .count()
            };
            // One without a body, or on one line, ends before the first line of its block would.
            let has_block = |indentation: &str| {
                let inside = format!("{indentation}    ");
                let mut head = lines[number..].iter();
                head.find(|line| line.ends_with(['{', ';', '}']))
                    .is_some_and(|line| line.ends_with('{') && !line.starts_with(&format!("{inside}    ")))
            };
            if let Some(found) = function.captures(line)
                && has_block(&found[1])
                && end(&found[1]) >= LINES_OF_A_FUNCTION
            {
                outgrown.push(format!("{file}: fn {}: {} lines", &found[2], end(&found[1]) + 1));
            }
            if let Some(found) = structure.captures(line) {
                let inside = format!("{}    ", &found[1]);
                let is_field = |line: &&&str| {
                    line.strip_prefix(&inside)
                        .is_some_and(|line| line.contains(": ") && !line.starts_with([' ', '/', '#']))
                };
                let fields = lines[number..].iter().take(end(&found[1])).filter(is_field);
                let fields = fields.count();
                if fields > FIELDS_OF_A_STRUCT && !file.starts_with("api/") {
                    outgrown.push(format!("{file}: struct {}: {fields} fields", &found[2]));
                }
            }
        }
    }
    assert!(outgrown.is_empty(), "{}", outgrown.join("\n"));
}
