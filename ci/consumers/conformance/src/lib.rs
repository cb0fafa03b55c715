//! A publisher's gate: an artifact passes or is turned away with the failed verdicts.

use cabinet_conformance::{CheckError, CheckOptions, Script, check};
use cabinet_host::Host;

/// The names of the verdicts an artifact failed; empty when it passed.
///
/// # Errors
/// When the host refuses the artifact.
pub fn failed(host: &Host, artifact: &[u8], script: &Script) -> Result<Vec<String>, CheckError> {
    let report = check(host, artifact, &CheckOptions::default(), Some(script))?;
    let failed = report.verdicts.iter().filter(|verdict| !verdict.ok());
    Ok(failed.map(|verdict| verdict.name.to_string()).collect())
}
