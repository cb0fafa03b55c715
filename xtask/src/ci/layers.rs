//! Who may depend on whom, as data, checked against `cargo metadata` and the sources.
//!
//! The tables below are the architecture. A workspace crate without a row is refused, so a new crate starts by
//! saying where it stands. Rows of crates that do not exist yet wait for them.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::{Failure, Workspace, capture, code, read, tidy, verdict};

/// What one of our crates may name in its manifest.
struct Layer {
    package: &'static str,
    /// Crates of this workspace it may use.
    ours: &'static [&'static str],
    theirs: Theirs,
    reason: &'static str,
}

/// Crates from the registry a layer may use, development dependencies aside.
enum Theirs {
    Only(&'static [&'static str]),
    /// Whatever the fences allow.
    Fenced,
}

const LAYERS: &[Layer] = &[
    Layer {
        package: "cabinet-wire",
        ours: &[],
        theirs: Theirs::Only(&[]),
        reason: "bytes only: guests and hosts of every kind build on it",
    },
    Layer {
        package: "cabinet-guest",
        ours: &["cabinet-wire"],
        theirs: Theirs::Only(&[]),
        reason: "all of it is compiled into every game",
    },
    Layer {
        package: "cabinet-host",
        ours: &["cabinet-wire"],
        theirs: Theirs::Fenced,
        reason: "one room called by hand: no executor, no storage, no network",
    },
    Layer {
        package: "cabinet-conformance",
        ours: &["cabinet-wire", "cabinet-host"],
        theirs: Theirs::Fenced,
        reason: "it judges the host through its public face",
    },
    Layer {
        package: "cabinet-durability",
        ours: &["cabinet-wire"],
        theirs: Theirs::Fenced,
        reason: "it stores opaque bytes and never sees a guest",
    },
    Layer {
        package: "cabinet-consensus",
        ours: &["cabinet-wire"],
        theirs: Theirs::Fenced,
        reason: "it replicates opaque bytes and never sees a guest or a store",
    },
    Layer {
        package: "cabinet-rooms",
        ours: &["cabinet-wire", "cabinet-host", "cabinet-durability"],
        theirs: Theirs::Fenced,
        reason: "host and durability meet here and nowhere else",
    },
    Layer {
        package: "cabinet-cli",
        ours: &[
            "cabinet-wire",
            "cabinet-host",
            "cabinet-conformance",
            "cabinet-rooms",
            "cabinet-durability",
        ],
        theirs: Theirs::Fenced,
        reason: "an application above the crates",
    },
    Layer {
        package: "xtask",
        ours: &["cabinet-wire", "cabinet-host", "cabinet-conformance"],
        theirs: Theirs::Fenced,
        reason: "the first README command must not compile S3, Raft and a terminal UI",
    },
];

/// A family of registry crates that only some of ours may touch.
struct Fence {
    family: Family,
    /// The only crates that may name it in a manifest, of any dependency kind.
    named_by: &'static [&'static str],
    /// Crates that may not even reach it through others.
    never_under: &'static [&'static str],
}

enum Family {
    Prefix(&'static str),
    AnyOf(&'static [&'static str]),
}

const FENCES: &[Fence] = &[
    Fence {
        family: Family::Prefix("wasmer"),
        named_by: &["cabinet-host"],
        never_under: &[
            "cabinet-wire",
            "cabinet-guest",
            "cabinet-durability",
            "cabinet-consensus",
        ],
    },
    Fence {
        family: Family::AnyOf(&["wasmparser", "wasm-encoder", "wat"]),
        named_by: &["cabinet-host", "cabinet-conformance", "xtask"],
        never_under: &[
            "cabinet-wire",
            "cabinet-guest",
            "cabinet-durability",
            "cabinet-consensus",
        ],
    },
    Fence {
        family: Family::Prefix("aws-"),
        named_by: &["cabinet-durability"],
        never_under: &[
            "cabinet-wire",
            "cabinet-guest",
            "cabinet-host",
            "cabinet-consensus",
            "xtask",
        ],
    },
    Fence {
        family: Family::AnyOf(&["openraft"]),
        named_by: &["cabinet-consensus"],
        never_under: &[
            "cabinet-wire",
            "cabinet-guest",
            "cabinet-host",
            "cabinet-durability",
            "cabinet-rooms",
            "xtask",
        ],
    },
    Fence {
        family: Family::AnyOf(&["tokio"]),
        named_by: &["cabinet-durability", "cabinet-consensus", "cabinet-cli"],
        never_under: &[
            "cabinet-wire",
            "cabinet-guest",
            "cabinet-host",
            "cabinet-conformance",
            "xtask",
        ],
    },
];

/// Identifiers that may stand only in the sources below one folder.
struct Territory {
    word: &'static str,
    folder: &'static str,
}

const TERRITORIES: &[Territory] = &[
    Territory {
        word: "wasmer",
        folder: "crates/host/",
    },
    Territory {
        word: "wasmer_compiler",
        folder: "crates/host/",
    },
    Territory {
        word: "wasmer_types",
        folder: "crates/host/",
    },
    Territory {
        word: "wasmer_vm",
        folder: "crates/host/",
    },
    Territory {
        word: "openraft",
        folder: "crates/consensus/",
    },
    Territory {
        word: "aws_sdk_s3",
        folder: "crates/durability/",
    },
];

/// Checks manifests, the resolved graph and the sources.
pub(super) fn run(workspace: &Workspace) -> Result<(), Failure> {
    let bytes = capture(&mut workspace.cargo(&["metadata", "--format-version", "1", "--locked"]))?;
    let metadata: Metadata =
        serde_json::from_slice(&bytes).map_err(|error| Failure::Unreadable {
            what: "the output of `cargo metadata`".to_string(),
            detail: error.to_string(),
        })?;
    let graph = Graph::new(&metadata);
    let mut findings = check_layers(&graph);
    findings.extend(check_fences(&graph));
    for file in tidy::rust_files(&workspace.root)? {
        let source = read(&workspace.root.join(&file))?;
        findings.extend(check_territories(&file, &source));
    }
    println!(
        "{} workspace crates, {} packages in the graph",
        graph.ours.len(),
        graph.packages.len()
    );
    verdict(findings)
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<PackageEntry>,
    workspace_members: Vec<String>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct PackageEntry {
    id: String,
    name: String,
    dependencies: Vec<Declared>,
}

/// A line of a manifest.
#[derive(Clone, Deserialize)]
struct Declared {
    name: String,
    /// None for an ordinary dependency, else `dev` or `build`.
    kind: Option<String>,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Edge>,
}

#[derive(Deserialize)]
struct Edge {
    pkg: String,
    dep_kinds: Vec<EdgeKind>,
}

#[derive(Deserialize)]
struct EdgeKind {
    kind: Option<String>,
}

/// The part of the metadata the rules speak about.
struct Graph {
    /// Name and manifest lines of each workspace crate.
    ours: BTreeMap<String, Vec<Declared>>,
    /// Package id to name.
    packages: BTreeMap<String, String>,
    /// Package id to the ids it needs when it is built and run; development dependencies are left out.
    needs: BTreeMap<String, Vec<String>>,
}

impl Graph {
    fn new(metadata: &Metadata) -> Graph {
        let members: BTreeSet<&str> = metadata
            .workspace_members
            .iter()
            .map(String::as_str)
            .collect();
        let ours = metadata
            .packages
            .iter()
            .filter(|package| members.contains(package.id.as_str()))
            .map(|package| (package.name.clone(), package.dependencies.clone()))
            .collect();
        let packages = metadata
            .packages
            .iter()
            .map(|package| (package.id.clone(), package.name.clone()))
            .collect();
        let needs = metadata
            .resolve
            .nodes
            .iter()
            .map(|node| {
                let edges = node.deps.iter();
                let kept = edges.filter(|edge| {
                    edge.dep_kinds
                        .iter()
                        .any(|k| k.kind.as_deref() != Some("dev"))
                });
                (node.id.clone(), kept.map(|edge| edge.pkg.clone()).collect())
            })
            .collect();
        Graph {
            ours,
            packages,
            needs,
        }
    }

    fn name<'a>(&'a self, id: &'a str) -> &'a str {
        self.packages.get(id).map_or(id, String::as_str)
    }

    /// The shortest chain of names from a workspace crate to a member of the family.
    fn path_to(&self, from: &str, family: &Family) -> Option<Vec<&str>> {
        let (start, _) = self.packages.iter().find(|(_, name)| *name == from)?;
        let mut frontier = vec![vec![start.as_str()]];
        let mut seen = BTreeSet::from([start.as_str()]);
        while !frontier.is_empty() {
            let mut next = Vec::new();
            for chain in frontier {
                let Some(last) = chain.last() else { continue };
                for id in self.needs.get(*last).into_iter().flatten() {
                    if !seen.insert(id) {
                        continue;
                    }
                    let mut longer = chain.clone();
                    longer.push(id);
                    if family.holds(self.name(id)) {
                        return Some(longer.into_iter().map(|id| self.name(id)).collect());
                    }
                    next.push(longer);
                }
            }
            frontier = next;
        }
        None
    }
}

impl Family {
    fn holds(&self, name: &str) -> bool {
        match self {
            Family::Prefix(prefix) => name.starts_with(prefix),
            Family::AnyOf(names) => names.contains(&name),
        }
    }
}

fn check_layers(graph: &Graph) -> Vec<String> {
    let mut findings = Vec::new();
    for (package, dependencies) in &graph.ours {
        let Some(layer) = LAYERS.iter().find(|layer| layer.package == package) else {
            findings.push(format!(
                "{package} has no row in LAYERS (xtask/src/ci/layers.rs): say where it stands"
            ));
            continue;
        };
        for dependency in dependencies {
            let name = dependency.name.as_str();
            let dev = dependency.kind.as_deref() == Some("dev");
            let allowed = if graph.ours.contains_key(name) {
                layer.ours.contains(&name)
            } else {
                match layer.theirs {
                    Theirs::Only(names) => dev || names.contains(&name),
                    Theirs::Fenced => true,
                }
            };
            if !allowed {
                findings.push(format!(
                    "{package} must not depend on {name}: {}",
                    layer.reason
                ));
            }
        }
    }
    findings
}

fn check_fences(graph: &Graph) -> Vec<String> {
    let mut findings = Vec::new();
    for fence in FENCES {
        for (package, dependencies) in &graph.ours {
            if !fence.named_by.contains(&package.as_str()) {
                for dependency in dependencies.iter().filter(|d| fence.family.holds(&d.name)) {
                    let who = fence.named_by.join(", ");
                    findings.push(format!(
                        "{package} names {} in its manifest; only {who} may",
                        dependency.name
                    ));
                }
            }
            if fence.never_under.contains(&package.as_str())
                && let Some(path) = graph.path_to(package, &fence.family)
            {
                findings.push(format!("{package} must not reach {}", path.join(" -> ")));
            }
        }
    }
    findings
}

fn check_territories(file: &str, source: &str) -> Vec<String> {
    let mut findings = Vec::new();
    let code = code::code_only(source);
    for (number, line) in code.lines().enumerate() {
        for word in code::words(line) {
            if let Some(territory) = TERRITORIES.iter().find(|t| t.word == word)
                && !file.starts_with(territory.folder)
            {
                findings.push(format!(
                    "{file}:{}: {word} is named outside {}",
                    number + 1,
                    territory.folder
                ));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A package: its name, whether it is ours, and its dependencies with their kinds.
    type Row<'a> = (&'a str, bool, &'a [(&'a str, Option<&'a str>)]);

    /// A graph in which ids equal names.
    fn graph(rows: &[Row<'_>]) -> Graph {
        let metadata = serde_json::json!({
            "packages": rows.iter().map(|(name, _, deps)| serde_json::json!({
                "id": name,
                "name": name,
                "dependencies": deps.iter()
                    .map(|(dep, kind)| serde_json::json!({"name": dep, "kind": kind})).collect::<Vec<_>>(),
            })).collect::<Vec<_>>(),
            "workspace_members": rows.iter().filter(|(_, ours, _)| *ours).map(|(name, ..)| name).collect::<Vec<_>>(),
            "resolve": {"nodes": rows.iter().map(|(name, _, deps)| serde_json::json!({
                "id": name,
                "deps": deps.iter()
                    .map(|(dep, kind)| serde_json::json!({"pkg": dep, "dep_kinds": [{"kind": kind}]}))
                    .collect::<Vec<_>>(),
            })).collect::<Vec<_>>()},
        });
        Graph::new(&serde_json::from_value(metadata).expect("the shape of cargo metadata"))
    }

    #[test]
    fn the_layers_as_designed_hold() {
        let graph = graph(&[
            ("cabinet-wire", true, &[("proptest", Some("dev"))]),
            ("cabinet-guest", true, &[("cabinet-wire", None)]),
            (
                "cabinet-host",
                true,
                &[("cabinet-wire", None), ("wasmer", None)],
            ),
            ("cabinet-conformance", true, &[("cabinet-host", None)]),
            ("wasmer", false, &[("wasmer-vm", None)]),
            ("wasmer-vm", false, &[]),
            ("proptest", false, &[]),
        ]);
        assert_eq!(check_layers(&graph), Vec::<String>::new());
        assert_eq!(check_fences(&graph), Vec::<String>::new());
    }

    #[test]
    fn wire_with_a_dependency_is_refused() {
        let graph = graph(&[
            ("cabinet-wire", true, &[("serde", None)]),
            ("serde", false, &[]),
        ]);
        let findings = check_layers(&graph);
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert!(findings[0].starts_with("cabinet-wire must not depend on serde"));
    }

    #[test]
    fn a_crate_without_a_row_is_refused() {
        let findings = check_layers(&graph(&[("cabinet-surprise", true, &[])]));
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert!(findings[0].starts_with("cabinet-surprise has no row"));
    }

    #[test]
    fn only_host_names_wasmer_even_for_tests() {
        let graph = graph(&[
            (
                "cabinet-conformance",
                true,
                &[("wasmer-types", Some("dev"))],
            ),
            ("wasmer-types", false, &[]),
        ]);
        let findings = check_fences(&graph);
        assert_eq!(
            findings,
            ["cabinet-conformance names wasmer-types in its manifest; only cabinet-host may"]
        );
    }

    #[test]
    fn durability_must_not_reach_wasm_through_others() {
        let graph = graph(&[
            ("cabinet-durability", true, &[("helper", None)]),
            ("helper", false, &[("wasmer", None)]),
            ("wasmer", false, &[]),
        ]);
        let findings = check_fences(&graph);
        assert_eq!(
            findings,
            ["cabinet-durability must not reach cabinet-durability -> helper -> wasmer"]
        );
    }

    #[test]
    fn consensus_must_not_reach_s3_and_durability_may() {
        let graph = graph(&[
            ("cabinet-consensus", true, &[("store", None)]),
            ("cabinet-durability", true, &[("aws-sdk-s3", None)]),
            ("store", false, &[("aws-sdk-s3", None)]),
            ("aws-sdk-s3", false, &[]),
        ]);
        let findings = check_fences(&graph);
        assert_eq!(
            findings,
            ["cabinet-consensus must not reach cabinet-consensus -> store -> aws-sdk-s3"]
        );
    }

    #[test]
    fn openraft_is_named_only_by_consensus() {
        let graph = graph(&[
            ("cabinet-consensus", true, &[("openraft", None)]),
            ("cabinet-cli", true, &[("openraft", None)]),
            ("openraft", false, &[]),
        ]);
        let findings = check_fences(&graph);
        assert_eq!(
            findings,
            ["cabinet-cli names openraft in its manifest; only cabinet-consensus may"]
        );
    }

    #[test]
    fn development_dependencies_do_not_count_as_reach() {
        let graph = graph(&[
            ("cabinet-durability", true, &[("harness", Some("dev"))]),
            ("harness", false, &[("wasmer", None)]),
            ("wasmer", false, &[]),
        ]);
        assert_eq!(check_fences(&graph), Vec::<String>::new());
    }

    #[test]
    fn no_fence_both_opens_and_closes_for_a_crate() {
        for fence in FENCES {
            for package in fence.named_by {
                assert!(!fence.never_under.contains(package), "{package}");
            }
        }
    }

    #[test]
    fn naming_wasmer_outside_host_is_found_in_code_and_not_in_prose() {
        let source = "//! wasmer is fast\nuse wasmer::Store; // wasmer\nlet s = \"wasmer\";\nwasmer_vm::x();";
        assert_eq!(
            check_territories("crates/host/src/engine.rs", source),
            Vec::<String>::new()
        );
        let findings = check_territories("crates/conformance/src/lib.rs", source);
        assert_eq!(findings.len(), 2, "{findings:?}");
        assert!(findings[0].starts_with("crates/conformance/src/lib.rs:2: wasmer "));
        assert!(findings[1].starts_with("crates/conformance/src/lib.rs:4: wasmer_vm "));
    }
}
