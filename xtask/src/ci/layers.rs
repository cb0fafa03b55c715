//! Who may depend on whom, as data, checked against the manifests, `cargo tree` and the sources.
//!
//! A manifest says whom a crate names; `cargo tree` says what comes with it when it is built.
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
    None,
    /// Whatever the fences allow.
    Fenced,
}

const LAYERS: &[Layer] = &[
    Layer {
        package: "cabinet-wire",
        ours: &[],
        theirs: Theirs::None,
        reason: "bytes only: guests and hosts of every kind build on it",
    },
    Layer {
        package: "cabinet-guest",
        ours: &["cabinet-wire"],
        theirs: Theirs::None,
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
        named_by: &[
            "cabinet-cli",
            "cabinet-host",
            "cabinet-conformance",
            "cabinet-rooms",
            "cabinet-cli",
            "xtask",
        ],
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
        // openraft itself, and openraft-rt, openraft-rt-tokio and what else it is split into.
        family: Family::Prefix("openraft"),
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
        named_by: &[
            "cabinet-durability",
            "cabinet-consensus",
            "cabinet-rooms",
            "cabinet-cli",
        ],
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
        folder: "crates/consensus/src/raft/engine/",
    },
    Territory {
        word: "openraft_rt",
        folder: "crates/consensus/src/raft/engine/",
    },
    Territory {
        word: "openraft_rt_tokio",
        folder: "crates/consensus/src/raft/engine/",
    },
    Territory {
        word: "aws_sdk_s3",
        folder: "crates/durability/src/store/s3",
    },
    Territory {
        word: "aws_smithy_http_client",
        folder: "crates/durability/src/store/s3",
    },
];

/// Checks manifests, what `cargo tree` prints for each crate, and the sources.
pub(super) fn run(workspace: &Workspace) -> Result<(), Failure> {
    let mut metadata = workspace.cargo(&["metadata", "--format-version", "1", "--locked"]);
    let bytes = capture(metadata.arg("--no-deps"))?;
    let metadata: Metadata =
        serde_json::from_slice(&bytes).map_err(|error| Failure::Unreadable {
            what: "the output of `cargo metadata`".to_string(),
            detail: error.to_string(),
        })?;
    let mut crates = Crates::new();
    for package in metadata.packages {
        let mut tree = workspace.cargo(&["tree", "--locked", "--offline", "--package"]);
        tree.arg(&package.name).args(TREE);
        println!("$ {}", super::show(&tree));
        let reach = names_of_tree(&String::from_utf8_lossy(&capture(&mut tree)?));
        println!("{} packages", reach.len());
        let declared = package.dependencies;
        crates.insert(package.name, Member { declared, reach });
    }
    let mut findings = check_layers(&crates);
    findings.extend(check_fences(&crates));
    for file in tidy::files(&workspace.root, ".rs")? {
        let source = read(&workspace.root.join(&file))?;
        findings.extend(check_territories(&file, &source));
    }
    let alone = feature_lines(
        workspace,
        &["--package", "xtask", "--edges", "normal,build"],
    )?;
    let whole = feature_lines(workspace, &["--workspace", "--edges", "normal,build,dev"])?;
    findings.extend(check_built_once(&alone, &whole));
    verdict(findings)
}

/// What a build compiles, a line for each package with its version and features.
fn feature_lines(workspace: &Workspace, of: &[&str]) -> Result<BTreeSet<String>, Failure> {
    let mut tree = workspace.cargo(&["tree", "--locked", "--offline", "--prefix", "none"]);
    tree.args(["--format", "{p} [{f}]"]).args(of);
    println!("$ {}", super::show(&tree));
    let printed = capture(&mut tree)?;
    let lines = String::from_utf8_lossy(&printed);
    // `(*)` marks a package whose dependencies were printed above.
    let plain = |line: &str| line.trim_end_matches(" (*)").to_string();
    Ok(lines.lines().map(plain).collect())
}

/// The README's first command builds `xtask` alone, the second the whole workspace. A package whose features differ
/// between the two is compiled twice, and with it everything above: wasmer, for ten minutes.
fn check_built_once(alone: &BTreeSet<String>, whole: &BTreeSet<String>) -> Vec<String> {
    let finding = |line: &String| {
        format!(
            "xtask builds {line}, the workspace builds it with other features: add the missing ones to \
             xtask/Cargo.toml, where it says what is not used there"
        )
    };
    alone.difference(whole).map(finding).collect()
}

/// What is compiled or run to build a crate, on every target and with every feature: development dependencies
/// are left out.
const TREE: &[&str] = &[
    "--edges",
    "normal,build",
    "--target",
    "all",
    "--all-features",
    "--prefix",
    "none",
];

/// The packages of a tree, the one it is of included: each line begins with a name.
fn names_of_tree(tree: &str) -> BTreeSet<String> {
    tree.lines()
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_string)
        .collect()
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<PackageEntry>,
}

#[derive(Deserialize)]
struct PackageEntry {
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

/// The workspace's crates by name.
type Crates = BTreeMap<String, Member>;

/// The part of a workspace crate the rules speak about.
struct Member {
    /// What its manifest names.
    declared: Vec<Declared>,
    /// What comes with it when it is built.
    reach: BTreeSet<String>,
}

impl Family {
    fn holds(&self, name: &str) -> bool {
        match self {
            Family::Prefix(prefix) => name.starts_with(prefix),
            Family::AnyOf(names) => names.contains(&name),
        }
    }
}

fn check_layers(crates: &Crates) -> Vec<String> {
    let mut findings = Vec::new();
    for (package, member) in crates {
        let Some(layer) = LAYERS.iter().find(|layer| layer.package == package) else {
            findings.push(format!(
                "{package} has no row in LAYERS (xtask/src/ci/layers.rs): say where it stands"
            ));
            continue;
        };
        let allowed = |name: &str| {
            if crates.contains_key(name) {
                name == package || layer.ours.contains(&name)
            } else {
                matches!(layer.theirs, Theirs::Fenced)
            }
        };
        for dependency in &member.declared {
            let name = dependency.name.as_str();
            let is_tool = dependency.kind.as_deref() == Some("dev") && !crates.contains_key(name);
            if !is_tool && !allowed(name) {
                findings.push(format!(
                    "{package} must not depend on {name}: {}",
                    layer.reason
                ));
            }
        }
        let named = |name: &str| member.declared.iter().any(|found| found.name == name);
        for name in member.reach.iter().filter(|name| !named(name)) {
            if !allowed(name) {
                findings.push(format!(
                    "{package} must not reach {name}: {} (`cargo tree -p {package} -i {name}`)",
                    layer.reason
                ));
            }
        }
    }
    findings
}

fn check_fences(crates: &Crates) -> Vec<String> {
    let mut findings = Vec::new();
    for fence in FENCES {
        for (package, member) in crates {
            if !fence.named_by.contains(&package.as_str()) {
                let declared = member.declared.iter();
                for dependency in declared.filter(|found| fence.family.holds(&found.name)) {
                    let who = fence.named_by.join(", ");
                    findings.push(format!(
                        "{package} names {} in its manifest; only {who} may",
                        dependency.name
                    ));
                }
            }
            if fence.never_under.contains(&package.as_str()) {
                for name in member.reach.iter().filter(|name| fence.family.holds(name)) {
                    findings.push(format!(
                        "{package} must not reach {name} (`cargo tree -p {package} -i {name}`)"
                    ));
                }
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

    /// A workspace crate: its name, its manifest's lines with their kinds, and what it reaches beyond these.
    type Row<'a> = (&'a str, &'a [(&'a str, Option<&'a str>)], &'a [&'a str]);

    fn crates(rows: &[Row<'_>]) -> Crates {
        let member = |(name, declared, beyond): &Row<'_>| {
            let built = declared.iter().filter(|(_, kind)| *kind != Some("dev"));
            let reach = built.map(|(name, _)| *name).chain(beyond.iter().copied());
            let member = Member {
                declared: declared
                    .iter()
                    .map(|(name, kind)| Declared {
                        name: name.to_string(),
                        kind: kind.map(str::to_string),
                    })
                    .collect(),
                reach: reach.chain([*name]).map(str::to_string).collect(),
            };
            (name.to_string(), member)
        };
        rows.iter().map(member).collect()
    }

    #[test]
    fn a_package_with_other_features_is_built_twice() {
        let lines = |lines: &[&str]| lines.iter().map(|line| line.to_string()).collect();
        let whole: BTreeSet<String> =
            lines(&["a v1.0.0 [std]", "b v1.0.0 [default,std]", "c v1.0.0 []"]);
        let alone = lines(&["a v1.0.0 [std]", "b v1.0.0 [default,std]"]);
        assert_eq!(check_built_once(&alone, &whole), Vec::<String>::new());
        let alone = lines(&["a v1.0.0 [std]", "b v1.0.0 [std]"]);
        let found = check_built_once(&alone, &whole);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("b v1.0.0 [std]"), "{found:?}");
    }

    #[test]
    fn the_names_of_a_tree_are_the_first_words_of_its_lines() {
        let tree = "cabinet-guest v0.1.0 (/w/crates/guest)\ncabinet-wire v0.1.0 (/w/crates/wire)\n\
                    serde v1.0.0 (*)\nserde v1.0.0\n";
        assert!(
            names_of_tree(tree)
                .iter()
                .eq(["cabinet-guest", "cabinet-wire", "serde"])
        );
    }

    #[test]
    fn the_layers_as_designed_hold() {
        let crates = crates(&[
            ("cabinet-wire", &[("proptest", Some("dev"))], &[]),
            ("cabinet-guest", &[("cabinet-wire", None)], &[]),
            (
                "cabinet-host",
                &[("cabinet-wire", None), ("wasmer", None)],
                &["wasmer-vm"],
            ),
            (
                "cabinet-conformance",
                &[("cabinet-host", None)],
                &["cabinet-wire", "wasmer", "wasmer-vm"],
            ),
        ]);
        assert_eq!(check_layers(&crates), Vec::<String>::new());
        assert_eq!(check_fences(&crates), Vec::<String>::new());
    }

    #[test]
    fn wire_with_a_dependency_is_refused() {
        let findings = check_layers(&crates(&[("cabinet-wire", &[("serde", None)], &[])]));
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert!(findings[0].starts_with("cabinet-wire must not depend on serde"));
    }

    #[test]
    fn a_crate_below_is_not_reached_through_another_either() {
        let findings = check_layers(&crates(&[
            ("cabinet-guest", &[("cabinet-wire", None)], &["libc"]),
            ("cabinet-wire", &[], &[]),
            (
                "cabinet-host",
                &[("cabinet-wire", None)],
                &["cabinet-guest"],
            ),
        ]));
        assert_eq!(findings.len(), 2, "{findings:?}");
        assert!(findings[0].starts_with("cabinet-guest must not reach libc"));
        assert!(findings[1].starts_with("cabinet-host must not reach cabinet-guest"));
    }

    #[test]
    fn a_crate_without_a_row_is_refused() {
        let findings = check_layers(&crates(&[("cabinet-surprise", &[], &[])]));
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert!(findings[0].starts_with("cabinet-surprise has no row"));
    }

    #[test]
    fn only_host_names_wasmer_even_for_tests() {
        let findings = check_fences(&crates(&[(
            "cabinet-conformance",
            &[("wasmer-types", Some("dev"))],
            &[],
        )]));
        assert_eq!(
            findings,
            ["cabinet-conformance names wasmer-types in its manifest; only cabinet-host may"]
        );
    }

    #[test]
    fn durability_must_not_reach_wasm_through_others() {
        let findings = check_fences(&crates(&[(
            "cabinet-durability",
            &[("helper", None)],
            &["wasmer"],
        )]));
        assert_eq!(
            findings,
            [
                "cabinet-durability must not reach wasmer (`cargo tree -p cabinet-durability -i wasmer`)"
            ]
        );
    }

    #[test]
    fn consensus_must_not_reach_s3_and_durability_may() {
        let findings = check_fences(&crates(&[
            ("cabinet-consensus", &[("store", None)], &["aws-sdk-s3"]),
            ("cabinet-durability", &[("aws-sdk-s3", None)], &[]),
        ]));
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert!(findings[0].starts_with("cabinet-consensus must not reach aws-sdk-s3"));
    }

    #[test]
    fn openraft_is_named_only_by_consensus() {
        let findings = check_fences(&crates(&[
            ("cabinet-consensus", &[("openraft", None)], &[]),
            ("cabinet-cli", &[("openraft", None)], &[]),
        ]));
        assert_eq!(
            findings,
            ["cabinet-cli names openraft in its manifest; only cabinet-consensus may"]
        );
    }

    #[test]
    fn openrafts_runtimes_are_fenced_with_it() {
        let findings = check_fences(&crates(&[
            ("cabinet-consensus", &[("openraft-rt-tokio", None)], &[]),
            ("cabinet-rooms", &[("helper", None)], &["openraft-rt"]),
        ]));
        assert_eq!(
            findings,
            [
                "cabinet-rooms must not reach openraft-rt (`cargo tree -p cabinet-rooms -i openraft-rt`)"
            ]
        );
    }

    #[test]
    fn in_consensus_only_the_engine_names_openraft() {
        let source = "use openraft::Raft;\nuse openraft_rt_tokio::TokioRuntime;";
        assert_eq!(
            check_territories("crates/consensus/src/raft/engine/mod.rs", source),
            Vec::<String>::new()
        );
        let findings = check_territories("crates/consensus/src/raft/mod.rs", source);
        assert_eq!(findings.len(), 2, "{findings:?}");
        assert!(findings[0].contains("named outside crates/consensus/src/raft/engine/"));
    }

    #[test]
    fn development_dependencies_do_not_count_as_reach() {
        let crates = crates(&[("cabinet-durability", &[("harness", Some("dev"))], &[])]);
        assert_eq!(check_fences(&crates), Vec::<String>::new());
        assert!(TREE.contains(&"normal,build"));
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
